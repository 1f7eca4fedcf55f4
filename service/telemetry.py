"""Metrics."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from .admission import Admission
from .deployment import Deployment
from .errors import StoreUnavailableError
from .replanning import planned_for

__all__ = ["Metrics"]

BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Metrics:
    """The metrics of one app, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "closeby_requests",
            "Requests answered.",
            ("method", "route", "status"),
            registry=self.registry,
        )
        self._seconds = Histogram(
            "closeby_request_seconds",
            "Time from the first byte of a request to the last of its answer.",
            ("method", "route"),
            buckets=BUCKETS,
            registry=self.registry,
        )
        self.upserted = Counter(
            "closeby_points_upserted", "Points acknowledged.", registry=self.registry
        )
        self.queries = Counter("closeby_queries", "Queries answered.", registry=self.registry)
        self.jobs = Counter(
            "closeby_jobs_finished",
            "Jobs that came to their end in this process.",
            ("kind", "state"),
            registry=self.registry,
        )
        self.in_progress = Gauge(
            "closeby_requests_in_progress", "Requests being answered.", registry=self.registry
        )

    def observe(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count one request."""
        self._requests.labels(method, route, status).inc()
        self._seconds.labels(method, route).observe(seconds)

    def watch(self, deployment: Deployment, admission: Admission) -> None:
        """Report the state of these at each scrape."""
        deployment.jobs.on_finished = lambda kind, state: self.jobs.labels(kind, state).inc()
        self.registry.register(_StateCollector(deployment, admission))

    def render(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self.registry)


class _StateCollector(Collector):
    def __init__(self, deployment: Deployment, admission: Admission) -> None:
        self._deployment = deployment
        self._admission = admission

    def collect(self) -> Iterator[Metric]:
        """The state now."""
        shards = self._deployment.registry.shards()
        points = GaugeMetricFamily("closeby_points", "Points.", labels=["collection"])
        ready = GaugeMetricFamily("closeby_collection_ready", "1 if loaded.", labels=["collection"])
        for shard in shards:
            points.add_metric([shard.record.name], len(shard))
            ready.add_metric([shard.record.name], float(shard.ready))
        yield points
        yield ready
        store = self._deployment.store
        yield GaugeMetricFamily(
            "closeby_store_queued_points", "Points waiting for the disk.", store.queued_rows
        )
        yield CounterMetricFamily("closeby_store_commits", "Transactions on disk.", store.commits)
        yield CounterMetricFamily(
            "closeby_store_failed_points", "Log rows that could not be written.", store.failed_rows
        )
        waiting = GaugeMetricFamily(
            "closeby_segments_waiting", "Full segments not sealed yet.", labels=["collection"]
        )
        for shard in shards:
            waiting.add_metric([shard.record.name], shard.frozen)
        yield waiting
        yield GaugeMetricFamily(
            "closeby_workers", "Worker processes that run.", self._deployment.workers.alive
        )
        yield CounterMetricFamily(
            "closeby_segments_by_workers",
            "Segments that workers have built.",
            self._deployment.build_orders.taken,
        )
        recall = GaugeMetricFamily(
            "closeby_recall", "Recall that was measured last.", labels=["collection"]
        )
        drift = GaugeMetricFamily(
            "closeby_recall_drift", "It less the recall estimated.", labels=["collection"]
        )
        for shard in shards:
            measured = shard.last_evaluation or {}
            for family, value in (
                (recall, measured.get("recall_near")),
                (drift, measured.get("drift")),
            ):
                if value is not None:
                    family.add_metric([shard.record.name], value)
        yield recall
        yield drift
        engine = GaugeMetricFamily(
            "closeby_collection_engine",
            "1 for the engine there is.",
            labels=["collection", "engine"],
        )
        planned = GaugeMetricFamily(
            "closeby_planned_points", "Points of the last plan by auto.", labels=["collection"]
        )
        for shard in shards:
            engine.add_metric([shard.record.name, shard.engine_kind], 1.0)
            points_planned = planned_for(shard)
            if points_planned is not None:
                planned.add_metric([shard.record.name], points_planned)
        yield engine
        yield planned
        yield CounterMetricFamily(
            "closeby_replans",
            "Plans queued as collections grew.",
            self._deployment.replanning.queued,
        )
        jobs = GaugeMetricFamily("closeby_jobs", "Jobs kept.", labels=["state"])
        with contextlib.suppress(StoreUnavailableError):
            for state, count in self._deployment.jobs.jobs.counts().items():
                jobs.add_metric([state], count)
        yield jobs
        yield GaugeMetricFamily(
            "closeby_body_bytes", "Bytes of request bodies in memory.", self._admission.held
        )
