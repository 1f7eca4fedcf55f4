"""Snapshots: of one moment while writes go on, and every altered byte is noticed."""

from __future__ import annotations

import io
import itertools
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from closeby.client import Client, ConflictError, NotFoundError, ValidationError
from closeby.service.app import create_app
from closeby.service.errors import SnapshotDamagedError
from closeby.service.settings import Settings
from closeby.service.shard import PointBatch, Sealing, Shard
from closeby.service.snapshots import Snapshots, read_rows, verify
from closeby.service.store import Store

CONFIG: dict[str, Any] = {
    "metric": "jaccard",
    "features": {"kind": "tokens"},
    "index": "flinng",
    "target_recall": 0.95,
    "threshold": 0.5,
    "seed": 0,
}


@pytest.fixture
def shard(tmp_path: Path) -> Iterator[Shard]:
    store = Store.open_directory(tmp_path)
    record = store.create_collection("a", CONFIG)
    made = Shard(store, record, sealing=Sealing(tmp_path / "1", 16))
    made.load()
    yield made
    store.close()


def snapshot(shard: Shard, folder: Path) -> bytes:
    snapshots = Snapshots(folder)
    with shard.points_now() as points:
        info = snapshots.create("a", CONFIG, points)
    with snapshots.open("a", info.name) as file:
        return file.read()


def read(content: bytes, folder: Path) -> list[Any]:
    path = folder / "read"
    path.write_bytes(content)
    with path.open("rb") as file:
        assert verify(file)["config"] == CONFIG
        file.seek(0)
        return [entry for entries in read_rows(file) for entry in entries]


def fill(shard: Shard, count: int) -> None:
    ids = [*range(count // 2), *(f"p{i}" for i in range(count - count // 2))]
    payloads = [b'{"n":%d}' % i if i % 3 else None for i in range(count)]
    shard.upsert(PointBatch(ids, [[f"t{i}", "u", f"v{i % 5}"] for i in range(count)], payloads))


def test_every_altered_byte_and_every_cut_is_noticed(shard: Shard, tmp_path: Path) -> None:
    fill(shard, 12)
    content = snapshot(shard, tmp_path / "snapshots")
    good = read(content, tmp_path)
    assert len(good) == 12
    path = tmp_path / "altered"
    path.write_bytes(content)
    with path.open("r+b", buffering=0) as file:
        for at in range(len(content)):
            for flip in (1, 0x20, 0x80):
                os.pwrite(file.fileno(), bytes([content[at] ^ flip]), at)
                with pytest.raises(SnapshotDamagedError):
                    verify(file)
            os.pwrite(file.fileno(), content[at : at + 1], at)
        verify(file)
        for size in range(len(content)):
            os.ftruncate(file.fileno(), 0)
            os.pwrite(file.fileno(), content[:size], 0)
            with pytest.raises(SnapshotDamagedError):
                verify(file)
        os.pwrite(file.fileno(), content + b"x", 0)
        with pytest.raises(SnapshotDamagedError):
            verify(file)


def test_blocks_in_another_order_are_refused(shard: Shard, tmp_path: Path) -> None:
    from closeby.service import snapshots as module

    fill(shard, 40)
    patch = pytest.MonkeyPatch()
    with patch.context() as context:
        context.setattr(module, "ROWS_BYTES", 500)
        content = snapshot(shard, tmp_path / "snapshots")
    starts = [len(module.MAGIC)]
    while starts[-1] < len(content):
        _, length, _ = module._BLOCK.unpack_from(content, starts[-1])
        starts.append(starts[-1] + module._BLOCK.size + length)
    blocks = [content[a:b] for a, b in itertools.pairwise(starts)]
    assert len(blocks) > 4
    for swapped in (1, 2):
        order = [*blocks]
        order[swapped], order[swapped + 1] = order[swapped + 1], order[swapped]
        with pytest.raises(SnapshotDamagedError):
            read(module.MAGIC + b"".join(order), tmp_path)
    with pytest.raises(SnapshotDamagedError):
        read(module.MAGIC + b"".join(blocks[:2] + blocks[3:]), tmp_path)


def test_a_snapshot_is_of_one_moment(shard: Shard, tmp_path: Path) -> None:
    """A writer moves a token from point to point; whenever it is, exactly one version has it."""
    shard.upsert(PointBatch([0, 1], [["here"], ["not"]]))
    stop = threading.Event()

    def move() -> None:
        turn = 0
        while not stop.is_set():
            turn += 1
            now, then = turn % 2, 1 - turn % 2
            shard.upsert(PointBatch([now, then], [["here"], ["not", str(turn)]]))
            shard.seal()
            shard.clear_log(threading.Event())

    writer = threading.Thread(target=move)
    writer.start()
    try:
        for _ in range(8):
            rows = read(snapshot(shard, tmp_path / "snapshots"), tmp_path)
            values = sorted(row.source for row in rows)
            assert len(rows) == 2
            assert values[0] == b'["here"]'
            assert values[1] != b'["here"]'
    finally:
        stop.set()
        writer.join()


def test_no_snapshot_is_read_from_a_stream_of_anything(tmp_path: Path) -> None:
    path = tmp_path / "x"
    for content in (b"", b"closeby", b"closeby snapshot 2\n" + bytes(100), os.urandom(500)):
        path.write_bytes(content)
        with path.open("rb") as file, pytest.raises(SnapshotDamagedError):
            verify(file)


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Client]:
    testclient = pytest.importorskip("starlette.testclient")
    app = create_app(Settings(data_dir=tmp_path / "data", segment_points=16, max_points=20))
    with testclient.TestClient(app) as http:

        def answer(request: httpx.Request) -> httpx.Response:
            sent = http.request(
                request.method,
                request.url.raw_path.decode(),
                content=request.read(),
                headers=dict(request.headers),
            )
            return httpx.Response(sent.status_code, headers=sent.headers, content=sent.content)

        yield Client("http://test", transport=httpx.MockTransport(answer), retries=0)


def test_restored_under_another_name_and_in_place(client: Client) -> None:
    features = {"kind": "shingles", "unit": "byte", "n": 4}
    texts = client.create_collection("texts", metric="jaccard", features=features)
    for start in range(0, 60, 20):
        texts.upsert(
            ids=list(range(start, start + 20)),
            texts=[f"the text of number {i}, and more" for i in range(start, start + 20)],
            payloads=[{"n": i} for i in range(start, start + 20)],
        )
    texts.delete(ids=[3])
    kept = texts.snapshot()
    assert kept.points == 59
    assert [one.name for one in texts.list_snapshots()] == [kept.name]
    texts.upsert(ids=[0], texts=["changed after the snapshot"])
    info = texts.restore_snapshot(kept.name, into="again")
    assert (info.name, info.count, info.config["features"]) == ("again", 59, features)
    again = client.collection("again")
    assert again.get(ids=[0, 3]).points[0].text == "the text of number 0, and more"
    assert again.get(ids=[3]).missing == [3]
    hit = again.query(text="the text of number 7, and more", limit=1).hits[0]
    assert (hit.id, hit.score, hit.payload) == (7, 1.0, {"n": 7})
    with pytest.raises(ConflictError):
        texts.restore_snapshot(kept.name)
    assert texts.get(ids=[0]).points[0].text == "changed after the snapshot"
    texts.restore_snapshot(kept.name, replace=True)
    assert texts.get(ids=[0]).points[0].text == "the text of number 0, and more"
    assert {one.name for one in client.list_collections()} == {"texts", "again"}


def test_moved_to_another_collection_by_download_and_upload(client: Client) -> None:
    sets = client.create_collection("sets", metric="jaccard", features={"kind": "ids"})
    sets.upsert(ids=["a", "b"], sets=[[1, 2, 3], [2**63, 5]])
    content = sets.download_snapshot(sets.snapshot().name)
    other = client.collection("other")
    assert other.upload_snapshot("moved", content).points == 2
    broken = content[:-20] + bytes([content[-20] ^ 1]) + content[-19:]
    with pytest.raises(ValidationError) as refused:
        other.upload_snapshot("broken", broken)
    assert refused.value.code == "snapshot_damaged"
    with pytest.raises(NotFoundError):
        other.download_snapshot("broken")
    assert other.restore_snapshot("moved").count == 2
    assert other.get(ids=["b"]).points[0].set == [5, 2**63]
    client.delete_collection("sets")
    assert len(sets.list_snapshots()) == 1
    sets.delete_snapshot(sets.list_snapshots()[0].name)
    assert sets.list_snapshots() == []


@pytest.mark.parametrize("name", ["..", "%2e%2e%2fx", ".hidden", "a%00b", "ü"])
def test_names_cannot_lead_out_of_the_folder(client: Client, name: str) -> None:
    with pytest.raises((ValidationError, NotFoundError)):
        client._session.driver.run(
            client._session.call("PUT", f"/v1/collections/a/snapshots/{name}", b"x")
        )


def test_damaged_features_are_refused_before_anything_is_made(
    client: Client, tmp_path: Path
) -> None:
    """A snapshot whose checksums are right, but whose sets are not: a tampered one."""
    import numpy as np
    from closeby.index import SetBatch
    from closeby.service import snapshots as module
    from closeby.service.encoding import encode_rows
    from closeby.service.store import StoredPoint

    for elements in ([3, 1], [1, 1]):
        sets = SetBatch(np.array([0, 2]), np.array(elements, np.uint64))
        rows = [StoredPoint(5, "1", encode_rows(sets)[0], None, None)]
        file = io.BytesIO()
        meta = {"config": CONFIG | {"features": {"kind": "ids"}}, "created_at": "x"}
        module.write(file, meta, module.Points(1, rows))
        client.collection("t").upload_snapshot("x", file.getvalue())
        with pytest.raises(ValidationError):
            client.collection("t").restore_snapshot("x")
        assert client.list_collections() == []
