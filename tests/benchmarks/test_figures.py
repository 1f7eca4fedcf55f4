"""Whatever result the docs name has a command, and the table of commands is true."""

import re
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
