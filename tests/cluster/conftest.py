"""Clusters within one process: real stores and object storage, links that are threads."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from closeby.service.cluster.deployment import ClusterDeployment
from closeby.service.cluster.fanout import Link
from closeby.service.cluster.host import HostOptions, ShardHost
from closeby.service.cluster.placement import Placement, read_placement, replace_placement
from closeby.service.settings import Settings
from closeby.service.store import Store


@dataclass
class LocalLink:
    """To a host in this process; a host that is stopped never answers."""

    cluster: LocalCluster
    name: str

    def send(self, method: str, *arguments: Any) -> Future[Any]:
        host = self.cluster.hosts.get(self.name)
        if host is None:
            return Future()
        return self.cluster.pool.submit(getattr(host, method), *arguments)


@dataclass
class LocalCluster:
    store: str
    directory: Path
    segment_points: int = 64
    segments: str = ""
    """URL of object storage; a folder of `directory` unless given."""
    hosts: dict[str, ShardHost] = field(default_factory=dict)
    pool: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(16))

    def __post_init__(self) -> None:
        self.segments = self.segments or f"file://{self.directory}/objects"

    def link(self, name: str) -> Link:
        return LocalLink(self, name)

    def start(self, name: str, machine: str = "machine") -> None:
        """Start a shard; what it caches is on `machine`."""
        options = HostOptions(
            self.store,
            self.segments,
            self.directory / machine,
            self.segment_points,
        )
        host = ShardHost(name, options)
        host.start()
        self.hosts[name] = host

    def kill(self, name: str) -> ShardHost:
        """Let a shard vanish for all who ask it; the caller closes it in the end."""
        return self.hosts.pop(name)

    def deployment(self, name: str = "ingress", deadline: float = 20.0) -> ClusterDeployment:
        settings = Settings(data_dir=self.directory / name)
        return ClusterDeployment(settings, self.store, self.link, deadline)

    def begin_join(self, name: str) -> None:
        """Let a shard that is not started begin to join."""
        store = Store(self.store)
        placement = read_placement(store)
        assert placement is not None
        assert replace_placement(store, placement.with_joining(name))
        store.close()

    def close(self) -> None:
        for host in self.hosts.values():
            host.close()
        self.pool.shutdown()


@pytest.fixture(scope="session")
def bucket() -> Iterator[Callable[[], str]]:
    """The URL of a new prefix in a bucket of an emulator on this machine."""
    from moto.server import ThreadedMotoServer

    with pytest.MonkeyPatch.context() as patch:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
        server = ThreadedMotoServer("127.0.0.1", port, verbose=False)
        server.start()
        for name, value in {
            "AWS_ACCESS_KEY_ID": "any",
            "AWS_SECRET_ACCESS_KEY": "any",
            "AWS_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
            "AWS_ALLOW_HTTP": "true",
        }.items():
            patch.setenv(name, value)

        assert httpx.put(f"http://127.0.0.1:{port}/segments").status_code == 200
        count = iter(range(1000))
        try:
            yield lambda: f"s3://segments/closeby-{next(count)}"
        finally:
            server.stop()


@pytest.fixture
def make_cluster(
    new_database: Callable[[], str], tmp_path: Path
) -> Iterator[Callable[..., LocalCluster]]:
    made: list[LocalCluster] = []

    def make(shards: int, **options: Any) -> LocalCluster:
        cluster = LocalCluster(new_database(), tmp_path / f"cluster-{len(made)}", **options)
        made.append(cluster)
        names = [f"shard-{i}" for i in range(shards)]
        store = Store(cluster.store)
        assert replace_placement(store, Placement.even(names))
        store.close()
        for name in names:
            cluster.start(name)
        return cluster

    yield make
    for cluster in made:
        cluster.close()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store.open_directory(tmp_path)
    yield opened
    opened.close()
