"""The demo's tables: on the screen, as Markdown, and as JSON."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from .data import DataSet
from .measure import SIMILARITY, Answer, EngineFigures, HttpFigures, Questions

SHOWN_QUERIES = 3
SHOWN_HITS = 3

_NEAR = f"J≥{SIMILARITY:g}"
# Narrow enough for a terminal of 80 columns; the notes below say what each one is.
ENGINE_COLUMNS = (
    "engine",
    "recall@10",
    _NEAR,
    "µs/query",
    "build s",
    "index B",
    "sets B",
)
HTTP_COLUMNS = ("over HTTP", "recall@10", _NEAR, "median ms", "p99 ms", "points/s")
NOTES = (
    f"recall@10: share of the exact ten nearest; {_NEAR}: of those of them with at "
    "least that similarity (equally near points count alike). index B, sets B: bytes a point of "
    "the index, and of the sets kept to compare exactly, as every engine here does with its best "
    "candidates. µs and build include hashing. ms: one "
    "query a request. points/s: stored durably and searchable."
)


@dataclass(frozen=True, slots=True)
class Findings:
    """All that was measured on one data set."""

    data: DataSet
    queries: int
    engines: list[EngineFigures]
    http: HttpFigures

    @property
    def engine_rows(self) -> list[tuple[str, ...]]:
        """Cells of the table of engines."""
        return [
            (
                one.engine,
                f"{one.recall.at_10:.3f}",
                f"{one.recall.near:.3f}",
                f"{one.query_us:,.0f}",
                f"{one.build_seconds:.2f}",
                f"{one.index_bytes:,.0f}",
                f"{one.set_bytes:,.0f}",
            )
            for one in self.engines
        ]

    @property
    def http_row(self) -> tuple[str, ...]:
        """Cells of the table of the service."""
        return (
            self.data.name,
            f"{self.http.recall.at_10:.3f}",
            f"{self.http.recall.near:.3f}",
            f"{self.http.median_ms:.2f}",
            f"{self.http.p99_ms:.2f}",
            f"{self.http.points_a_second:,.0f}",
        )

    @property
    def record(self) -> dict[str, Any]:
        """For results.json."""
        return {
            "data": self.data.name,
            "points": len(self.data),
            "features": self.data.features,
            "queries": self.queries,
            "engines": [asdict(one) for one in self.engines],
            "http": asdict(self.http),
        }


def show_answers(
    console: Console, data: DataSet, questions: Questions, answers: list[Answer]
) -> None:
    """Some queries with their nearest hits, and the exact answer beside them."""
    title = f"Some of the {len(questions.rows)} queries among the {data.name}"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, expand=True)
    table.add_column("closeby over HTTP", ratio=1, overflow="fold")
    table.add_column("score", justify="right", no_wrap=True)
    table.add_column("exact", justify="right", no_wrap=True)
    table.add_column("exact answer", ratio=1, overflow="fold")
    for number in _worth_showing(questions.exact):
        query = data.labels[questions.rows[number]]
        table.add_row(Text(query, style="bold"), "", "", Text("(the query)", style="dim"))
        answer, exact = answers[number], questions.exact[number]
        for place in range(min(SHOWN_HITS, len(exact.ids))):
            hit, score = _shown(data, answer, place)
            truth, best = _shown(data, exact, place)
            same = hit == truth
            table.add_row(hit, score, best, Text("the same", style="dim") if same else truth)
        table.add_section()
    console.print(table)


def _shown(data: DataSet, answer: Answer, place: int) -> tuple[str, str]:
    if place >= len(answer.ids):
        return "-", ""
    return data.labels[answer.ids[place]], f"{answer.scores[place]:.3f}"


def _worth_showing(exact: list[Answer]) -> list[int]:
    """Queries with near neighbours that are not all equally near; else just the first ones."""
    telling = [
        number
        for number, answer in enumerate(exact)
        if np.count_nonzero(answer.scores >= SIMILARITY) >= SHOWN_HITS
        and len(np.unique(answer.scores[:SHOWN_HITS])) == SHOWN_HITS
    ]
    return (telling or list(range(len(exact))))[:SHOWN_QUERIES]


def show_figures(console: Console, findings: Sequence[Findings]) -> None:
    """The engines on each data set, and the service."""
    for one in findings:
        title = f"{len(one.data):,} {one.data.title}: in one process, on one thread"
        console.print(_table(title, ENGINE_COLUMNS, one.engine_rows))
    rows = [one.http_row for one in findings]
    console.print(_table("The same through `closeby serve` and the SDK", HTTP_COLUMNS, rows))
    console.print(NOTES, style="dim", highlight=False)


def _table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column(columns[0], no_wrap=True)
    for column in columns[1:]:
        table.add_column(column, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    return table


def write_results(directory: Path, findings: Sequence[Findings]) -> list[Path]:
    """Write results.json and results.md; gives their paths."""
    directory.mkdir(parents=True, exist_ok=True)
    machine = {
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "numpy": version("numpy"),
        "faiss-cpu": version("faiss-cpu"),
    }
    record = {"machine": machine, "results": [one.record for one in findings]}
    json_path, markdown_path = directory / "results.json", directory / "results.md"
    json_path.write_bytes(orjson.dumps(record, option=orjson.OPT_INDENT_2))
    markdown_path.write_text("\n".join(_markdown(findings, machine)) + "\n", encoding="utf-8")
    return [json_path, markdown_path]


def _markdown(findings: Sequence[Findings], machine: dict[str, Any]) -> list[str]:
    lines = ["# closeby demo", "", ", ".join(f"{key} {value}" for key, value in machine.items())]
    for one in findings:
        lines += ["", f"## {len(one.data):,} {one.data.title}", ""]
        lines += [f"{one.data.comparison}; {one.queries} queries; one thread.", ""]
        lines += _markdown_table(ENGINE_COLUMNS, one.engine_rows)
    lines += ["", "## Over HTTP", ""]
    lines += _markdown_table(HTTP_COLUMNS, [one.http_row for one in findings])
    return [*lines, "", NOTES]


def _markdown_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [columns, ["---", *["---:"] * (len(columns) - 1)], *rows]
    return ["| " + " | ".join(line) + " |" for line in lines]
