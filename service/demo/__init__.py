"""`closeby demo`: near-duplicate URLs and related genes over HTTP, measured against exact search.

data      what is stored
server    a `closeby serve` of the demo's own
measure   recall and times
report    tables, results.json, results.md
"""

from __future__ import annotations

import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import NoReturn

import numpy as np
from closeby.client import Client, ClosebyClientError, Collection
from closeby.index import as_set_batch, featurizer_from
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)

from .data import DataSet, shipped_data
from .measure import (
    SIMILARITY,
    HttpFigures,
    ask_exactly,
    ask_over_http,
    measure_flinng,
    measure_hnsw,
)
from .report import Findings, show_answers, show_figures, write_results
from .server import DemoServerError, running_server

__all__ = ["run_demo"]

PROMISED_RECALL = 0.95
SEED = 2024
EXIT_INTERRUPTED = 130


def run_demo(output: Path | None = None, queries: int = 500) -> int:
    """Run the whole demo; 0 if it found at least 95 % of the near neighbours, as promised.

    output: a directory that gets results.json and results.md too.
    queries: points of each data set to ask for.

    Nothing is left running and no file but those is left behind, whatever happens.
    """
    console = Console()
    try:
        with _stopped_like_by_ctrl_c(), console.status("reading the data that comes with closeby"):
            data_sets = shipped_data()
        with _stopped_like_by_ctrl_c() as check_stop:
            return demonstrate(data_sets, console, output, queries, check_stop)
    except KeyboardInterrupt:
        console.print("stopped; nothing is left running")
        return EXIT_INTERRUPTED
    except (DemoServerError, ClosebyClientError, OSError) as error:
        console.print(f"[bold red]the demo failed:[/] {error}")
        return 1


def demonstrate(
    data_sets: list[DataSet],
    console: Console,
    output: Path | None,
    queries: int,
    check_stop: Callable[[], None] = lambda: None,
) -> int:
    """The demo on these data sets; 1 if recall of near neighbours is below the promise.

    `check_stop` is called between steps, and raises where the demo is to end.
    """
    started = time.monotonic()
    findings = []
    with (
        tempfile.TemporaryDirectory(prefix="closeby-demo-") as directory,
        running_server(Path(directory)) as url,
        Client(url) as client,
    ):
        console.print(f"[bold]closeby serve[/] listens on {url} for as long as the demo takes")
        for data in data_sets:
            findings.append(_find_neighbours(client, data, console, queries, check_stop))
    show_figures(console, findings)
    if output is not None:
        written = ", ".join(str(path) for path in write_results(output, findings))
        console.print(f"written: {written}")
    missed = [one for one in findings if _worst_recall(one) < PROMISED_RECALL]
    for one in missed:
        console.print(
            f"[bold red]{one.data.name}: {_worst_recall(one):.3f} of the neighbours with "
            f"J ≥ {SIMILARITY:g} found; {PROMISED_RECALL} was promised[/]"
        )
    console.print(f"{time.monotonic() - started:.0f} s in all; the server is stopped.")
    _say_what_next(console)
    return 1 if missed else 0


def _find_neighbours(
    client: Client,
    data: DataSet,
    console: Console,
    queries: int,
    check_stop: Callable[[], None],
) -> Findings:
    """Store, ask, compare and time one data set."""
    console.rule(f"[bold]{len(data):,} {data.title}")
    console.print(f"near means: {data.comparison}")
    rng = np.random.default_rng(SEED)
    rows = rng.choice(len(data), min(queries, len(data)), replace=False)
    with _progress(console) as progress:
        points_a_second, collection = _ingest(client, data, progress)
        check_stop()

        step = progress.add_task("features here", total=None)
        sets = as_set_batch(featurizer_from(data.features).features(data.inputs))
        _finish(progress, step)

        step = progress.add_task("exact answers by comparing all", total=len(rows))
        questions, exact = ask_exactly(sets, rows, lambda n: progress.advance(step, n))
        check_stop()

        step = progress.add_task("queries over HTTP", total=len(rows))
        answers, took_ms = ask_over_http(
            collection, data, questions, lambda n: progress.advance(step, n)
        )
        check_stop()

        step = progress.add_task("FLINNG here", total=None)
        flinng = measure_flinng(questions)
        _finish(progress, step)
        check_stop()

        step = progress.add_task("FAISS binary HNSW here", total=None)
        hnsw = measure_hnsw(questions)
        _finish(progress, step)
        check_stop()
    show_answers(console, data, questions, answers)
    http = HttpFigures(
        recall=questions.recall(answers),
        points_a_second=points_a_second,
        median_ms=float(np.median(took_ms)),
        p99_ms=float(np.quantile(took_ms, 0.99)),
    )
    return Findings(data, len(rows), [flinng, hnsw, exact], http)


def _ingest(client: Client, data: DataSet, progress: Progress) -> tuple[float, Collection]:
    collection = client.create_collection(data.name, metric="jaccard", features=data.features)
    step = progress.add_task("points over HTTP, onto disk", total=len(data))
    started = time.perf_counter()
    collection.upsert(
        points=data.points(), progress=lambda done, _: progress.update(step, completed=done)
    )
    return len(data) / (time.perf_counter() - started), collection


def _worst_recall(findings: Findings) -> float:
    """Of closeby's engine in this process and of the service."""
    return min(findings.engines[0].recall.near, findings.http.recall.near)


def _progress(console: Console) -> Progress:
    return Progress(
        SpinnerColumn(finished_text="✓"),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
    )


def _finish(progress: Progress, step: TaskID) -> None:
    progress.update(step, total=1, completed=1)


@contextmanager
def _stopped_like_by_ctrl_c() -> Iterator[Callable[[], None]]:
    """SIGTERM and SIGHUP unwind the stack as SIGINT does, so that the server is stopped after them.

    Yields what raises KeyboardInterrupt once there was such a signal: Python drops an exception
    that is raised while it runs a finalizer or a weak reference's callback.
    """
    stopped = False

    def interrupt(_signal: int, _frame: FrameType | None) -> NoReturn:
        nonlocal stopped
        stopped = True
        raise KeyboardInterrupt

    def check() -> None:
        if stopped:
            raise KeyboardInterrupt

    stops = [
        stop
        for stop in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        if signal.getsignal(stop) is not signal.SIG_IGN  # as nohup has it
    ]
    before = [signal.signal(stop, interrupt) for stop in stops]
    try:
        yield check
    finally:
        for stop, handler in zip(stops, before, strict=True):
            signal.signal(stop, handler)


def _say_what_next(console: Console) -> None:
    console.print(
        "\n[bold]What to try next[/]\n"
        "  closeby serve --data-dir ./closeby-data     a server that stays, on port 8080\n"
        "  http://127.0.0.1:8080/docs                  its API, to try in a browser\n"
        "  examples/                                   your own URLs, genes and vectors\n"
        "  closeby --help",
        highlight=False,
    )
