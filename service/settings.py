"""All settings of the service, and the only place which reads the environment.

A value is taken from the first of: a command-line flag (a keyword argument here), an environment
variable `CLOSEBY_<NAME>`, the TOML file named by `--config` or `CLOSEBY_CONFIG`, the default.
`docs/settings.md` lists them all.
"""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)

from .errors import StartupError

__all__ = ["ENV_PREFIX", "Settings", "SettingsError", "load_settings"]

ENV_PREFIX = "CLOSEBY_"
_SEPARATORS = {"import_roots": os.pathsep, "import_urls": " "}
"""What stands between the values of a setting that has several, in the environment."""
MIN_REPLAN_GROWTH = 1.5


class SettingsError(StartupError):
    """A setting is unknown or has an impossible value; the message names it."""


class Settings(BaseModel):
    """Where the service listens, what it keeps, and how much it takes on.

    Sizes are in bytes, times in seconds. What is not given is taken from the environment.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    def __init__(self, **given: Any) -> None:
        super().__init__(**(_environment() | given))

    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(8080, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    data_dir: Path = Field(
        Path("closeby-data"), description="Directory of the durable store; made if missing."
    )
    read_only: bool = Field(
        False,
        description="Serve what another server of the same data directory writes, and refuse"
        " writes.",
    )
    api_key: SecretStr | None = Field(
        None,
        description="If set, every request but `/healthz` and `/readyz` needs it, as"
        " `Authorization: Bearer …` or `X-API-Key: …`.",
    )
    api_key_file: Path | None = Field(
        None, description="File whose first line is the API key; better than the key in a flag."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Least level that is logged (to stderr)."
    )
    log_format: Literal["json", "text"] = Field(
        "json", description="One JSON object a line, or text for people."
    )
    shutdown_timeout: float = Field(
        30.0, gt=0, description="Seconds that requests in flight are given after SIGTERM."
    )
    query_threads: int = Field(
        0, ge=0, le=1024, description="Threads that run queries; 0 means one a CPU, at least 2."
    )
    write_threads: int = Field(
        16,
        ge=1,
        le=1024,
        description="Threads that run upserts and deletes; most of their time"
        " they wait for the disk.",
    )
    segment_points: int = Field(
        16_384,
        ge=16,
        description="Points of a segment before it is sealed; after a crash a few times as many"
        " are replayed.",
    )
    verify_files: bool = Field(
        True, description="Compare the checksums of all sealed files at start."
    )
    workers: int = Field(
        0,
        ge=0,
        le=256,
        description="Processes that import beside the server; 0: it does so in its own threads.",
    )
    job_threads: int = Field(2, ge=1, le=64, description="Jobs that the server works on at once.")
    job_lease: float = Field(
        15.0,
        ge=1,
        description="Seconds after which the job of a dead process is taken over by another.",
    )
    max_queued_jobs: int = Field(
        100, ge=1, description="Jobs that wait for a thread; more are answered 429."
    )
    replan_from: int = Field(
        10_000, ge=2, description="Points of a collection by `auto` when it is first planned."
    )
    replan_growth: float = Field(
        4.0,
        ge=0,
        le=1e6,
        description="By how much it grows before it is planned anew; 0: never by itself.",
    )
    max_finished_jobs: int = Field(
        1_000, ge=1, description="Finished jobs that are kept, with their results."
    )
    max_job_bytes: int = Field(
        8 << 30, ge=1, description="Bytes of vectors that a job may hold in memory."
    )
    max_waiting_requests: int = Field(
        512,
        ge=1,
        description="Queries and writes in progress or waiting; more are answered 429.",
    )
    max_waiting_bytes: int = Field(
        512 << 20,
        ge=1,
        description="Bytes of request bodies held in memory at once; more are answered 429.",
    )
    max_body_bytes: int = Field(64 << 20, ge=1024, description="Bytes of one request body.")
    max_snapshot_bytes: int = Field(1 << 40, ge=1024, description="Bytes of an uploaded snapshot.")
    max_import_bytes: int = Field(1 << 40, ge=1024, description="Bytes of an uploaded import.")
    import_roots: tuple[Path, ...] = Field(
        (), description="Directories under which files may be imported by their path."
    )
    import_urls: tuple[str, ...] = Field(
        (), description="URLs of object storage under which files may be imported."
    )
    max_points: int = Field(
        10_000, ge=1, description="Points in one upsert, ids in one get or delete."
    )
    max_queries: int = Field(1_000, ge=1, description="Queries in one batch.")
    max_limit: int = Field(1_000, ge=1, description="Largest `limit` of a query.")
    max_id_bytes: int = Field(512, ge=1, description="UTF-8 bytes of an id which is a string.")
    max_payload_bytes: int = Field(
        64 << 10, ge=2, description="Bytes of one payload as compact JSON."
    )
    max_dim: int = Field(65_536, ge=1, description="Dimension of a vector collection.")
    max_set_elements: int = Field(
        1_000_000, ge=1, description="Distinct elements of one set, also of one made from text."
    )

    @field_validator("import_roots", mode="before")
    @classmethod
    def _split(cls, given: Any) -> Any:
        """In the environment as paths are there: with a colon between two."""
        return tuple(filter(None, given.split(os.pathsep))) if isinstance(given, str) else given

    @field_validator("import_urls", mode="before")
    @classmethod
    def _split_urls(cls, given: Any) -> Any:
        """In the environment with a space between two."""
        return tuple(given.split()) if isinstance(given, str) else given

    @field_validator("import_urls")
    @classmethod
    def _are_remote(cls, given: tuple[str, ...]) -> tuple[str, ...]:
        for url in given:
            protocol, _, place = url.partition("://")
            if not protocol or not place.strip("/") or "::" in url:
                raise ValueError(f"{url!r} is no URL such as s3://bucket/folder")
            if protocol in ("file", "local"):
                raise ValueError(f"{url!r} is of this machine; use import_roots")
        return given

    @field_validator("replan_growth")
    @classmethod
    def _grows(cls, given: float) -> float:
        """A smaller factor would plan all the time."""
        if 0 < given < MIN_REPLAN_GROWTH:
            raise ValueError(f"must be 0 (never) or at least {MIN_REPLAN_GROWTH:g}")
        return given

    @model_validator(mode="after")
    def _one_api_key(self) -> Settings:
        if self.api_key is not None and self.api_key_file is not None:
            raise ValueError("api_key and api_key_file cannot both be set")
        if self.api_key is not None and not self.api_key.get_secret_value().strip():
            raise ValueError("api_key is empty; leave it out to serve without a key")
        return self

    def read_api_key(self) -> str | None:
        """The API key, from the file if one is named; None if no key is needed.

        Raises SettingsError if the file cannot be read or is empty.
        """
        if self.api_key_file is None:
            return None if self.api_key is None else self.api_key.get_secret_value().strip()
        try:
            lines = self.api_key_file.read_text("utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "not UTF-8 text"
            raise SettingsError(f"api_key_file {self.api_key_file}: {reason}") from error
        if not lines or not lines[0].strip():
            raise SettingsError(f"api_key_file {self.api_key_file} is empty")
        return lines[0].strip()

    @property
    def shards_dir(self) -> Path:
        """Where the sealed segments of the collections lie."""
        return self.data_dir / "shards"

    @property
    def query_thread_count(self) -> int:
        """`query_threads`, with 0 resolved."""
        return self.query_threads or max(2, os.cpu_count() or 1)


def load_settings(config: Path | None = None, **flags: Any) -> Settings:
    """Settings from flags (None means not given), environment and TOML file, in that order.

    Raises SettingsError which names each wrong setting and where a file cannot be read.
    """
    named = config or os.environ.get(ENV_PREFIX + "CONFIG")
    given = {name: value for name, value in flags.items() if value is not None}
    try:
        values = tomllib.loads(Path(named).read_text("utf-8")) if named else {}
        return Settings(**(values | _environment() | given))
    except ValidationError as error:
        raise SettingsError(_explain(error)) from error
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{named}: not TOML: {error}") from error
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise SettingsError(f"{named}: {reason}") from error


def environment_without_settings() -> dict[str, str]:
    """The environment for a process of ours that is not to take this one's settings."""
    return {name: v for name, v in os.environ.items() if not name.startswith(ENV_PREFIX)}


def worker_environment(settings: Settings) -> dict[str, str]:
    """The environment for a worker process: it takes all settings of its server but the key."""
    own = {
        ENV_PREFIX + name.upper(): _SEPARATORS[name].join(map(str, value))
        if isinstance(value, tuple)
        else str(value)
        for name, value in settings.model_dump().items()
        if value is not None and name not in ("api_key", "api_key_file")
    }
    return environment_without_settings() | own


def _environment() -> dict[str, str]:
    """Settings that the environment has; an empty variable is none."""
    found = {}
    for name, value in os.environ.items():
        setting = name.removeprefix(ENV_PREFIX).lower()
        if name.startswith(ENV_PREFIX) and value and setting in Settings.model_fields:
            found[setting] = value
    return found


def _explain(error: ValidationError) -> str:
    """One line for each wrong setting. The value is left out: it may be a secret."""
    faults = []
    for fault in error.errors(include_url=False, include_input=False):
        name = ".".join(str(part) for part in fault["loc"])
        message = fault["msg"].removeprefix("Value error, ")
        if fault["type"] == "extra_forbidden":
            message = "there is no such setting"
        faults.append(f"{name}: {message}" if name else message)
    return "; ".join(faults)
