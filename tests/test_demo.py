"""The demo: its arithmetic on cases counted by hand, its server, and the whole on little data."""

import os
import re
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import replace
from io import StringIO

import httpx
import numpy as np
import orjson
import pytest
from closeby.index import as_set_batch
from closeby.service import demo
from closeby.service.demo import demonstrate, measure, run_demo, server
from closeby.service.demo.data import shipped_data
from closeby.service.demo.measure import Answer, Questions, counted
from closeby.service.demo.server import DemoServerError, running_server
from rich.console import Console

HITS = np.array([0.9, 0.8, 0.8, 0.6, 0.3])


@pytest.mark.parametrize(
    ("scores", "exact", "threshold", "expected"),
    [
        (HITS, HITS, 0.0, (5, 5)),
        (HITS, HITS, 0.5, (4, 4)),
        (HITS[[0, 3]], HITS, 0.5, (4, 2)),
        ([0.9, 0.3, 0.2, 0.1], HITS, 0.5, (4, 1)),
        ([], HITS, 0.5, (4, 0)),
        (HITS, [0.3, 0.2], 0.5, (0, 0)),
        # Twelve points are equally near: any ten of them are the ten nearest.
        ([0.7] * 10, [0.7] * 12, 0.5, (10, 10)),
        # An answer cannot hold more than was wanted.
        ([0.7] * 10, [0.7, 0.7, 0.2], 0.5, (2, 2)),
        # Near enough, but not among the ten nearest.
        ([0.6] * 10, [0.7] * 10, 0.5, (10, 0)),
    ],
)
def test_neighbours_are_counted_with_ties(scores, exact, threshold, expected):
    assert counted(np.array(scores), np.array(exact), threshold) == expected


@pytest.fixture
def questions():
    """Five sets; the query is set 0, whose similarities are 1, 2/3, 1/2 and 0."""
    sets = as_set_batch([[1, 2], [1, 2], [1, 2, 3], [1], [9]])
    exact = [Answer(np.array([1, 2, 3]), np.array([1, 2 / 3, 1 / 2]))]
    return Questions(np.array([0]), sets, exact)


def test_answers_lose_the_query_itself_and_are_scored_anew(questions):
    (answer,) = questions.answers(np.array([[3, 0, 4, 1, -1, -1]]))
    assert answer.ids.tolist() == [1, 3, 4]
    assert answer.scores.tolist() == [1, 0.5, 0]


def test_recall(questions):
    recall = questions.recall(questions.answers(np.array([[0, 1, 2, -1]])))
    assert (recall.at_10, recall.near, recall.near_wanted) == (2 / 3, 2 / 3, 3)
    assert questions.recall(questions.exact).near == 1


def test_exact_answers_are_those_of_a_plain_loop():
    rng = np.random.default_rng(5)
    sets = as_set_batch([rng.integers(0, 60, 20) for _ in range(200)])
    rows = np.arange(0, 200, 20)
    asked, figures = measure.ask_exactly(sets, rows, lambda _: None)
    for row, answer in zip(rows, asked.exact, strict=True):
        every = [measure.jaccard(sets.row(row), sets.row(i)) for i in range(200) if i != row]
        np.testing.assert_allclose(answer.scores, sorted(every, reverse=True)[:10])
    assert figures.recall.at_10 == figures.recall.near == 1


def answers(url):
    try:
        httpx.get(f"{url}/readyz", trust_env=False)
    except httpx.TransportError:
        return False
    return True


def is_down(url):
    return not answers(url)


@pytest.mark.parametrize("failure", [KeyboardInterrupt, RuntimeError])
def test_server_is_stopped_when_the_block_fails(tmp_path, failure):
    urls = []

    def fail_while_it_runs():
        with running_server(tmp_path) as url:
            urls.append(url)
            assert httpx.get(f"{url}/healthz", trust_env=False).status_code == 200
            raise failure

    with pytest.raises(failure):
        fail_while_it_runs()
    assert is_down(urls[0])


def test_server_ignores_the_settings_of_the_user(tmp_path, monkeypatch):
    monkeypatch.setenv("CLOSEBY_API_KEY", "secret")
    with running_server(tmp_path) as url:
        assert httpx.get(f"{url}/v1/collections", trust_env=False).status_code == 200


def test_server_that_does_not_start_shows_its_log(tmp_path, monkeypatch):
    (tmp_path / "data").write_text("a file where the directory should be")
    with pytest.raises(DemoServerError, match="did not start"), running_server(tmp_path):
        pytest.fail("the server cannot have started")
    (tmp_path / "data").unlink()
    monkeypatch.setattr(server, "START_SECONDS", 0)
    with pytest.raises(DemoServerError), running_server(tmp_path):
        pytest.fail("there was no time to start")


@pytest.fixture(scope="module")
def little_data():
    """The first 1,500 URLs and 300 genes."""
    return [
        replace(data, inputs=data.inputs[:size], labels=data.labels[:size])
        for data, size in zip(shipped_data(), (1_500, 300), strict=True)
    ]


@pytest.fixture
def temporary_files(tmp_path, monkeypatch):
    """The directory that temporary files go to."""
    directory = tmp_path / "temporary"
    directory.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(directory))
    return directory


def test_whole_demo_on_little_data(little_data, temporary_files, tmp_path):
    screen = StringIO()
    console = Console(file=screen, width=80)
    assert demonstrate(little_data, console, tmp_path / "out" / "deep", queries=60) == 0
    shown = screen.getvalue()
    assert is_down(re.search(r"http://127\.0\.0\.1:\d+", shown)[0])
    assert list(temporary_files.iterdir()) == []
    for words in ("µs/query", "points/s", "FAISS binary HNSW", "exact scan", "What to try next"):
        assert words in shown
    assert "…" not in shown
    assert max(map(len, shown.splitlines())) <= 80

    record = orjson.loads((tmp_path / "out" / "deep" / "results.json").read_bytes())
    for result in record["results"]:
        flinng, reranked, exact = result["engines"]
        assert exact["recall"] == {**flinng["recall"], "at_10": 1, "near": 1}
        assert flinng["recall"]["near_wanted"] > 50
        assert min(flinng["recall"]["near"], result["http"]["recall"]["near"]) >= 0.95
        assert reranked["recall"]["near"] >= 0.95
        assert result["queries"] == 60
    markdown = (tmp_path / "out" / "deep" / "results.md").read_text()
    assert markdown.count("| closeby FLINNG |") == 2


def test_recall_below_the_promise_is_a_failure(little_data, temporary_files, monkeypatch):
    asked = measure.ask_over_http

    def without_nearest(*arguments):
        answers, took_ms = asked(*arguments)
        return [Answer(one.ids[1:], one.scores[1:]) for one in answers], took_ms

    monkeypatch.setattr(demo, "ask_over_http", without_nearest)
    screen = StringIO()
    assert demonstrate(little_data[1:], Console(file=screen), None, queries=20) == 1
    assert "0.95 was promised" in screen.getvalue()


@contextmanager
def demo_process(temporary):
    """A demo that has started its server: the process and the URL."""
    # A shell starts what it puts in the background with SIGINT ignored, and that is inherited; a
    # signal with a handler is not.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen(
        [sys.executable, "-m", "closeby.service", "demo"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"TMPDIR": str(temporary)},
    )
    with process:
        for line in process.stdout:
            if found := re.search(r"http://127\.0\.0\.1:\d+", line):
                yield process, found[0]
                break
        else:
            pytest.fail("the demo did not say where its server listens")
        process.kill()


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_stopped_half_way_it_leaves_nothing(tmp_path, stop):
    with demo_process(tmp_path) as (process, url):
        process.send_signal(stop)
        rest, _ = process.communicate(timeout=60)
        # CPython ends by SIGINT itself, which shells call 130 too, if the interrupt came while it
        # ran code from a string (a dataclass being made), caught or not.
        assert process.returncode in (demo.EXIT_INTERRUPTED, -signal.SIGINT), rest
    assert "nothing is left running" in rest
    assert is_down(url)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process of this")
def test_server_ends_even_if_the_demo_is_killed(tmp_path):
    with demo_process(tmp_path) as (process, url):
        process.kill()
        process.wait()
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and answers(url):
            time.sleep(0.1)
        assert is_down(url)


@pytest.mark.slow
def test_whole_demo_keeps_its_promise():
    assert run_demo() == 0
