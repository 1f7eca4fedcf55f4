"""What a cluster is made of, as flags and Serve configurations give it."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from closeby.service.partitions import PARTITIONS
from closeby.service.sealing import SEGMENT_POINTS
from pydantic import BaseModel, ConfigDict, Field

from .host import HostOptions

__all__ = ["ClusterOptions"]


class ClusterOptions(BaseModel):
    """Options of all processes of a cluster. Times in seconds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    store: str = Field(
        pattern=r"^postgresql(\+psycopg)?://", description="URL of the PostgreSQL database."
    )
    segments: str = Field(
        pattern=r"^[a-z0-9+]+://", description="Where sealed segments go: s3://…, file:///…"
    )
    shards: int = Field(1, ge=1, le=PARTITIONS, description="Shards of a cluster that is new.")
    ingresses: int = Field(1, ge=1, description="Processes that take requests.")
    cache: Path | None = Field(
        None, description="Directory on each machine for files of sealed segments."
    )
    segment_points: int = Field(SEGMENT_POINTS, ge=16, description="Points of a segment.")
    max_set_elements: int = Field(1_000_000, ge=1, description="Distinct elements of one set.")
    shard_deadline: float = Field(
        2.0, gt=0, description="How long a request waits for a shard before it goes without."
    )
    hedge_percentile: float | None = Field(
        None,
        ge=50,
        lt=100,
        description="A shard that is later than so many percent of its answers is asked again.",
    )
    shard_cpus: float = Field(1.0, ge=0, description="CPUs that Ray counts for a shard.")
    ingress_cpus: float = Field(1.0, ge=0, description="CPUs that Ray counts for an ingress.")
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @property
    def store_url(self) -> str:
        """`store` with the driver that closeby uses."""
        return self.store.replace("postgresql://", "postgresql+psycopg://", 1)

    def host_options(self, cache: Path) -> HostOptions:
        """What one shard needs to know."""
        return HostOptions(
            self.store_url, self.segments, cache, self.segment_points, self.max_set_elements
        )
