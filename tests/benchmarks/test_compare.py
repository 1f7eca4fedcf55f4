"""The command writes result files, tables and pictures from one small real run."""

import json
import os
import stat
import sys
from pathlib import Path

import numpy as np
import pytest
from closeby.index import as_set_batch

from benchmarks.__main__ import main
from benchmarks.datasets import load, planted
from benchmarks.subjects import subject_from

FAST = ["--queries", "40", "--repeats", "2", "--seconds", "0.2"]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("benchmarks")
    options = [*FAST, "--limit", "600", "--work", str(folder / "work"), "--output", str(folder)]
    only = "closeby,closeby exact,FAISS binary flat"
    assert main(["compare", "genes", "--quick", "--only", only, *options]) == 0
    return folder


def test_result_says_where_and_how_it_was_measured(written: Path) -> None:
    result = json.loads((written / "genes-600.json").read_text())
    assert {"cpu", "cores", "ram_gib", "compiler", "packages", "commit"} <= result["machine"].keys()
    assert result["machine"]["packages"]["numpy"] == np.__version__
    assert result["dataset"]["points"] == 600
    assert result["dataset"]["queries"] == 40
    assert result["threads"] == 1


def test_exact_search_has_all_of_every_recall(written: Path) -> None:
    result = json.loads((written / "genes-600.json").read_text())
    (exact,) = [r for r in result["subjects"] if r["subject"] == "closeby exact"]
    (row,) = exact["settings"]
    assert {row[m] for m in ("R1@1", "R10@10", "R10@100", "R100@100", "near")} == {1.0}
    assert row["us@10"] > 0
    assert exact["build_seconds"] > 0


def test_every_subject_is_in_the_table(written: Path) -> None:
    table = (written / "genes-600.md").read_text()
    for subject in (
        "| closeby, target_recall 0.95 |",
        "| closeby exact |",
        "| FAISS binary flat |",
    ):
        assert table.count(subject) >= 2  # in the summary and in the rows


def test_pictures_are_drawn_if_matplotlib_is_there(written: Path) -> None:
    pytest.importorskip("matplotlib")
    for name in ("recall", "memory", "build"):
        assert (written / f"genes-600-{name}.png").read_bytes().startswith(b"\x89PNG")


def test_a_data_set_that_is_not_shipped_asks_for_the_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", "glosses", "--work", str(tmp_path), "--output", str(tmp_path)]) == 2
    assert "--data" in capsys.readouterr().err


def test_queries_are_not_among_the_points(tmp_path: Path) -> None:
    path = tmp_path / "texts.txt"
    path.write_text("\n".join(f"text number {n} of many" for n in range(50)))
    split = load(f"lines:{path}", None, None, 10, 0)
    assert (len(split.points), len(split.queries)) == (40, 10)
    points = {split.points.row(i).tobytes() for i in range(40)}
    assert points.isdisjoint(split.queries.row(i).tobytes() for i in range(10))


def test_planted_sets_have_near_neighbours_in_their_family_only() -> None:
    sets = planted(40, seed=1)
    first = [set(sets.row(i).tolist()) for i in range(40)]
    assert len(first[0] & first[3]) > 10
    assert len(first[0] & first[4]) == 0


def test_an_external_program_is_fed_and_read_by_the_documented_protocol(tmp_path: Path) -> None:
    program = tmp_path / "flinng"
    program.write_text(
        f"#!{sys.executable}\n"
        "import json, struct, sys\n"
        "def count(path):\n"
        "    with open(path, 'rb') as file:\n"
        "        return struct.unpack('<q', file.read(8))[0]\n"
        "points, queries = count(sys.argv[1]), count(sys.argv[2])\n"
        "options = dict(word.split('=') for word in sys.argv[4:])\n"
        "depths = [int(k) for k in options['k'].split(',')]\n"
        "with open(sys.argv[3], 'wb') as file:\n"
        "    for k in depths:\n"
        "        for q in range(queries):\n"
        "            file.write(struct.pack(f'<{k}q', *(i % points for i in range(k))))\n"
        "print(json.dumps({'build_seconds': 1.5, 'resident_bytes': int(options['rows']),\n"
        "                  'query_seconds': [0.25 for _ in depths]}))\n"
    )
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    assert os.access(program, os.X_OK)
    points = as_set_batch([[1, 2], [3, 4], [5, 6]])
    subject = subject_from("FLINNG authors", "jaccard", 0, {"binary": str(program), "rows": 7})
    subject.build(points)
    queries = as_set_batch([[3, 4], [5, 6, 7]])
    assert subject.search(queries, 10)[:, :3].tolist() == [[0, 1, 2], [0, 1, 2]]
    assert subject.reported_seconds() == 0.25
    assert subject.search(queries, 1, candidates=100)[:, 0].tolist() == [1, 2]
    assert subject.reported_seconds() > 0.25  # with the re-rank
    assert subject.reported()["resident_bytes"] == 7
