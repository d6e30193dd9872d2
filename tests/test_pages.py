"""The tutorials, and the pages for those who come from another system: the programs run as they
stand and print what the page says.

A page's old programs are files of `scripts/reference`; what they printed there, and the files that
they saved, lie in `tests/data/pages`. Every other program is a new one, in a file of its own, and
is followed by what it prints.
"""

from __future__ import annotations

import importlib.util
import runpy
import shutil
from pathlib import Path

import pytest
from pasted import ROOT, alone, blocks, of_a_job

DATA = ROOT / "tests" / "data" / "pages"
needs_torch = pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="PyTorch is not installed")


def old_programs(page: str) -> dict[str, Path]:
    """The files that a page shows, by what is in them."""
    files = sorted((ROOT / "scripts" / "reference").rglob(f"from_{page}*.py"))
    return {path.read_text(): path for path in files}


def programs(page: str) -> list[tuple[str, str]]:
    """A page's programs and what they print; of a pair both print the text behind the second."""
    found: list[tuple[str, str]] = []
    waiting: list[str] = []
    for kind, block in blocks(ROOT / "docs" / f"{page}.md", "python|text"):
        if kind == "python":
            waiting.append(block)
        else:
            found += [(program, block) for program in waiting]
            waiting = []
    assert not waiting, f"a program of {page}.md is not followed by what it prints"
    return found


@pytest.mark.parametrize("page", ["mxnet", "mindspore", "pytorch"])
def test_old_programs_stand_on_the_page_as_they_were_run_and_with_what_they_printed(page: str) -> None:
    shown, old = dict(programs(f"from-{page}")), old_programs(page)
    assert old
    for text, path in old.items():
        assert text in shown, f"from-{page}.md doesn't show {path.name} as it is"
        assert shown[text] == (DATA / f"{path.stem}.txt").read_text()


@pytest.mark.parametrize("page", ["mxnet", "mindspore", pytest.param("pytorch", marks=needs_torch)])
def test_new_programs_print_what_the_page_says(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(DATA, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    old = old_programs(page)
    for number, (program, printed) in enumerate(programs(f"from-{page}")):
        if program in old and page != "pytorch":  # whose old one can run here, and saves the file for the next
            continue
        path = tmp_path / f"program_{number}.py"
        path.write_text(program)
        if '"dist_sync"' in program:
            output = of_a_job(path)
        else:
            capsys.readouterr()
            runpy.run_path(str(path), run_name="__main__")
            output = capsys.readouterr().out
        assert output == printed, f"from-{page}.md, program {number + 1}"


@pytest.mark.parametrize("page", ["local", "distributed", "tables", pytest.param("pytorch", marks=needs_torch)])
def test_each_program_of_a_tutorial_runs_alone_and_prints_what_the_page_says(page: str, tmp_path: Path) -> None:
    for number, (text, printed) in enumerate(programs(f"tutorial-{page}")):
        folder = tmp_path / str(number)
        folder.mkdir()
        program = folder / "program.py"
        program.write_text(text)
        if page == "distributed":
            assert of_a_job(program) == printed
        else:
            assert alone(program) == printed
        if page == "tables":
            assert of_a_job(program) == printed + printed.replace("worker 0", "worker 1")
