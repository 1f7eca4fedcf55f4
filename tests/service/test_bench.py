"""`closeby bench`: what it measures, writes, goes on with and refuses."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from closeby.loaders import samples
from closeby.service.bench import command
from closeby.service.bench.plans import Build, jobs
from closeby.service.cli import app
from closeby.service.settings import Settings
from typer.testing import CliRunner

from .conftest import serving


def run(*arguments: Any) -> Any:
    return CliRunner().invoke(app, ["bench", *map(str, arguments)])


@pytest.fixture(scope="module")
def urls(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bench") / "urls.txt"
    path.write_text("\n".join(samples.urls()[:400]))
    return path


@pytest.fixture(scope="module")
def written(urls: Path) -> Path:
    output = urls.parent / "out"
    done = run(urls, "--output", output, "--engines", "flat,lsh", "--queries", 40)
    assert done.exit_code == 0, done.stderr
    assert done.stdout.strip() == str(output / "report.html")
    return output


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "results.csv").open() as file:
        return list(csv.DictReader(file))


def test_exact_search_finds_all_and_others_have_times_and_bytes(written: Path) -> None:
    rows = rows_of(written)
    (flat,) = [row for row in rows if row["engine"] == "flat"]
    assert {float(flat[name]) for name in ("R1@1", "R1@10", "R10@10", "R10@100", "near")} == {1}
    labels = {row["label"] for row in rows}
    assert {"flat", "lsh", "lsh target_recall=0.8", "lsh target_recall=0.99"} <= labels
    for row in rows:
        assert float(row["us"]) > 0
        assert float(row["queries_per_s"]) == pytest.approx(1e6 / float(row["us"]))
        assert float(row["bytes_per_point"]) > float(row["index_bytes_per_point"]) > 0


def test_page_needs_nothing_else_and_says_how_it_was_measured(written: Path) -> None:
    html = (written / "report.html").read_text()
    assert html.count("data:image/png;base64,") == 3
    assert not re.search(r"(src|href)=\"(?!data:)", html)
    for said in ("seed 0", "40 queries", "numpy 2", "closeby bench: urls.txt", "Command:"):
        assert said in html
    for name in ("recall.png", "memory.png", "build.png"):
        assert (written / name).read_bytes().startswith(b"\x89PNG")
    assert "★" in (written / "report.md").read_text()


def test_a_run_goes_on_and_measures_nothing_again(written: Path, urls: Path) -> None:
    before = (written / "results.jsonl").read_bytes()
    (written / "results.jsonl").write_bytes(before + b'{"row": {"la')  # killed while writing
    done = run(urls, "--output", written, "--engines", "flat", "--queries", 40)
    assert done.exit_code == 0, done.stderr
    assert (written / "results.jsonl").read_bytes() == before


def test_another_run_in_the_directory_is_refused(written: Path, urls: Path) -> None:
    done = run(urls, "--output", written, "--engines", "flat", "--queries", 30)
    assert done.exit_code == 2
    assert "queries 40 there, 30 now" in done.stderr


def test_vectors_over_a_collection_of_a_server(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    vectors = rng.standard_normal((60, 8)).astype(np.float32)
    with serving(Settings(data_dir=tmp_path / "data")) as http:
        features = {"kind": "vector", "dim": 8}
        http.put("/v1/collections/v", json={"metric": "ip", "features": features})
        points = [{"id": i, "vector": row.tolist()} for i, row in enumerate(vectors)]
        http.post("/v1/collections/v/points:upsert", json={"points": points}).raise_for_status()
        flags = ("--url", str(http.base_url), "--output", tmp_path / "out", "--engines", "flat")
        done = run("--collection", "v", *flags)
        kept = http.get("/v1/collections/v/snapshots").json()["snapshots"]
    assert done.exit_code == 0, done.stderr
    assert kept == []
    (row,) = rows_of(tmp_path / "out")
    assert (row["R10@10"], row["near"]) == ("1.0", "")
    run_line = json.loads((tmp_path / "out" / "results.jsonl").read_text().splitlines()[0])
    assert (run_line["run"]["points"], run_line["run"]["queries"]) == (48, 12)


def test_a_recall_that_nothing_reaches_fails_and_names_the_highest(
    urls: Path, tmp_path: Path
) -> None:
    flags = ("--engines", "lsh", "--threshold", ".2", "--target-recall", ".9999")
    done = run(urls, "--output", tmp_path / "out", "--limit", 300, *flags)
    assert done.exit_code == 1
    assert "the highest is" in done.stderr
    assert "flat finds all" in done.stderr
    assert (tmp_path / "out" / "report.html").exists()


def test_without_matplotlib_the_tables_are_written_and_the_extra_is_named(
    urls: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "find_spec", lambda name: None)
    done = run(urls, "--output", tmp_path, "--engines", "flat", "--limit", 50)
    assert done.exit_code == 0, done.stderr
    assert "pip install 'closeby[bench]'" in done.stderr
    assert len(rows_of(tmp_path)) == 1
    assert not (tmp_path / "recall.png").exists()


def test_time_that_is_up_leaves_out_and_says_so(urls: Path, tmp_path: Path) -> None:
    done = run(urls, "--output", tmp_path, "--engines", "flat,binary_hnsw", "--time-limit", 1)
    assert "out of time" in done.stderr
    if done.exit_code == 0:
        assert rows_of(tmp_path)
    else:
        assert "give more --time-limit" in done.stderr


def test_every_engine_is_measured_once_before_any_is_twice() -> None:
    order = jobs(["flinng", "flat", "lsh"], {"lsh": {"K": 3}}, 0.93)
    assert [job.build.label for job in order[:3]] == ["flinng", "flat", "lsh"]
    assert {job.targets for job in order[:3]} == {(0.95,)}
    assert all(0.93 in job.targets for job in order[3:])
    assert Build("lsh", {"K": 3}) in [job.build for job in order]
    assert sum(job.build.engine == "flat" for job in order) == 1


def file_of(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("name", "text", "flags", "code", "said"),
    [
        ("empty.txt", "", (), 2, "holds no point"),
        ("one.txt", "a single row\n", (), 2, "at least 2"),
        ("two.txt", "a row\nb row\n", ("--engines", "turbo"), 2, "there are flinng, lsh"),
        ("two.txt", "a row\nb row\n", ("--engines", "hnsw"), 2, "does not search by jaccard"),
        ("two.txt", "a row\nb row\n", ("--metric", "cosine"), 2, "can be jaccard, not cosine"),
        ("two.txt", "a row\nb row\n", ("--target-recall", "1.5"), 2, "take 0.5 to 0.9999"),
        ("two.txt", "a row\nb row\n", ("--threshold", "7"), 2, "more than 0, at most 1"),
        ("two.txt", "a row\nb row\n", ("--kmers", "9"), 2, "of the field sequence"),
        ("two.txt", "a row\nb row\n", ("--kmers", "9", "--words", "2"), 2, "exclude one another"),
        ("two.txt", "a row\nb row\n", ("--limit", "1"), 2, "--limit must be at least 2"),
        (
            "v.jsonl",
            '{"id": 1, "vector": [1, 2]}\n{"id": 2, "vector": [1, 2]}\n'
            '{"id": 3, "vector": [1, 2, 3]}\n',
            (),
            2,
            "line 3",
        ),
        ("what.bin", "\0\1\2\3", (), 1, "format"),
    ],
)
def test_wrong_input_is_refused_with_what_is_possible(
    tmp_path: Path, name: str, text: str, flags: tuple[str, ...], code: int, said: str
) -> None:
    done = run(file_of(tmp_path, name, text), "--output", tmp_path / "out", *flags)
    assert done.exit_code == code, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_missing_file_and_unwritable_output_are_named(urls: Path, tmp_path: Path) -> None:
    missing = run(tmp_path / "none.txt", "--output", tmp_path / "out")
    assert missing.exit_code == 1
    assert "none.txt" in missing.stderr
    taken = file_of(tmp_path, "taken", "a file")
    blocked = run(urls, "--output", taken)
    assert blocked.exit_code == 1
    assert str(taken) in blocked.stderr
    assert run("--output", tmp_path / "out").exit_code == 2
    assert run(urls, "--collection", "c", "--output", tmp_path / "out").exit_code == 2
