"""What the report refuses, where it writes, and what it never overwrites."""

import re

import pytest

from profiling.__main__ import main
from tests.profiling import made_up_results


def files(tmp_path):
    """Return files by what is wrong with them."""
    good = tmp_path / "good.jsonl"
    made_up_results.write(good)
    whole = good.read_bytes()
    (tmp_path / "empty.jsonl").write_bytes(b"")
    (tmp_path / "schema.jsonl").write_bytes(whole.replace(b"bench 1", b"bench 9", 1))
    (tmp_path / "unfinished.jsonl").write_bytes(whole[: whole.rindex(b"\n", 0, -1) + 1])
    (tmp_path / "garbage.jsonl").write_bytes(b"\x00\xff\n")
    made_up_results.write(tmp_path / "other.jsonl", "cpu", batches=(7,))
    timeless = re.sub(rb'"(cold|hot)":\{[^}]*\}', rb'"\1":null', whole)
    (tmp_path / "timeless.jsonl").write_bytes(timeless)
    (tmp_path / "notes.html").write_text("<p>mine</p>")
    return good


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["missing.jsonl"], "No such file"),
        (["empty.jsonl"], "the file is empty"),
        (["schema.jsonl"], "schema 'conv-kernel-lab bench 9'; expected"),
        (["garbage.jsonl"], "schema None; expected"),
        (["unfinished.jsonl"], "an unfinished run"),
        (["timeless.jsonl"], "naive on lenet conv1 N=64 is timed but has no time"),
        (["good.jsonl", "empty.jsonl"], "the file is empty"),
        (["good.jsonl", "other.jsonl"], "has no operation, pass, shape and type in common with"),
        (["good.jsonl", "good.jsonl"], "given twice"),
        (["good.jsonl", "-o", "good.jsonl"], "is one of the result files"),
        (["good.jsonl", "-o", "good.jsonl", "--force"], "is one of the result files"),
        (["good.jsonl", "-o", "notes.html"], "is no page of this lab"),
        (["good.jsonl", "-o", "nowhere/page.html"], "No such file or directory"),
        (["good.jsonl", "-o", "."], "Is a directory"),
    ],
)
def test_bad_input_is_one_line(arguments, said, tmp_path, monkeypatch, capsys):
    before = files(tmp_path).read_bytes()
    monkeypatch.chdir(tmp_path)
    assert main(["report", *arguments]) == 2
    out, error = capsys.readouterr()
    assert said in error
    assert error.startswith("report: ")
    assert error.count("\n") == 1
    assert out == ""
    assert (tmp_path / "good.jsonl").read_bytes() == before
    assert (tmp_path / "notes.html").read_text() == "<p>mine</p>"
    assert not (tmp_path / "good.html").exists()


def test_a_page_of_ours_is_replaced_and_force_replaces_others(tmp_path, capsys):
    good = files(tmp_path)
    for _ in range(2):
        assert main(["report", str(good)]) == 0
        page = good.with_suffix(".html")
        megabytes = page.stat().st_size / 1e6
        assert capsys.readouterr().out == f"{page}  {megabytes:.1f} MB\n"
    assert main(["report", str(good), "-o", str(tmp_path / "notes.html"), "--force"]) == 0
    assert "lenet conv1" in (tmp_path / "notes.html").read_text(encoding="utf-8")
