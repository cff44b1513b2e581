"""Carry out a Dockerfile's steps without Docker, in a clean root.

It reads the file itself: ENV, ARG, RUN, USER, WORKDIR and COPY (with .dockerignore) are done as
Docker does them; CMD is printed. What stands in for the base image is a minimal Debian or Ubuntu
made by mmdebstrap, so that neither CUDA's image nor a GPU is tried. It wants root, `apt install
mmdebstrap`, a network and 10 GB of disk. A command after `--` runs in the finished root, as CMD
would:

    python3 .ci/replay_dockerfile.py                   # on Debian 13
    python3 .ci/replay_dockerfile.py --suite noble     # on Ubuntu 24.04, as Dockerfile.cuda's base
    python3 .ci/replay_dockerfile.py -- .venv/bin/python -m kernels check naive

Exit status: that of the step that failed, 2 what cannot be replayed, 0.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

CONTEXT = Path(__file__).resolve().parents[1]
# How this machine reaches its package indexes; none of it is part of an image.
NETWORK = ["/etc/resolv.conf", "/etc/pip.conf", "/etc/ssl/certs/ca-certificates.crt"]
INHERITED = re.compile(
    r"(PIP_(?!NO_CACHE_DIR)\w+|https?_proxy|no_proxy|SSL_CERT_FILE)", re.IGNORECASE
)
MOUNTED = 'mount -t proc proc "$0/proc" && mount --rbind /dev "$0/dev" && exec chroot "$@"'


class StepError(Exception):
    """A step that cannot be replayed."""


def steps(text: str) -> Iterator[tuple[str, str]]:
    """Yield a Dockerfile's instructions: comments dropped, continued lines joined."""
    kept = [line for line in text.splitlines() if line.strip() and line.lstrip()[0] != "#"]
    for step in re.sub(r"\\\n\s*", "", "\n".join(kept)).splitlines():
        name, _, rest = step.strip().partition(" ")
        yield name.upper(), rest.strip()


def ignored(patterns: str) -> re.Pattern[str]:
    """Return what matches the paths that .dockerignore leaves out, and all below them."""
    found = []
    for line in patterns.split():
        if line[0] == "!":
            raise StepError(f".dockerignore: {line}: exceptions are not replayed")
        anywhere = line.startswith("**/")
        name = re.escape(line.removeprefix("**/")).replace(r"\*", "[^/]*").replace(r"\?", "[^/]")
        found.append(("(.*/)?" if anywhere else "") + name)
    return re.compile(f"({'|'.join(found)})(/.*)?" if found else "(?!)")


class Replay:
    """A root, and what ENV, USER and WORKDIR have made of its state."""

    def __init__(self, root: Path) -> None:
        self.root, self.user, self.folder = root, "0", "/"
        self.environment = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}

    def step(self, name: str, rest: str) -> None:
        """Carry out one instruction."""
        if name in ("FROM", "CMD", "LABEL", "EXPOSE"):
            return
        method = getattr(self, "_" + name.lower(), None)
        if method is None:
            raise StepError(f"{name} is not replayed")
        method(rest)

    def run(self, command: list[str]) -> None:
        """Run a command in the root, as the user and with the variables of this point."""
        uid, gid, home = self._account(self.user)
        network = {k: v for k, v in os.environ.items() if INHERITED.fullmatch(k)}
        variables = {"HOME": home, **network, **self.environment}
        pairs = [f"{name}={value}" for name, value in variables.items()]
        inside = ["env", "-i", f"--chdir={self.folder}", *pairs]
        chroot = [f"--userspec={uid}:{gid}", "--groups=", self.root]
        namespace = ["unshare", "--mount", "--pid", "--fork", "sh", "-c", MOUNTED, self.root]
        subprocess.run([*namespace, *chroot, *inside, *command], check=True)

    def _account(self, user: str) -> tuple[str, str, str]:
        lines = (self.root / "etc/passwd").read_text().splitlines()
        for name, _, uid, gid, _, home, *_ in (line.split(":") for line in lines):
            if user in (name, uid):
                return uid, gid, home
        raise StepError(f"USER {user}: no such user in the root")

    def _run(self, rest: str) -> None:
        self.run(json.loads(rest) if rest.startswith("[") else ["sh", "-c", rest])

    def _env(self, rest: str) -> None:
        for word in shlex.split(rest):
            name, _, value = word.partition("=")
            self.environment[name] = value

    _arg = _env  # its default: nobody gives --build-arg

    def _user(self, rest: str) -> None:
        self._account(rest)
        self.user = rest

    def _workdir(self, rest: str) -> None:
        self.folder = os.path.join(self.folder, rest)
        self._inside(self.folder).mkdir(parents=True, exist_ok=True)

    def _inside(self, path: str) -> Path:
        return self.root / os.path.join(self.folder, path).lstrip("/")

    def _copy(self, rest: str) -> None:
        *options, source, target = shlex.split(rest)
        owner = "0:0"
        for option in options:
            if not option.startswith("--chown="):
                raise StepError(f"COPY {option} is not replayed")
            owner = option.removeprefix("--chown=")
        if source != ".":
            raise StepError(f"COPY {source}: only the whole context, `.`, is replayed")
        file = CONTEXT / ".dockerignore"
        left_out = ignored(file.read_text() if file.exists() else "")
        user, _, group = owner.partition(":")
        uid, gid = int(self._account(user)[0]), int(group or self._account(user)[1])
        for folder, folders, names in os.walk(CONTEXT):
            here = os.path.relpath(folder, CONTEXT)
            place = os.path.normpath(self._inside(target) / here)
            if not os.path.isdir(place):
                os.mkdir(place)
                os.chown(place, uid, gid)
            kept = [n for n in folders if not left_out.fullmatch(os.path.normpath(f"{here}/{n}"))]
            folders[:] = kept
            for name in names:
                if not left_out.fullmatch(os.path.normpath(f"{here}/{name}")):
                    copied = shutil.copy2(f"{folder}/{name}", place, follow_symlinks=False)
                    os.chown(copied, uid, gid, follow_symlinks=False)


def make_root(root: Path, suite: str, mirror: str | None) -> None:
    """Install a minimal system, and how this machine reaches a network."""
    command = ["mmdebstrap", "--quiet", "--variant=minbase", "--include=ca-certificates"]
    subprocess.run([*command, suite, root, *([mirror] if mirror else [])], check=True)
    for path in NETWORK:
        if Path(path).exists():
            shutil.copy(path, str(root) + path)


def main() -> int:
    """Replay, and return the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("dockerfile", nargs="?", type=Path, default=CONTEXT / "Dockerfile.cuda")
    parser.add_argument("--suite", default="trixie", help="of Debian or Ubuntu (trixie)")
    parser.add_argument("--mirror", help="where its packages are (mmdebstrap's choice)")
    words = [*sys.argv[1:], "--"]
    at = words.index("--")
    options, then = parser.parse_args(words[:at]), words[at + 1 : -1]
    if os.geteuid() or not shutil.which("mmdebstrap"):
        print("replay: run it as root, after apt install mmdebstrap", file=sys.stderr)
        return 2
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="replay-") as folder:
        replay = Replay(Path(folder) / "root")
        try:
            make_root(replay.root, options.suite, options.mirror)
            for name, rest in steps(options.dockerfile.read_text()):
                stands_for = f", for which a clean {options.suite} stands" * (name == "FROM")
                print(f"[{time.monotonic() - began:4.0f} s] {name} {rest}{stands_for}", flush=True)
                replay.step(name, rest)
            if then:
                replay.run(then)
        except StepError as error:
            print(f"replay: {options.dockerfile}: {error}", file=sys.stderr)
            return 2
        except subprocess.CalledProcessError as error:
            print(f"replay: the step failed with {error.returncode}", file=sys.stderr)
            return error.returncode
    print(f"[{time.monotonic() - began:4.0f} s] all steps done")
    return 0


if __name__ == "__main__":
    sys.exit(main())
