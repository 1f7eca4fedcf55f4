"""Jobs: leases, checkpoints, cancelling, events, results; with kinds made for the tests."""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from closeby.service.deployment import Deployment
from closeby.service.errors import (
    JobNotFoundError,
    LeaseLostError,
    StoreUnavailableError,
    TooManyRequestsError,
    ValidationError,
)
from closeby.service.job_store import Job, JobStore
from closeby.service.jobs import MAX_ATTEMPTS, JobContext, JobRunner, Kind, owner_name
from closeby.service.settings import Settings
from closeby.service.store import Store

TEXTS = {"features": {"kind": "shingles", "unit": "byte", "n": 4}, "index": "flat"}


def submit(jobs: JobStore, kind: str = "count", **options: Any) -> Job:
    return jobs.submit(kind, {"n": 1}, **({"max_queued": 10} | options))


@pytest.fixture
def jobs(store: Store) -> JobStore:
    return JobStore(store)


# --- the table ------------------------------------------------------------------------------------


def test_a_job_goes_through_its_states(jobs: JobStore) -> None:
    job = submit(jobs, collection=3, collection_name="c")
    assert jobs.get(job.id) == job
    assert (job.state, job.finished, job.attempts) == ("queued", False, 0)
    claimed = jobs.claim("a", ["count"], 30)
    assert claimed is not None
    assert (claimed.id, claimed.state, claimed.lease_owner) == (job.id, "running", "a")
    assert claimed.started_at is not None
    assert jobs.claim("b", ["count"], 30) is None
    jobs.checkpoint(job.id, "a", {"row": 7})
    progress = claimed.progress | {"done": 7}
    jobs.renew(job.id, "a", 30, progress)
    assert jobs.get(job.id).progress["done"] == 7
    jobs.finish(job.id, "a", "done", progress=progress, result={"rows": 7}, errors=[{"line": 1}])
    ended = jobs.get(job.id)
    assert ended.finished
    assert (ended.state, ended.result, ended.error) == ("done", {"rows": 7}, None)
    assert (ended.checkpoint, ended.errors) == ({"row": 7}, [{"line": 1}])
    assert ended.finished_at is not None
    assert jobs.claim("b", ["count"], 30) is None


def test_only_known_kinds_are_claimed_oldest_first(jobs: JobStore) -> None:
    first = submit(jobs, "other")
    second = submit(jobs)
    third = submit(jobs)
    order = [jobs.claim("a", ["count"], 30) for _ in range(3)]
    assert [job and job.id for job in order] == [*sorted([second.id, third.id]), None]
    assert jobs.get(first.id).state == "queued"


def test_a_lease_that_ran_out_is_claimed_by_another_who_then_owns_it(jobs: JobStore) -> None:
    job = submit(jobs)
    assert jobs.claim("a", ["count"], 0.05) is not None
    jobs.checkpoint(job.id, "a", {"row": 5})
    time.sleep(0.1)
    taken = jobs.claim("b", ["count"], 30)
    assert taken is not None
    assert (taken.lease_owner, taken.checkpoint, taken.attempts) == ("b", {"row": 5}, 2)
    for late in (
        lambda: jobs.renew(job.id, "a", 30, {}),
        lambda: jobs.checkpoint(job.id, "a", {"row": 9}),
        lambda: jobs.finish(job.id, "a", "done", progress={}),
    ):
        with pytest.raises(LeaseLostError):
            late()
    jobs.release(job.id, "a")
    now = jobs.get(job.id)
    assert (now.state, now.lease_owner, now.checkpoint) == ("running", "b", {"row": 5})


def test_a_job_that_was_given_back_waits_for_its_time(jobs: JobStore) -> None:
    job = submit(jobs)
    jobs.claim("a", ["count"], 30)
    jobs.release(job.id, "a", delay=0.2)
    assert jobs.get(job.id).attempts == 0
    assert jobs.claim("b", ["count"], 30) is None
    time.sleep(0.25)
    assert jobs.claim("b", ["count"], 30) is not None


def test_many_claim_at_once_and_each_job_has_one_owner(tmp_path: Path) -> None:
    stores = [Store.open_directory(tmp_path) for _ in range(3)]
    tables = [JobStore(store) for store in stores]
    wanted = {submit(tables[0], max_queued=100).id for _ in range(24)}
    claimed: list[str] = []

    def claim(table: JobStore, name: str) -> None:
        misses = 0
        while misses < 20:
            job = table.claim(name, ["count"], 30)
            if job is None:
                misses += 1
                time.sleep(0.005)
            else:
                assert job.lease_owner == name
                claimed.append(job.id)

    threads = [
        threading.Thread(target=claim, args=(table, f"{i}-{j}"))
        for i, table in enumerate(tables)
        for j in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for store in stores:
        store.close()
    assert sorted(claimed) == sorted(wanted)


def test_cancelling_what_waits_runs_and_ended(jobs: JobStore) -> None:
    waiting, running = submit(jobs, "other"), submit(jobs, collection=4)
    assert jobs.cancel(waiting.id).state == "cancelled"
    jobs.claim("a", ["count"], 30)
    assert jobs.cancelled([waiting.id, running.id]) == {waiting.id}
    jobs.cancel_collection(4)
    assert jobs.cancelled([waiting.id, running.id]) == {waiting.id, running.id}
    assert jobs.get(running.id).state == "running"
    jobs.finish(running.id, "a", "done", progress={})
    assert jobs.cancel(running.id).state == "done"
    with pytest.raises(JobNotFoundError):
        jobs.cancel("none")


def test_the_queue_and_the_memory_are_bounded(jobs: JobStore) -> None:
    kept = [submit(jobs, max_queued=3) for _ in range(3)]
    with pytest.raises(TooManyRequestsError, match="3 jobs"):
        submit(jobs, max_queued=3)
    for job in kept:
        jobs.cancel(job.id)
    submit(jobs, max_queued=3)
    gone = jobs.trim(1)
    assert len(gone) == 2
    assert jobs.counts() == {"queued": 1, "running": 0, "done": 0, "failed": 0, "cancelled": 1}
    assert jobs.ids().isdisjoint(gone)
    page, more = jobs.page(1)
    assert more
    assert [job.id for job in page] == [max(jobs.ids())]
    rest, more = jobs.page(5, before=page[0].id)
    assert (len(rest), more) == (1, False)


def test_a_data_directory_without_jobs_gets_the_table(tmp_path: Path) -> None:
    store = Store.open_directory(tmp_path)
    store.create_collection("old", {})
    store.close()
    with sqlite3.connect(tmp_path / "store.sqlite3") as raw:
        raw.execute("DROP TABLE IF EXISTS jobs")
    raw.close()
    store = Store.open_directory(tmp_path)
    assert submit(JobStore(store)).state == "queued"
    assert [record.name for record in store.list_collections()] == ["old"]
    store.close()


# --- running --------------------------------------------------------------------------------------


class Steps:
    """A kind that counts to `to`, a checkpoint each step, stopping where the test says."""

    def __init__(self) -> None:
        self.begun: list[int] = []
        self.hold = threading.Event()
        self.holding = threading.Event()
        self.fail: dict[int, Exception] = {}

    def run(self, context: JobContext) -> dict[str, Any]:
        start = (context.resume_from or {"step": 0})["step"]
        self.begun.append(start)
        to = context.params["to"]
        for step in range(start, to):
            if step in self.fail:
                raise self.fail.pop(step)
            if step == context.params.get("hold"):
                self.holding.set()
                while not self.hold.is_set():
                    context.progress(step, to, seen=step)
                    time.sleep(0.01)
            context.checkpoint({"step": step + 1})
            context.progress(step + 1, to, seen=step + 1)
        if context.params.get("file"):
            context.result_path().write_text('{"a":1}\n{"a":2}\n')
        context.error("a sample", line=3)
        return {"steps": to}


@pytest.fixture
def steps() -> Steps:
    return Steps()


def runner(store: Store, settings: Settings, *kinds: Kind, role: str = "test") -> JobRunner:
    made = JobRunner(
        store,
        settings,
        lambda: {kind.name: kind for kind in kinds},
        settings.data_dir / "jobs",
        owner=owner_name(role),
        threads=1,
    )
    made.start()
    return made


def until(jobs: JobStore, job: Job, *states: str) -> Job:
    deadline = time.monotonic() + 20
    while (found := jobs.get(job.id)).state not in states:
        assert time.monotonic() < deadline, found
        time.sleep(0.01)
    return found


def test_a_worker_runs_what_may_run_anywhere(store: Store, tmp_path: Path, steps: Steps) -> None:
    settings = Settings(data_dir=tmp_path)
    anywhere, bound = Kind("steps", "anywhere", steps.run), Kind("bound", "server", steps.run)
    worker = runner(store, settings, anywhere, bound)
    job = worker.jobs.submit("steps", {"to": 5}, max_queued=9)
    left = worker.jobs.submit("bound", {"to": 5}, max_queued=9)
    done = until(worker.jobs, job, "done", "failed")
    worker.stop()
    assert (done.state, done.result) == ("done", {"steps": 5})
    assert (done.progress["done"], done.progress["counters"]) == (5, {"seen": 5})
    assert done.errors == [{"line": 3, "detail": "a sample"}]
    assert worker.jobs.get(left.id).state == "queued"


def test_a_stopped_runner_gives_its_job_back(store: Store, tmp_path: Path, steps: Steps) -> None:
    settings = Settings(data_dir=tmp_path)
    kind = Kind("steps", "anywhere", steps.run)
    first = runner(store, settings, kind)
    job = first.jobs.submit("steps", {"to": 6, "hold": 4}, max_queued=9)
    assert steps.holding.wait(20)
    first.stop()
    given_back = first.jobs.get(job.id)
    assert (given_back.state, given_back.checkpoint) == ("queued", {"step": 4})
    steps.hold.set()
    second = runner(store, settings, kind)
    assert until(second.jobs, job, "done", "failed").state == "done"
    second.stop()
    assert steps.begun == [0, 4]


def test_an_owner_that_slept_too_long_hears_of_it(
    store: Store, tmp_path: Path, steps: Steps
) -> None:
    settings = Settings(data_dir=tmp_path)
    worker = runner(store, settings, Kind("steps", "anywhere", steps.run))
    job = worker.jobs.submit("steps", {"to": 6, "hold": 2}, max_queued=9)
    assert steps.holding.wait(20)
    worker.jobs.release_owner("test:")
    # As after a lease that ran out: another has it now.
    assert worker.jobs.claim("another", ["steps"], 60) is not None
    deadline = time.monotonic() + 20
    while worker._running and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not worker._running
    worker.stop()
    now = worker.jobs.get(job.id)
    assert (now.state, now.lease_owner) == ("running", "another")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ValidationError.of("field", "is wrong"), "validation_error"),
        (OSError(28, "No space left on device"), "io_error"),
        (KeyError("a defect"), "internal_error"),
    ],
)
def test_failures_are_told(
    store: Store, tmp_path: Path, steps: Steps, error: Exception, code: str
) -> None:
    steps.fail[2] = error
    worker = runner(store, Settings(data_dir=tmp_path), Kind("steps", "anywhere", steps.run))
    job = worker.jobs.submit("steps", {"to": 5}, max_queued=9)
    ended = until(worker.jobs, job, "done", "failed")
    worker.stop()
    assert ended.state == "failed"
    assert ended.error is not None
    assert ended.error["code"] == code
    assert ended.error["detail"]


def test_what_is_not_to_be_had_now_only_delays(store: Store, tmp_path: Path, steps: Steps) -> None:
    steps.fail[3] = StoreUnavailableError("full", retry_after=0.1)
    worker = runner(store, Settings(data_dir=tmp_path), Kind("steps", "anywhere", steps.run))
    job = worker.jobs.submit("steps", {"to": 5}, max_queued=9)
    ended = until(worker.jobs, job, "done", "failed")
    worker.stop()
    assert ended.state == "done"
    assert steps.begun == [0, 3]


def test_a_job_that_kills_whoever_takes_it_ends(store: Store, tmp_path: Path, steps: Steps) -> None:
    jobs = JobStore(store)
    job = jobs.submit("steps", {"to": 5}, max_queued=9)
    for attempt in range(MAX_ATTEMPTS):
        claimed = jobs.claim(f"dies-{attempt}", ["steps"], 60)
        assert claimed is not None
        jobs.release_owner("dies-")
        time.sleep(0.01)
    worker = runner(store, Settings(data_dir=tmp_path), Kind("steps", "anywhere", steps.run))
    ended = until(jobs, job, "done", "failed")
    worker.stop()
    assert ended.error is not None
    assert ended.error["code"] == "job_lost"
    assert steps.begun == []


# --- over HTTP ------------------------------------------------------------------------------------


@pytest.fixture
def served(
    tmp_path: Path, steps: Steps, serve: Callable[..., Any]
) -> Iterator[tuple[httpx.Client, Deployment]]:
    settings = Settings(data_dir=tmp_path, max_queued_jobs=2, max_finished_jobs=3, job_threads=1)
    kinds = {"steps": Kind("steps", "server", steps.run)}
    deployment = Deployment(settings, lambda: kinds)
    with serve(settings, deployment) as client:
        yield client, deployment
        steps.hold.set()


def start(deployment: Deployment, collection: str | None = None, **params: Any) -> Job:
    record = None if collection is None else deployment.registry.get(collection).record
    job = deployment.jobs.jobs.submit(
        "steps",
        {"to": 5} | params,
        collection=None if record is None else record.id,
        collection_name=collection,
        max_queued=deployment.settings.max_queued_jobs,
    )
    deployment.jobs.announce()
    return job


def events(client: httpx.Client, job: str) -> Iterator[tuple[str, dict[str, Any]]]:
    with client.stream("GET", f"/v1/jobs/{job}/events") as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        name = ""
        for line in stream.iter_lines():
            if line.startswith("event: "):
                name = line[7:]
            elif line.startswith("data: "):
                yield name, json.loads(line[6:])


def test_a_job_is_seen_watched_and_its_file_fetched(
    served: tuple[httpx.Client, Deployment], steps: Steps
) -> None:
    client, deployment = served
    client.put("/v1/collections/c", json=TEXTS)
    job = start(deployment, "c", hold=3, file=True)
    seen = events(client, job.id)
    name, first = next(seen)
    assert name == "progress"
    assert (first["id"], first["kind"], first["collection"]) == (job.id, "steps", "c")
    assert steps.holding.wait(20)
    early = client.get(f"/v1/jobs/{job.id}/result")
    assert (early.status_code, early.json()["code"]) == (409, "job_not_finished")
    steps.hold.set()
    *_, (name, last) = seen
    assert name == last["state"] == "done"
    assert last["result"] == {"steps": 5}
    assert last["progress"]["total"] == 5
    assert client.get(f"/v1/jobs/{job.id}").json() == last
    file = client.get(f"/v1/jobs/{job.id}/result")
    assert file.headers["content-type"] == "application/x-ndjson"
    assert [json.loads(line)["a"] for line in file.text.splitlines()] == [1, 2]
    none = client.get(f"/v1/jobs/{job.id}/result", params={"format": "parquet"})
    assert (none.status_code, none.json()["code"]) == (404, "job_result_not_found")
    scraped = client.get("/metrics").text
    assert 'closeby_jobs_finished_total{kind="steps",state="done"} 1.0' in scraped
    assert 'closeby_jobs{state="done"} 1.0' in scraped


def test_jobs_are_listed_in_pages_and_forgotten_in_time(
    served: tuple[httpx.Client, Deployment],
) -> None:
    client, deployment = served
    client.put("/v1/collections/c", json=TEXTS)
    made = []
    for i in range(5):
        job = start(deployment, "c" if i % 2 else None, to=1, file=True)
        assert next(reversed([*events(client, job.id)]))[0] == "done"
        made.append(job.id)
    deadline = time.monotonic() + 10
    while len(client.get("/v1/jobs").json()["jobs"]) > 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    page = client.get("/v1/jobs", params={"limit": 2}).json()
    assert [job["id"] for job in page["jobs"]] == [made[4], made[3]]
    rest = client.get("/v1/jobs", params={"limit": 2, "cursor": page["next_cursor"]}).json()
    assert ([job["id"] for job in rest["jobs"]], rest["next_cursor"]) == ([made[2]], None)
    only = client.get("/v1/jobs", params={"collection": "c"}).json()["jobs"]
    assert [job["id"] for job in only] == [made[3]]
    assert client.get("/v1/jobs", params={"state": "failed"}).json()["jobs"] == []
    assert client.get(f"/v1/jobs/{made[0]}").status_code == 404
    assert not (deployment.jobs.folder / made[0]).exists()
    assert (deployment.jobs.folder / made[4]).exists()


def test_cancelling_over_http(served: tuple[httpx.Client, Deployment], steps: Steps) -> None:
    client, deployment = served
    running, waiting = start(deployment, hold=2), start(deployment)
    assert steps.holding.wait(20)
    assert client.post(f"/v1/jobs/{waiting.id}:cancel").json()["state"] == "cancelled"
    assert client.post(f"/v1/jobs/{running.id}:cancel").json()["cancel_requested"] is True
    *_, (name, last) = events(client, running.id)
    assert name == last["state"] == "cancelled"
    assert last["error"] is None
    assert not steps.hold.is_set()


def test_deleting_a_collection_cancels_its_jobs(
    served: tuple[httpx.Client, Deployment], steps: Steps
) -> None:
    client, deployment = served
    client.put("/v1/collections/c", json=TEXTS)
    running, waiting = start(deployment, "c", hold=2), start(deployment, "c")
    assert steps.holding.wait(20)
    assert client.delete("/v1/collections/c").status_code == 204
    for job in (running, waiting):
        *_, (name, _) = events(client, job.id)
        assert name == "cancelled"


def test_a_full_queue_is_refused(served: tuple[httpx.Client, Deployment], steps: Steps) -> None:
    _, deployment = served
    start(deployment, hold=0)
    assert steps.holding.wait(20)
    start(deployment)
    start(deployment)
    with pytest.raises(TooManyRequestsError):
        start(deployment)


def test_a_restart_goes_on_where_the_job_was(
    tmp_path: Path, steps: Steps, serve: Callable[..., Any]
) -> None:
    settings = Settings(data_dir=tmp_path)
    kinds = {"steps": Kind("steps", "server", steps.run)}
    deployment = Deployment(settings, lambda: kinds)
    with serve(settings, deployment):
        job = start(deployment, to=9, hold=6)
        assert steps.holding.wait(20)
    steps.hold.set()
    with serve(settings, Deployment(settings, lambda: kinds)) as client:
        *_, (name, last) = events(client, job.id)
    assert (name, last["result"]) == ("done", {"steps": 9})
    assert steps.begun == [0, 6]


def test_hostile_requests(served: tuple[httpx.Client, Deployment]) -> None:
    client, _ = served
    for path in ("none", "..%2f..", "0" * 5000, "%00"):
        for end in ("", "/events", "/result"):
            answer = client.get(f"/v1/jobs/{path}{end}")
            assert answer.status_code == 404, (path, end)
    assert client.post("/v1/jobs/none:cancel").json()["code"] == "job_not_found"
    for params in ({"limit": 0}, {"state": "lost"}, {"cursor": "x"}, {"cursor": "g" * 24}):
        assert client.get("/v1/jobs", params=params).status_code == 422, params
    assert client.get("/v1/jobs/none/result?format=exe").status_code == 422
