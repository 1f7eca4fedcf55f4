"""The three tasks, small: one run that writes its files."""

import json

from benchmarks.__main__ import main
from benchmarks.tasks import MEASURES


def test_tasks_write_the_papers_measures(tmp_path):
    small = ["--limit", "300", "--queries", "20", "--repeats", "1", "--seconds", "0.05"]
    folders = ["--work", str(tmp_path / "work"), "--output", str(tmp_path)]
    only = "closeby exact,FLINNG paper mode"
    code = main(["tasks", "genomes", "--only", only, *small, *folders])
    assert code == 0
    results = json.loads((tmp_path / "tasks.json").read_text())
    assert set(results) == {"genomes"}
    for result in results.values():
        exact, *_ = result["subjects"]
        assert exact["subject"] == "closeby exact"
        assert {exact["settings"][0][measure] for measure in MEASURES} == {1.0}
    table = (tmp_path / "tasks.md").read_text()
    assert "| closeby exact |" in table
    assert all(measure in table for measure in MEASURES)
