"""Dockerfile.cuda's lock, and the script that replays the Dockerfile without Docker."""

import importlib.util
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / ".ci" / "replay_dockerfile.py"


def script():
    spec = importlib.util.spec_from_file_location("replay_dockerfile", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_lock_has_what_the_project_asks_for():
    text = (ROOT / ".ci" / "cuda12.lock").read_text()
    pins = dict(re.findall(r"^([a-z0-9._-]+)==(\S+) \\$", text, re.MULTILINE))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    asked = [
        *project["build-system"]["requires"],
        *project["project"]["dependencies"],
        *project["project"]["optional-dependencies"]["cuda12"],
        *project["project"]["optional-dependencies"]["test"],
    ]
    for line in asked:
        requirement = Requirement(line)
        pinned = pins.get(canonicalize_name(requirement.name), "0")
        assert requirement.specifier.contains(pinned), f"{line}: make lock"
    for entry in re.split(r"\n(?=[a-z])", text)[1:]:
        assert "--hash=sha256:" in entry, entry
    assert "://" not in text  # it names no index


def test_the_steps_of_dockerfile_cuda():
    steps = list(script().steps((ROOT / "Dockerfile.cuda").read_text()))
    names = [name for name, _ in steps]
    assert (names[0], names[-1]) == ("FROM", "CMD")
    assert set(names) <= {"FROM", "RUN", "USER", "WORKDIR", "ENV", "ARG", "COPY", "CMD"}
    apt = next(rest for name, rest in steps if name == "RUN")
    assert apt.startswith("apt-get update && apt-get install")
    assert "\n" not in apt


def test_continued_lines_and_comments():
    text = "# one\nRUN a \\\n  # two\n    && b\nUSER 7 \n"
    assert list(script().steps(text)) == [("RUN", "a && b"), ("USER", "7")]


def test_dockerignore():
    left_out = script().ignored(".venv\n**/__pycache__\n*.egg-info\nruns")
    for path in (".venv", ".venv/bin/python", "__pycache__", "a/b/__pycache__/c.pyc", "x.egg-info"):
        assert left_out.fullmatch(path), path
    for path in ("a/.venv", "a/x.egg-info", "runs.py", "tests/runs", "venv"):
        assert not left_out.fullmatch(path), path


def test_steps_that_change_only_the_state(tmp_path):
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\nlab:x:1001:1002::/home/lab:\n")
    module = script()
    replay = module.Replay(tmp_path)
    replay.step("ENV", 'A=1 B="two words"')
    replay.step("WORKDIR", "/home/lab")
    replay.step("WORKDIR", "inner")
    replay.step("USER", "1001")
    assert (replay.environment["A"], replay.environment["B"]) == ("1", "two words")
    assert replay.folder == "/home/lab/inner"
    assert (tmp_path / "home/lab/inner").is_dir()
    for name, rest, message in [
        ("USER", "nobody", "no such user"),
        ("COPY", "--link . .", "COPY --link is not replayed"),
        ("ADD", ". .", "ADD is not replayed"),
    ]:
        with pytest.raises(module.StepError, match=message):
            replay.step(name, rest)


@pytest.mark.skipif(not shutil.which("make"), reason="no make")
def test_make_installs_from_the_lock_what_the_image_installs():
    command = ["make", "-n", "-W", "pyproject.toml", ".venv/with-test", "EXTRA=cuda12"]
    told = subprocess.run(
        [*command, "LOCK=.ci/cuda12.lock"], cwd=ROOT, capture_output=True, text=True
    )
    assert "--require-hashes -r .ci/cuda12.lock" in told.stdout
    assert "--no-index --no-build-isolation -e" in told.stdout
    told = subprocess.run([*command, "LOCK="], cwd=ROOT, capture_output=True, text=True)
    assert "--require-hashes" not in told.stdout
    assert "--no-index" not in told.stdout
