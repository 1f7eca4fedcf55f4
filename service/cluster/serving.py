"""A cluster on Ray Serve: one application for the ingress, one for each shard.

Each shard is an application of its own, so adding one touches no other. The builders `ingress` and
`shard` are what `serve run` and a Serve configuration name; `up` deploys all of them. This module
and `spreading` are the only ones that import Ray.

Between processes go features and hits, by Ray's own serialisation: whoever can reach Ray's ports
can do anything, so they belong on a network of their own.
"""

from __future__ import annotations

import asyncio
import tempfile
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import ray
from closeby.service.app import create_app
from closeby.service.cluster.bulk_build import Built, job_for
from closeby.service.cluster.bulk_build import build as fill
from closeby.service.cluster.deployment import ClusterDeployment
from closeby.service.cluster.fanout import Fanout, Link
from closeby.service.cluster.host import ShardHost
from closeby.service.cluster.joining import join, leave
from closeby.service.cluster.options import ClusterOptions
from closeby.service.cluster.placement import Placement, read_placement, replace_placement
from closeby.service.cluster.segment_store import SegmentStore
from closeby.service.cluster.stored_files import forget_files, keys_of
from closeby.service.hits import Search
from closeby.service.logs import configure_logging
from closeby.service.settings import Settings
from closeby.service.store import Store
from fastapi import FastAPI
from ray import serve
from ray.serve.config import ProxyLocation
from ray.serve.handle import DeploymentHandle, DeploymentResponse

__all__ = [
    "INGRESS",
    "add_shard",
    "build",
    "connect",
    "ingress",
    "ingress_app",
    "remove_shard",
    "shard",
    "shard_app",
    "shard_names",
    "up",
]

INGRESS = "closeby"
"""Name of the ingress's application."""
SHARD = "closeby-shard-"
"""How the name of a shard's application begins."""
DEPLOYMENT = "ShardServer"
SHARD_THREADS = 8
"""Requests that a shard works on at once; most of the time one waits for PostgreSQL."""
WAITING = 256
"""Requests that Serve hands to one process before it lets them queue."""
HEALTH_SECONDS = 2.0


def shard_names(count: int) -> list[str]:
    """The names of a cluster's first shards, which are those of their applications."""
    return [f"{SHARD}{number}" for number in range(count)]


class ShardServer:
    """A `ShardHost` as a Serve deployment. Serve restarts it where it dies."""

    def __init__(self, name: str, options: dict[str, Any]) -> None:
        wanted = ClusterOptions.model_validate(options)
        configure_logging(wanted.log_level, "json")
        cache = Path(wanted.cache or Path(tempfile.gettempdir()) / "closeby-cache")
        self._pool = ThreadPoolExecutor(SHARD_THREADS, "closeby-shard")
        self._host = ShardHost(name, wanted.host_options(cache))
        self._host.start()

    async def search(
        self, collection: int, queries: list[bytes], wanted: Search, at_least: int
    ) -> Any:
        return await self._run(self._host.search, collection, queries, wanted, at_least)

    async def live_seqs(self, collection: int, ids: list[int | str], at_least: int) -> Any:
        return await self._run(self._host.live_seqs, collection, ids, at_least)

    async def recall_estimate(
        self, collection: int, target_recall: float | None, at_least: int
    ) -> Any:
        return await self._run(self._host.recall_estimate, collection, target_recall, at_least)

    async def describe(self, collection: int, at_least: int) -> Any:
        return await self._run(self._host.describe, collection, at_least)

    async def refresh(self) -> Any:
        return await self._run(self._host.refresh)

    async def status(self) -> Any:
        return self._host.status()

    async def _run(self, work: Callable[..., Any], *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._pool, work, *arguments)

    def __del__(self) -> None:
        host = getattr(self, "_host", None)
        if host is not None:
            host.close()


class IngressServer:
    """The HTTP service as a Serve ingress."""

    def __init__(self, options: dict[str, Any], settings: dict[str, Any]) -> None:
        self._options = ClusterOptions.model_validate(options)
        folder = tempfile.mkdtemp(prefix="closeby-ingress-")
        self._settings = Settings(**({"data_dir": folder} | settings))
        configure_logging(self._settings.log_level, self._settings.log_format)

    def __serve_build_asgi_app__(self) -> FastAPI:
        """The app; it opens and closes its parts with the process."""
        options = self._options
        deployment = ClusterDeployment(
            self._settings,
            options.store_url,
            ServeLink,
            options.shard_deadline,
            options.hedge_percentile,
        )
        return create_app(self._settings, deployment)


class ServeLink:
    """A `Link` to the shard of that name."""

    def __init__(self, name: str) -> None:
        self._handle: DeploymentHandle = serve.get_deployment_handle(DEPLOYMENT, app_name=name)

    def send(self, method: str, *arguments: Any) -> ServePending:
        """See `Link.send`."""
        return ServePending(getattr(self._handle, method).remote(*arguments))


class ServePending:
    """An answer on its way through Ray."""

    def __init__(self, response: DeploymentResponse) -> None:
        self._response = response

    def result(self, timeout: float) -> Any:
        """See `Pending.result`."""
        return self._response.result(timeout_s=timeout)

    def cancel(self) -> None:
        """See `Pending.cancel`."""
        self._response.cancel()


# --- applications --------------------------------------------------------------------------------


def shard_app(name: str, options: ClusterOptions) -> Any:
    """The application of one shard."""
    deployment = serve.deployment(
        ShardServer,
        name=DEPLOYMENT,
        num_replicas=1,
        max_ongoing_requests=WAITING,
        health_check_period_s=HEALTH_SECONDS,
        health_check_timeout_s=30.0,
        graceful_shutdown_timeout_s=20.0,
        ray_actor_options={"num_cpus": options.shard_cpus},
    )
    return deployment.bind(name, options.model_dump(mode="json"))


def ingress_app(options: ClusterOptions, settings: dict[str, Any]) -> Any:
    """The application of the ingress. `settings` are those of `closeby serve`."""
    deployment = serve.deployment(
        serve.ingress()(IngressServer),
        name="IngressServer",
        num_replicas=options.ingresses,
        max_ongoing_requests=WAITING,
        health_check_period_s=HEALTH_SECONDS,
        ray_actor_options={"num_cpus": options.ingress_cpus},
    )
    return deployment.bind(options.model_dump(mode="json"), settings)


def shard(arguments: dict[str, Any]) -> Any:
    """For a Serve configuration: `name` of the shard, the rest as in `ClusterOptions`."""
    name = arguments.pop("name")
    options = ClusterOptions.model_validate(arguments)
    place(options)
    return shard_app(name, options)


def ingress(arguments: dict[str, Any]) -> Any:
    """For a Serve configuration: `settings` as a mapping, the rest as in `ClusterOptions`."""
    settings = arguments.pop("settings", {})
    options = ClusterOptions.model_validate(arguments)
    place(options)
    return ingress_app(options, settings)


# --- a whole cluster -----------------------------------------------------------------------------


def place(options: ClusterOptions) -> Placement:
    """The placement of the cluster; made of `options.shards` shards if there is none yet."""
    store = Store(options.store_url)
    try:
        replace_placement(store, Placement.even(shard_names(options.shards)))
        found = read_placement(store)
        assert found is not None
        return found
    finally:
        store.close()


def connect(address: str | None) -> None:
    """Connect to the Ray at `address`; None: the one that is found, or a new one.

    Raises ConnectionError.
    """
    ray.init(address=address, log_to_driver=False)


def up(
    options: ClusterOptions,
    settings: dict[str, Any],
    *,
    host: str,
    port: int,
    every_node: bool = False,
) -> Placement:
    """Deploy all shards of the placement, then the ingress at `host`:`port` of the head node.

    `every_node`: of each node, behind a balancer that knows which ones are alive. What runs
    already is brought up to date. The placement, if there is one, says how many shards there are.
    """
    serve.start(
        proxy_location=ProxyLocation.EveryNode if every_node else ProxyLocation.HeadOnly,
        http_options={"host": host, "port": port},
    )
    placement = place(options)
    names = sorted(placement.shards)
    targets = [
        serve.RunTarget(target=shard_app(name, options), name=name, route_prefix=None)
        for name in names
    ]
    targets.append(
        serve.RunTarget(target=ingress_app(options, settings), name=INGRESS, route_prefix="/")
    )
    serve.run_many(targets, wait_for_ingress_deployment_creation=True)
    return placement


def add_shard(
    options: ClusterOptions, *, deployed: bool = False, stop: threading.Event | None = None
) -> str | None:
    """Add the next shard to the running cluster; see `joining.join`.

    `deployed`: its application is there already and waits for its partitions. The shard's name;
    None if `stop` was set before the end.
    """
    store = Store(options.store_url)
    fanout = Fanout(_link)
    try:
        placement = read_placement(store)
        if placement is None:
            raise ValueError("there is no cluster; see `closeby cluster up`")
        free = (n for n in shard_names(len(placement.shards) + 1) if n not in placement.shards)
        name = next(iter(placement.joining), None) or next(free)

        def start() -> None:
            if not deployed:
                serve.run(shard_app(name, options), name=name, route_prefix=None)

        return name if join(store, fanout, name, start, stop) else None
    finally:
        fanout.close()
        store.close()


def remove_shard(
    options: ClusterOptions,
    name: str | None = None,
    *,
    deployed: bool = False,
    stop: threading.Event | None = None,
) -> str | None:
    """Let the shard `name`, or the last one, leave the running cluster; see `joining.leave`.

    `deployed`: its application is taken away by others. The shard's name; None if `stop` was set
    before the end. Raises ValueError.
    """
    store = Store(options.store_url)
    fanout = Fanout(_link)
    try:
        placement = read_placement(store)
        if placement is None:
            raise ValueError("there is no cluster; see `closeby cluster up`")
        names = sorted(placement.shards, key=lambda shard: (len(shard), shard))
        # Of a removal that was cut short the application may be left.
        known = placement.shards.keys() | placement.joining.keys()
        left = [app for app in serve.status().applications if app.startswith(SHARD)]
        left = [app for app in left if app not in known]
        name = name or placement.leaving or next(iter(left), names[-1])
        if name not in known and name not in left:
            raise ValueError(f"there is no shard {name}; there are {', '.join(names)}")
        if not leave(store, fanout, name, stop):
            return None
        if not deployed:
            serve.delete(name)
        objects = SegmentStore(options.segments)
        for record in store.list_collections():
            for key in keys_of(store, record.id, name):
                forget_files(store, objects, record.id, key)
        return name
    finally:
        fanout.close()
        store.close()


def build(
    options: ClusterOptions,
    name: str,
    paths: Sequence[str],
    *,
    replace_points: bool = False,
    **reading: Any,
) -> Built:
    """Fill the collection `name` with the points of files; see `bulk_build.build`.

    `reading`: how the files are read, fields of `build_tasks.Job`. Paths are those of all machines;
    URLs are fetched by fsspec. Raises what `build` does, and what `RaySpread` makes of tasks'.
    """
    # Ray Data takes seconds to import, which no shard should wait for.
    from closeby.service.cluster.spreading import RaySpread

    store = Store(options.store_url)
    try:
        job = job_for(
            store,
            name,
            store_url=options.store_url,
            segments=options.segments,
            segment_points=options.segment_points,
            max_set_elements=options.max_set_elements,
            **reading,
        )
        return fill(store, RaySpread(), job, name, paths, replace_points=replace_points)
    finally:
        store.close()


def _link(name: str) -> Link:
    return ServeLink(name)
