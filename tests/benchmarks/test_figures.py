"""Whatever result the docs name has a command, and the table of commands is true."""

import re
import subprocess
from pathlib import Path

import pytest

from benchmarks import figures
from benchmarks.__main__ import OWN, main

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
NAMED = re.compile(r"benchmarks/results/([a-zA-Z0-9][a-zA-Z0-9_.-]*\.(?:md|json|png))")


def named():
    return sorted({name for page in PAGES for name in NAMED.findall(page.read_text())})


def test_every_result_that_the_docs_name_has_a_command():
    names = named()
    assert len(names) > 5
    assert [name for name in names if figures.figure_of(name) is None] == []


def test_every_result_file_has_a_command():
    files = [path.name for path in (ROOT / "benchmarks/results").iterdir()]
    assert [name for name in files if figures.figure_of(name) is None] == []


def test_the_table_in_the_docs_is_the_list():
    assert figures.table() in (ROOT / "docs/benchmarks.md").read_text()


def test_the_commands_can_be_given(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    known = capsys.readouterr().out
    for figure in figures.FIGURES:
        words = figure.command.split()
        assert words[0] in known
    for name in OWN:
        with pytest.raises(SystemExit) as end:
            main([*name.split(), "--help"])
        assert end.value.code == 0


def test_all_runs_what_needs_nothing_else(capsys):
    assert main(["all", "--list"]) == 0
    told = capsys.readouterr().out
    for figure in figures.FIGURES:
        assert (f"== {figure.command} (" in told) == (not figure.needs)


def test_all_goes_on_after_a_failure_and_names_it(capsys, monkeypatch):
    asked = []

    def fake(command, **_):
        asked.append(command[3:])
        return subprocess.CompletedProcess(command, int(command[3] == "fanout"))

    monkeypatch.setattr(subprocess, "run", fake)
    assert main(["all"]) == 1
    assert len(asked) == sum(not figure.needs for figure in figures.FIGURES)
    assert capsys.readouterr().err == "benchmarks: failed: python -m benchmarks fanout\n"


def test_all_goes_on_where_it_was_stopped(capsys, monkeypatch):
    def stopped(command, **_):
        if command[3] == "hashing":
            raise KeyboardInterrupt
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(subprocess, "run", stopped)
    assert main(["all"]) == 130
    assert "all --from 'hashing' goes on" in capsys.readouterr().err
    assert main(["all", "--from", "hashing", "--list"]) == 0
    told = capsys.readouterr().out
    assert "== hashing" in told
    assert "== compare" not in told
    assert main(["all", "--from", "nothing"]) == 2
