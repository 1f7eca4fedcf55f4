"""select and frank_wolfe over HTTP: what the library answers directly, and every wrong input."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from closeby.index import MinHashFamily
from closeby.optimize import frank_wolfe, herding, random_discrepancy
from closeby.service import optimize_jobs
from closeby.service.settings import Settings

RNG = np.random.default_rng(7)
VECTORS = (RNG.standard_normal((400, 12)) * RNG.lognormal(0, 0.5, (400, 1))).astype(np.float32)
SETS = [sorted(RNG.choice(500, 40, replace=False).tolist()) for _ in range(200)]
JSON = {"content-type": "application/json"}
NAMES = [f"p{i}" if i % 2 else i for i in range(400)]


def fill(http: httpx.Client, name: str, config: dict[str, Any], **columns: Any) -> None:
    assert http.put(f"/v1/collections/{name}", json=config).status_code == 201
    body = {key: value for key, value in columns.items() if value is not None}
    answer = http.post(f"/v1/collections/{name}/points:upsert", json=body)
    assert answer.status_code == 200, answer.text


def vectors_of(metric: str, dim: int = 12) -> dict[str, Any]:
    return {"features": {"kind": "vector", "dim": dim}, "metric": metric, "index": "flat"}


@pytest.fixture(scope="module")
def served(
    tmp_path_factory: pytest.TempPathFactory, serving: Callable[[Settings], Any]
) -> Iterator[httpx.Client]:
    settings = Settings(data_dir=tmp_path_factory.mktemp("data"), max_job_bytes=1_000_000)
    payloads = [{"even": i % 2 == 0, "part": i % 5} for i in range(400)]
    with serving(settings) as http:
        for metric in ("ip", "cosine"):
            fill(
                http, metric, vectors_of(metric),
                ids=NAMES, vectors=VECTORS.tolist(), payloads=payloads,
            )  # fmt: skip
        fill(
            http, "sets", {"features": {"kind": "ids"}, "index": "flat"}, ids=NAMES[:200], sets=SETS
        )
        assert http.put("/v1/collections/empty", json=vectors_of("ip")).status_code == 201
        yield http


def finished(http: httpx.Client, job: dict[str, Any]) -> dict[str, Any]:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        found: dict[str, Any] = http.get(f"/v1/jobs/{job['id']}").json()
        if found["state"] in ("done", "failed", "cancelled"):
            return found
        time.sleep(0.01)
    raise AssertionError(f"not finished: {found}")


def run(http: httpx.Client, path: str, body: dict[str, Any]) -> tuple[dict[str, Any], list[Any]]:
    answer = http.post(f"/v1/collections/{path}", json=body)
    assert answer.status_code == 202, answer.text
    job = finished(http, answer.json())
    assert answer.headers["location"] == f"/v1/jobs/{job['id']}"
    assert job["state"] == "done", job
    rows = http.get(f"/v1/jobs/{job['id']}/result").text.splitlines()
    return job, [json.loads(row) for row in rows]


# --- select ---------------------------------------------------------------------------------------


def test_select_is_herding(served: httpx.Client) -> None:
    job, rows = run(served, "ip/select", {"m": 25})
    expected = herding(VECTORS, 25)
    assert [row["id"] for row in rows] == [NAMES[i] for i in expected.ids]
    assert [row["weight"] for row in rows] == [1 / 25] * 25
    np.testing.assert_allclose([row["discrepancy"] for row in rows], expected.discrepancy)
    chance = random_discrepancy(VECTORS, 25)
    np.testing.assert_allclose([row["random_discrepancy"] for row in rows], chance)
    assert job["result"] == {
        "points": 400,
        "selected": 25,
        "discrepancy": rows[-1]["discrepancy"],
        "random_discrepancy": rows[-1]["random_discrepancy"],
        "oracle": "exact",
    }
    assert rows[-1]["discrepancy"] < rows[-1]["random_discrepancy"] / 2
    assert job["progress"]["done"] == job["progress"]["total"] == 25
    again = run(served, "ip/select", {"m": 25})[1]
    assert again == rows


def test_select_of_a_cosine_collection_goes_by_directions(served: httpx.Client) -> None:
    directions = VECTORS / np.linalg.norm(VECTORS.astype(np.float64), axis=1, keepdims=True)
    rows = run(served, "cosine/select", {"m": 30, "unique": False})[1]
    expected = herding(directions.astype(np.float32), 30, unique=False)
    assert [row["id"] for row in rows] == [NAMES[i] for i in expected.ids]


def test_select_of_sets_goes_by_their_jaccard(served: httpx.Client) -> None:
    rows = run(served, "sets/select", {"m": 40, "seed": 3})[1]
    bits = np.unpackbits(
        MinHashFamily(3, tables=0, sketch_bits=512).sketch(SETS), axis=1, bitorder="little"
    )
    chosen = [NAMES.index(row["id"]) for row in rows]
    # Equal up to the scale, so the same points are chosen.
    expected = herding((1 - 2 * bits.astype(np.float32)) / np.float32(512**0.5), 40, seed=3)
    assert chosen == expected.ids.tolist()
    # And it is better in Jaccard itself, of which the features are an estimate.
    sets = [set(one) for one in SETS]
    kernel = np.array([[len(a & b) / len(a | b) for b in sets] for a in sets])

    def discrepancy(points: list[int]) -> float:
        own = kernel[np.ix_(points, points)].mean()
        return float((own - 2 * kernel[points].mean() + kernel.mean()) ** 0.5)

    others = [RNG.choice(200, 40, replace=False).tolist() for _ in range(20)]
    assert discrepancy(chosen) < min(discrepancy(other) for other in others)


def test_a_filter_says_for_whom_and_exclusions_who_cannot_be_chosen(served: httpx.Client) -> None:
    rows = run(
        served, "ip/select", {"m": 10, "filter": {"part": [1, 3]}, "exclude": ["p1", "p3", 0]}
    )[1]
    places = [i for i in range(400) if i % 5 in (1, 3)]
    free = [i for i in places if i not in (1, 3)]
    expected = herding(VECTORS[free], 10, VECTORS[places].mean(axis=0, dtype=np.float64))
    assert [row["id"] for row in rows] == [NAMES[free[i]] for i in expected.ids]


def test_a_target_is_approached(served: httpx.Client) -> None:
    target = VECTORS[:50].mean(axis=0).astype(float).tolist()
    rows = run(served, "ip/select", {"m": 20, "target": target})[1]
    expected = herding(VECTORS, 20, target)
    assert [row["id"] for row in rows] == [NAMES[i] for i in expected.ids]


def test_many_points_are_searched_in_an_index(served: httpx.Client) -> None:
    job, rows = run(served, "ip/select", {"m": 50, "oracle": "index", "seed": 5})
    expected = herding(VECTORS, 50, oracle="ladder", seed=5)
    assert [row["id"] for row in rows] == [NAMES[i] for i in expected.ids]
    assert job["result"]["oracle"] == "index"


def test_a_collections_own_index_is_searched(
    served: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(
        served, "own", vectors_of("ip") | {"index": "maxip"}, ids=NAMES, vectors=VECTORS.tolist(),
        payloads=[{"part": i % 5} for i in range(400)],
    )  # fmt: skip
    # Moved to the end of the log, and removed: what the index calls points are no places.
    again = {"ids": NAMES[:9], "vectors": VECTORS[:9].tolist(), "payloads": [{"part": 1}] * 9}
    assert served.post("/v1/collections/own/points:upsert", json=again).status_code == 200
    assert served.post("/v1/collections/own/points:delete", json={"ids": [10]}).status_code == 200
    asked = {"m": 40, "oracle": "index", "criterion": "inner", "exclude": ["p1"]}
    rows = run(served, "own/select", asked | {"filter": {"part": [1, 3]}})[1]
    part = np.array([1 if i < 9 else i % 5 for i in range(400)])
    places = [i for i in range(400) if part[i] in (1, 3) and i != 10]
    free = [i for i in places if i != 1]
    mean = VECTORS[places].mean(axis=0, dtype=np.float64)
    expected = herding(VECTORS[free], 40, mean, criterion="inner")
    assert [row["id"] for row in rows] == [NAMES[free[i]] for i in expected.ids]

    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("an index was built, or all points were read")

    monkeypatch.setattr(optimize_jobs, "EXACT_POINTS", 100)
    monkeypatch.setattr("closeby.optimize.nearest.NearestSumIndex.__init__", never)
    monkeypatch.setattr("closeby.optimize.atoms.MatrixAtoms.search", never)
    target = VECTORS[:7].mean(axis=0).astype(float) * 0.8
    body = {"target": target.tolist(), "tol": 1e-4, "exclude": ["p1"]}
    job, rows = run(served, "own/frank_wolfe", body)
    assert job["result"]["certified"]
    assert job["result"]["gap"] <= 1e-4
    weights = {row["id"]: row["weight"] for row in rows}
    assert "p1" not in weights
    assert 10 not in weights
    point = sum(weight * VECTORS[NAMES.index(name)] for name, weight in weights.items())
    assert abs(float((point - target) @ (point - target)) - job["result"]["objective"]) < 1e-5
    assert served.delete("/v1/collections/own").status_code in (200, 204)


# --- frank_wolfe ----------------------------------------------------------------------------------


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("variant", ["fw", "pairwise", "bpcg"])
def test_frank_wolfe_is_the_librarys(served: httpx.Client, variant: str, signed: bool) -> None:
    target = VECTORS[:7].mean(axis=0).astype(float) * 0.8

    def distance(w: Any) -> tuple[float, Any]:
        return float((w - target) @ (w - target)), 2 * (w - target)

    asked = {"variant": variant, "signed": signed, "max_iter": 60, "tol": 1e-4}
    expected = frank_wolfe(distance, VECTORS, **asked)  # type: ignore[arg-type]
    job, rows = run(served, "ip/frank_wolfe", {"target": target.tolist(), **asked})
    weights = {row["id"]: row["weight"] for row in rows}
    assert weights == pytest.approx(
        dict(zip([NAMES[i] for i in expected.ids], expected.weights, strict=True))
    )
    assert [abs(row["weight"]) for row in rows] == sorted(
        (abs(row["weight"]) for row in rows), reverse=True
    )
    result = job["result"]
    assert result["objective"] == pytest.approx(expected.objective)
    assert result["gap"] == pytest.approx(expected.gap)
    assert (result["status"], result["certified"]) == (expected.status, True)
    assert result["iterations"] == len(expected.trace) == len(result["trace"]["objective"])
    np.testing.assert_allclose(result["trace"]["objective"], expected.trace["objective"])
    point = sum(w * VECTORS[NAMES.index(i)].astype(float) for i, w in weights.items())
    assert result["objective"] == pytest.approx(float(((point - target) ** 2).sum()), abs=1e-9)


def test_a_larger_ball_reaches_farther(served: httpx.Client) -> None:
    target = (5 * VECTORS[3].astype(float)).tolist()
    asked = {"target": target, "signed": True, "tol": 1e-9}
    near = run(served, "cosine/frank_wolfe", asked | {"radius": 5})
    assert near[0]["result"]["objective"] == pytest.approx(0, abs=1e-6)
    assert sum(abs(row["weight"]) for row in near[1]) <= 5 + 1e-9
    far = run(served, "cosine/frank_wolfe", asked)
    assert far[0]["result"]["objective"] > 1


def test_a_long_trace_is_thinned(served: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optimize_jobs, "TRACE_ROWS", 5)
    body = {"target": VECTORS.mean(axis=0).astype(float).tolist(), "variant": "fw", "tol": 0.0}
    result = run(served, "ip/frank_wolfe", body | {"max_iter": 41})[0]["result"]
    assert result["trace"]["iteration"] == [0, 10, 20, 30, 40]
    assert result["iterations"] == 41


# --- wrong input ----------------------------------------------------------------------------------

T = [0.0] * 12


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("ip/select", {}, "m"),
        ("ip/select", {"m": 0}, "m"),
        ("ip/select", {"m": 401}, "m"),
        ("ip/select", {"m": True}, "m"),
        ("ip/select", {"m": 2.0}, "m"),
        ("ip/select", {"m": 5, "points": 1}, "points"),
        ("ip/select", {"m": 5, "target": [1.0] * 11}, "target"),
        ("ip/select", {"m": 5, "target": [1e200] * 12}, "target"),
        ("ip/select", {"m": 5, "target": ["1"] * 12}, "target.0"),
        ("ip/select", {"m": 5, "exclude": [0, "none"]}, "exclude[1]"),
        ("ip/select", {"m": 5, "exclude": [-1]}, "exclude[0]"),
        ("ip/select", {"m": 399, "exclude": [0, "p1"]}, "m"),
        ("ip/select", {"m": 5, "filter": {}}, "filter"),
        ("ip/select", {"m": 5, "filter": {"a": {"b": 1}}}, "filter.a"),
        ("ip/select", {"m": 5, "filter": {"a": []}}, "filter.a"),
        ("ip/select", {"m": 5, "seed": -1}, "seed"),
        ("sets/select", {"m": 5, "target": T}, "target"),
        ("sets/frank_wolfe", {"target": T}, "collection"),
        ("empty/select", {"m": 1}, "collection"),
        ("empty/frank_wolfe", {"target": T}, "collection"),
        ("ip/frank_wolfe", {}, "target"),
        ("ip/frank_wolfe", {"target": T[1:]}, "target"),
        ("ip/frank_wolfe", {"target": T, "variant": "away"}, "variant"),
        ("ip/frank_wolfe", {"target": T, "max_iter": 0}, "max_iter"),
        ("ip/frank_wolfe", {"target": T, "tol": -1.0}, "tol"),
        ("ip/frank_wolfe", {"target": T, "radius": 0.0}, "radius"),
        ("ip/frank_wolfe", {"target": T, "certify": "perhaps"}, "certify"),
    ],
)
def test_wrong_input(served: httpx.Client, path: str, body: dict[str, Any], field: str) -> None:
    answer = served.post(f"/v1/collections/{path}", json=body)
    assert answer.status_code == 422, answer.text
    found = answer.json()
    assert found["code"] == "validation_error"
    assert found["errors"][0]["field"] == field, found


def test_nan_is_no_json_and_absent_collections_are_not_found(served: httpx.Client) -> None:
    body = json.dumps({"target": [float("nan")] * 12})
    answer = served.post("/v1/collections/ip/frank_wolfe", content=body, headers=JSON)
    assert answer.json()["code"] == "malformed_json"
    answer = served.post("/v1/collections/absent/select", json={"m": 1})
    assert answer.json()["code"] == "collection_not_found"


def test_what_shows_only_with_the_points_at_hand_fails_the_job(served: httpx.Client) -> None:
    for path, body, text in (
        ("ip/select", {"m": 81, "filter": {"part": 2}}, "m: is 81, and there are 80 points"),
        ("ip/select", {"m": 1, "filter": {"part": True}}, "filter: holds no point that matches"),
        ("ip/select", {"m": 1, "filter": {"part": None}}, "filter: holds no point that matches"),
    ):
        job = finished(served, served.post(f"/v1/collections/{path}", json=body).json())
        assert job["state"] == "failed"
        assert job["error"]["code"] == "validation_error"
        assert text in job["error"]["detail"]


def test_too_large_for_memory_is_refused(served: httpx.Client) -> None:
    fill(
        served, "wide", vectors_of("ip", 2_000),
        ids=list(range(130)), vectors=np.eye(130, 2_000).tolist(),
    )  # fmt: skip
    answer = served.post("/v1/collections/wide/select", json={"m": 1})
    assert answer.status_code == 422
    assert "max_job_bytes" in answer.json()["detail"]


# --- while a job runs -----------------------------------------------------------------------------


class Gate:
    """Holds a job at its first progress of a phase until it is opened."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, phase: str) -> None:
        self.reached, self.opened = threading.Event(), threading.Event()
        progress = optimize_jobs.JobContext.progress

        def held(context: Any, done: float, total: Any = None, **told: Any) -> None:
            if told.get("phase") == phase and not self.reached.is_set():
                self.reached.set()
                assert self.opened.wait(20)
            progress(context, done, total, **told)

        monkeypatch.setattr(optimize_jobs.JobContext, "progress", held)


def test_writes_meanwhile_change_nothing(
    served: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(served, "busy", vectors_of("ip"), ids=NAMES, vectors=VECTORS.tolist())
    # Held when the points of the moment are fixed, and none of them is read.
    gate = Gate(monkeypatch, "reading")
    job = served.post("/v1/collections/busy/select", json={"m": 30}).json()
    assert gate.reached.wait(20)
    base = "/v1/collections/busy"
    changed = {"ids": NAMES[:200], "vectors": (VECTORS[:200] * -3).tolist()}
    assert served.post(f"{base}/points:upsert", json=changed).status_code == 200
    gone = served.post(f"{base}/points:delete", json={"ids": NAMES[200:300]})
    assert gone.json()["deleted"] == 100
    gate.opened.set()
    assert finished(served, job)["state"] == "done"
    rows = served.get(f"/v1/jobs/{job['id']}/result").text.splitlines()
    expected = herding(VECTORS, 30)
    assert [json.loads(row)["id"] for row in rows] == [NAMES[i] for i in expected.ids]


@pytest.mark.parametrize(
    ("path", "body", "phase"),
    [
        ("ip/select", {"m": 300}, "reading"),
        ("ip/select", {"m": 300}, "choosing"),
        ("ip/frank_wolfe", {"target": T}, "approximating"),
    ],
)
def test_a_job_is_cancelled_at_its_next_step(
    served: httpx.Client,
    monkeypatch: pytest.MonkeyPatch,
    path: str,
    body: dict[str, Any],
    phase: str,
) -> None:
    gate = Gate(monkeypatch, phase)
    job = served.post(f"/v1/collections/{path}", json=body).json()
    assert gate.reached.wait(20)
    assert served.post(f"/v1/jobs/{job['id']}:cancel").status_code == 200
    gate.opened.set()
    assert finished(served, job)["state"] == "cancelled"
    assert served.get(f"/v1/jobs/{job['id']}/result").status_code == 409


def test_a_job_goes_on_after_a_restart(
    tmp_path: Path, serve: Callable[[Settings], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(data_dir=tmp_path)
    gate = Gate(monkeypatch, "choosing")
    with serve(settings) as http:
        fill(http, "c", vectors_of("ip"), ids=NAMES, vectors=VECTORS.tolist())
        job = http.post("/v1/collections/c/select", json={"m": 30}).json()
        assert gate.reached.wait(20)
        threading.Timer(0.3, gate.opened.set).start()
    with serve(settings) as http:
        assert finished(http, job)["state"] == "done"
        rows = http.get(f"/v1/jobs/{job['id']}/result").text.splitlines()
    expected = herding(VECTORS, 30)
    assert [json.loads(row)["id"] for row in rows] == [NAMES[i] for i in expected.ids]


def test_a_deleted_collection_cancels_its_jobs(
    served: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(served, "gone", vectors_of("ip"), ids=NAMES, vectors=VECTORS.tolist())
    gate = Gate(monkeypatch, "reading")
    job = served.post("/v1/collections/gone/select", json={"m": 3}).json()
    assert gate.reached.wait(20)
    served.delete("/v1/collections/gone")
    gate.opened.set()
    assert finished(served, job)["state"] == "cancelled"
