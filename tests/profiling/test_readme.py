"""The README's code runs; its ladder, and the documents' commands and links, are there."""

import re

import pytest

from kernels import emulator, table
from profiling import machine

README = (machine.ROOT / "README.md").read_text()
DOCUMENTS = [*machine.ROOT.glob("*.md"), *machine.ROOT.glob("docs/*.md")]
MAKEFILE = (machine.ROOT / "Makefile").read_text()


@pytest.mark.skipif(emulator.problem() is not None, reason=str(emulator.problem()))
def test_the_python_code_runs():
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert blocks
    for block in blocks:
        exec(compile(block, "README.md", "exec"), {})


def test_the_ladder_has_every_kernel_of_a_gpu():
    for row in table.rows():
        if "gpu" in row.places:
            line = re.search(rf"^\| \d .*{row.operation} `{row.name}`.*$", README, re.MULTILINE)
            assert line, f"README's ladder lacks {row.operation} {row.name}"
            file = re.search(r"`(\S+\.(?:cu|py))`", line[0])
            assert (machine.ROOT / "kernels" / file[1]).is_file(), file[1]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_link_leads_somewhere(document):
    for link in re.findall(r"\]\((?!https?:)([^)#]+)", document.read_text()):
        assert (document.parent / link).exists(), link


def test_every_make_target_named_exists():
    named = {
        target for path in DOCUMENTS for target in re.findall(r"`make ([a-z-]+)", path.read_text())
    }
    there = set(re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE))
    assert named
    assert named <= there


@pytest.mark.parametrize(("language", "file"), [("cuda", "max.cu"), ("py", "max_numba.py")])
def test_the_kernels_side_by_side_are_those_of_the_files(language, file):
    (block,) = re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)
    source = (machine.ROOT / "kernels" / "pool2d" / file).read_text()
    # The store is a level further out.
    for part in block.split("y[")[0], "y[" + block.split("y[")[1]:
        assert " ".join(part.split()) in " ".join(source.split())
