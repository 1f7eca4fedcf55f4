"""`closeby dedup`: what it keeps, lists and refuses, on files of every kind it reads."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from closeby.index import featurizer_from
from closeby.loaders import samples
from closeby.service.cli import app
from pyarrow import parquet
from typer.testing import CliRunner

LONG = "the committee approved the budget for the coming year on tuesday"


def run(*arguments: Any) -> Any:
    return CliRunner().invoke(app, ["dedup", *map(str, arguments)])


def test_kept_lines_are_byte_for_byte_and_in_order(tmp_path: Path) -> None:
    lines = [
        b"\xef\xbb\xbf" + LONG.encode() + b"\r\n",
        b"\r\n",
        b"something else entirely\n",
        b"\xff not UTF-8\n",
        LONG.encode() + b"!\n",
        b"  spaces kept around this one  \n",
        b"no newline at the end",
    ]
    source, output = tmp_path / "in.txt", tmp_path / "out.txt"
    source.write_bytes(b"".join(lines))
    result = run(source, output, "--threshold", 0.8)
    assert result.exit_code == 0, result.output
    assert output.read_bytes() == b"".join(lines[i] for i in (0, 2, 5, 6))
    assert "5 records: 4 kept" in result.stderr
    assert "line 4: is not UTF-8" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["in.txt", "out.txt"]


def test_pairs_are_the_exact_ones_of_real_urls(tmp_path: Path) -> None:
    urls = list(samples.urls())[:600]
    source, output, pairs = tmp_path / "urls.txt", tmp_path / "out.txt", tmp_path / "pairs"
    source.write_text("".join(url + "\n" for url in urls))
    result = run(source, output, "--threshold", 0.8, "--pairs", pairs)
    assert result.exit_code == 0, result.output
    batch = featurizer_from({"kind": "shingles", "unit": "byte", "n": 4}).features(urls)
    sets = [set(batch.row(i).tolist()) for i in range(len(urls))]
    exact = {
        (a + 1, b + 1): len(sets[a] & sets[b]) / len(sets[a] | sets[b])
        for b in range(len(urls))
        for a in range(b)
    }
    exact = {pair: score for pair, score in exact.items() if score >= 0.8}
    rows = [json.loads(line) for line in pairs.read_text().splitlines()]
    found = {(row["a"], row["b"]): row["score"] for row in rows}
    assert found.items() <= exact.items()
    assert len(found) == len(rows) >= 0.99 * len(exact) > 100
    kept = output.read_text().splitlines()
    first = list(range(len(urls) + 1))  # earliest record of each cluster, by repeated relaxation
    while any(first[a] != first[b] for a, b in found):
        for a, b in found:
            first[a] = first[b] = min(first[a], first[b])
    assert kept == [url for i, url in enumerate(urls, 1) if first[i] == i]
    without_pairs = tmp_path / "again.txt"
    assert run(source, without_pairs, "--threshold", 0.8).exit_code == 0
    assert without_pairs.read_bytes() == output.read_bytes()


def test_jsonl_by_a_named_field_with_ids(tmp_path: Path) -> None:
    rows = [
        {"id": "a", "gloss": LONG, "more": [1]},
        {"gloss": "something else entirely"},
        {"id": 7, "gloss": LONG + "!!"},
        {"id": 8, "gloss": 3},
    ]
    source, output, pairs = tmp_path / "in.jsonl", tmp_path / "out.jsonl", tmp_path / "pairs.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    flags = ("--threshold", 0.8, "--field", "gloss", "--pairs", pairs, "--keep", "longest")
    result = run(source, output, *flags)
    assert result.exit_code == 0, result.output
    lines = source.read_text().splitlines(keepends=True)
    assert output.read_text() == lines[1] + lines[2]
    (pair,) = map(json.loads, pairs.read_text().splitlines())
    assert (pair["a"], pair["b"]) == ("a", 7)
    assert 0.8 <= pair["score"] < 1


@pytest.mark.parametrize(
    ("rows", "kept"),
    [
        ([{"set": [1, 2, 3, 4, 5]}, {"set": [1, 2, 3, 4]}, {"set": [9]}], [0, 2]),
        ([{"set": ["a", "b"]}, {"set": ["b", "a"]}, {"set": ["c"]}], [0, 2]),
        ([{"vector": [1, 2, 3]}, {"vector": [2, 4, 6.1]}, {"vector": [-1, 0, 0]}], [0, 2]),
        ([{"vector": [1, 2, 3]}, {"vector": [1, 2]}, {"vector": [-1, 0, 0]}], [0, 2]),
    ],
)
def test_sets_and_vectors(tmp_path: Path, rows: list[Any], kept: list[int]) -> None:
    source, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert run(source, output, "--threshold", 0.8, "--target-recall", 0.9999).exit_code == 0
    lines = source.read_text().splitlines(keepends=True)
    assert output.read_text() == "".join(lines[i] for i in kept)


def test_fasta_records_of_several_lines_compressed_in_and_out(tmp_path: Path) -> None:
    genes = list(samples.genes())[:50]
    text = "".join(f">g{i} x\n{g.sequence[:60]}\n{g.sequence[60:]}\n" for i, g in enumerate(genes))
    text += f">copy\n{genes[3].sequence}\n>last\nACGTACGTACGTACGTTTTTACGACT\n"
    source, output = tmp_path / "in.fasta.gz", tmp_path / "out.fasta.gz"
    source.write_bytes(gzip.compress(text.encode()))
    pairs = tmp_path / "pairs"
    result = run(source, output, "--threshold", 1, "--kmers", 16, "--pairs", pairs)
    assert result.exit_code == 0, result.output
    assert {"a": "g3", "b": "copy", "score": 1.0} in map(json.loads, pairs.read_text().splitlines())
    kept = gzip.decompress(output.read_bytes()).decode()
    assert ">copy" not in kept
    assert kept.startswith(text.split(">g1 ")[0])
    assert kept.endswith(">last\nACGTACGTACGTACGTTTTTACGACT\n")


def test_fastq_records(tmp_path: Path) -> None:
    records = [
        "@a\nACGTACGTACGTACGTACCA\n+\n@@@@IIIIIIIIIIIIIIII\n",
        "@b\nACGTACGTACGTACGTACCA\n+\nIIIIIIIIIIIIIIIIIIII\n",
        "@c\nTTTTTCCCCCTTTTTCCCCC\n+\nIIIIIIIIIIIIIIIIIIII\n",
    ]
    source, output = tmp_path / "in.fastq", tmp_path / "out.fastq"
    source.write_text("".join(records))
    assert run(source, output, "--threshold", 0.9).exit_code == 0
    assert output.read_text() == records[0] + records[2]


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--threshold", 0), "threshold must be above 0"),
        (("--threshold", 0.8, "--words", 2, "--shingles", 3), "exclude one another"),
        (("--threshold", 0.8, "--unit", "line"), "unit must be"),
        (("--threshold", 0.8, "--shingles", 0), "features.n must be"),
        (("--threshold", 0.8, "--keep", "best"), "--keep must be"),
        (("--threshold", 0.8, "--on-error", "ignore"), "--on-error must be"),
        (("--threshold", 0.8, "--kmers", 5), "are made of a sequence"),
        (("--threshold", 0.8, "--target-recall", 2), "target_recall must be"),
    ],
)
def test_wrong_flags_are_one_line_and_code_2(tmp_path: Path, flags: Any, said: str) -> None:
    source, output = tmp_path / "in.txt", tmp_path / "out.txt"
    source.write_text("one\n")
    result = run(source, output, *flags)
    assert result.exit_code == 2, result.output
    assert said in result.stderr
    assert result.stderr.count("\n") == 1
    assert not output.exists()


@pytest.mark.parametrize(
    ("name", "content", "flags", "said"),
    [
        ("in.jsonl", b"no json\n", (), "is no jsonl file"),
        ("in.txt.gz", gzip.compress(LONG.encode() * 99, mtime=0)[:-9], (), "truncated"),
        ("in.txt", b"ok\n\xff\n", ("--on-error", "stop"), "line 2: is not UTF-8"),
        ("in.unknown", b"one\n", (), "its format is unclear"),
    ],
)
def test_files_that_cannot_be_read_are_one_line_and_code_1(
    tmp_path: Path, name: str, content: bytes, flags: Any, said: str
) -> None:
    (tmp_path / name).write_bytes(content)
    result = run(tmp_path / name, tmp_path / "out", "--threshold", 0.8, *flags)
    assert result.exit_code == 1, result.output
    assert said in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_paths_that_do_not_go_together(tmp_path: Path) -> None:
    source = tmp_path / "in.txt"
    assert run(source, tmp_path / "out", "--threshold", 0.8).exit_code == 1
    source.write_text("one\n")
    result = run(source, source, "--threshold", 0.8)
    assert (result.exit_code, source.read_text()) == (2, "one\n")
    assert "OUT is IN" in result.stderr
    out = tmp_path / "out"
    assert run(source, out, "--threshold", 0.8, "--pairs", out).exit_code == 2
    assert run(source, tmp_path / "no" / "out", "--threshold", 0.8).exit_code == 1


def test_an_empty_file_gives_an_empty_file(tmp_path: Path) -> None:
    source, output = tmp_path / "in.txt", tmp_path / "out.txt"
    source.write_bytes(b"")
    assert run(source, output, "--threshold", 0.8).exit_code == 0
    assert output.read_bytes() == b""


def test_other_formats_leave_their_kept_points_as_jsonl(tmp_path: Path) -> None:
    texts = [LONG, "something else entirely", LONG + "!", "a third thing to keep"]
    table = pa.table({"id": list("abcd"), "text": texts, "n": [1, 2, 3, 4]})
    parquet.write_table(table, tmp_path / "in.parquet")
    (tmp_path / "in.csv").write_text(
        "id,text,n\n"
        + "".join(f'{i},"{t}",{n}\n' for i, t, n in zip("abcd", texts, "1234", strict=True))
    )
    vectors = np.array([[1, 0], [0, 1], [1, 0.01], [-1, 0]], np.float32)
    np.save(tmp_path / "in.npy", vectors)
    for name in ("in.parquet", "in.csv", "in.npy"):
        output = tmp_path / f"{name}.jsonl"
        result = run(tmp_path / name, output, "--threshold", 0.8)
        assert result.exit_code == 0, result.output
        rows = [json.loads(line) for line in output.read_text().splitlines()]
        if name == "in.npy":
            assert rows == [{"id": i, "vector": vectors[i].tolist()} for i in (0, 1, 3)]
            continue
        assert [(row["id"], row["text"]) for row in rows] == [
            ("abcd"[i], texts[i]) for i in (0, 1, 3)
        ]
        assert [int(row["payload"]["n"]) for row in rows] == [1, 2, 4]
