"""`closeby cluster` at the terminal. Nothing else of closeby is imported before a command runs."""

from __future__ import annotations

import json
import signal
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from .options import ClusterOptions

__all__ = ["cluster"]

FAILED = 1
WRONG_USE = 2

cluster = typer.Typer(
    no_args_is_help=True, help="Several machines: shards on Ray Serve over PostgreSQL."
)

StoreUrl = Annotated[str, typer.Option(help="PostgreSQL: postgresql://user@host/database")]
SegmentsUrl = Annotated[str, typer.Option(help="Sealed segments: s3://bucket/path, file:///path")]
Address = Annotated[
    str | None, typer.Option(help="Of a running Ray cluster. [default: found, or one is started]")
]


@cluster.command()
def up(
    store: StoreUrl,
    segments: SegmentsUrl,
    shards: Annotated[int, typer.Option(help="Of a new cluster.")] = 1,
    ingresses: Annotated[int, typer.Option(help="Processes that take requests.")] = 1,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port.")] = 8080,
    every_node: Annotated[
        bool,
        typer.Option("--every-node", help="Listen on all machines, not on Ray's head alone."),
    ] = False,
    cache: Annotated[
        Path | None, typer.Option(help="On each machine, for files of sealed segments.")
    ] = None,
    shard_cpus: Annotated[float, typer.Option(help="CPUs that Ray counts for a shard.")] = 1.0,
    hedge_percentile: Annotated[
        float | None,
        typer.Option(help="Ask a shard again that is later than so many % of its answers."),
    ] = None,
    api_key_file: Annotated[
        Path | None, typer.Option(help="File whose first line every request must show as its key.")
    ] = None,
    address: Address = None,
) -> None:
    """Start a cluster, or bring a running one up to date, and stay until Ctrl-C.

    The cluster goes on where Ray does; a Ray that this command started ends with it.

    For example:

      closeby cluster up --shards 4 --store postgresql://closeby@db/closeby --segments s3://b/closeby
    """
    serving = _serving()
    options = _options(
        store=store,
        segments=segments,
        shards=shards,
        ingresses=ingresses,
        cache=cache,
        shard_cpus=shard_cpus,
        hedge_percentile=hedge_percentile,
    )
    settings = {} if api_key_file is None else {"api_key_file": str(api_key_file.absolute())}
    from closeby.index.errors import ClosebyError

    try:
        serving.connect(address)
        placement = serving.up(options, settings, host=host, port=port, every_node=every_node)
    except (ClosebyError, ConnectionError, OSError, RuntimeError) as error:
        raise _failed(error) from error
    typer.echo(f"closeby: {len(placement.shards)} shards behind http://{host}:{port}")
    _until_told()


@cluster.command()
def add_shard(
    store: StoreUrl,
    segments: SegmentsUrl,
    cache: Annotated[
        Path | None, typer.Option(help="On each machine, for files of sealed segments.")
    ] = None,
    shard_cpus: Annotated[float, typer.Option(help="CPUs that Ray counts for a shard.")] = 1.0,
    deployed: Annotated[
        bool, typer.Option("--deployed", help="Its application is deployed by other means.")
    ] = False,
    address: Address = None,
) -> None:
    """Add a shard to a running cluster: it takes its share from the others while they serve.

    Call it again if it was cut short: it goes on.

    For example:

      closeby cluster add-shard --store postgresql://closeby@db/closeby --segments s3://b/closeby
    """
    serving = _serving()
    options = _options(store=store, segments=segments, cache=cache, shard_cpus=shard_cpus)
    from closeby.index.errors import ClosebyError

    try:
        serving.connect(address or "auto")
        joined = serving.add_shard(options, deployed=deployed)
    except (ClosebyError, ConnectionError, OSError, RuntimeError, ValueError) as error:
        raise _failed(error) from error
    typer.echo(f"closeby: {joined} has joined")


@cluster.command()
def remove_shard(
    store: StoreUrl,
    segments: SegmentsUrl,
    shard: Annotated[str | None, typer.Argument(help="Its name. [default: the last one]")] = None,
    deployed: Annotated[
        bool, typer.Option("--deployed", help="Its application is taken away by other means.")
    ] = False,
    address: Address = None,
) -> None:
    """Take a shard out of a running cluster: the others take what it has while all serve.

    Call it again if it was cut short: it goes on.

    For example:

      closeby cluster remove-shard --store postgresql://closeby@db/closeby --segments s3://b/closeby
    """
    serving = _serving()
    options = _options(store=store, segments=segments)
    from closeby.index.errors import ClosebyError

    try:
        serving.connect(address or "auto")
        left = serving.remove_shard(options, shard, deployed=deployed)
    except (ClosebyError, ConnectionError, OSError, RuntimeError, ValueError) as error:
        raise _failed(error) from error
    typer.echo(f"closeby: {left} has left")


@cluster.command()
def build(
    collection: Annotated[str, typer.Argument(help="Created before, and empty.")],
    files: Annotated[list[str], typer.Argument(help="Paths that all machines have, or URLs.")],
    store: StoreUrl,
    segments: SegmentsUrl,
    format_: Annotated[
        str | None, typer.Option("--format", help="Of the files. [default: by name and content]")
    ] = None,
    columns: Annotated[
        str | None, typer.Option(help='Options of the format: {"column": "body", "id": "url"}')
    ] = None,
    stop_on_error: Annotated[
        bool, typer.Option("--stop-on-error", help="End at a bad row; else it is left out.")
    ] = False,
    prefix_ids: Annotated[
        bool, typer.Option("--prefix-ids", help="Put the name of its file before each id.")
    ] = False,
    replace: Annotated[
        bool, typer.Option("--replace", help="Delete what the collection holds by then.")
    ] = False,
    address: Address = None,
) -> None:
    """Fill a collection with files at once: tasks on all machines read, hash and seal them.

    The points are there all together at the end, or none of them is. Shards answer meanwhile.

    For example:

      closeby cluster build genes s3://b/a.fasta --store postgresql://c@db/c --segments s3://b/c
    """
    serving = _serving()
    options = _options(store=store, segments=segments)
    from closeby.index.errors import ClosebyError

    given = {
        "format": format_,
        "columns": None if columns is None else _object("--columns", columns),
        "on_error": "stop" if stop_on_error else "skip",
        "prefix_ids": prefix_ids,
    }
    try:
        serving.connect(address or "auto")
        built = serving.build(options, collection, files, replace_points=replace, **given)
    except (ClosebyError, ConnectionError, OSError, RuntimeError, ValueError) as error:
        raise _failed(error) from error
    for why in built.reasons:
        typer.echo(why, err=True)
    typer.echo(
        f"closeby: {collection} has {built.points:,} points in {built.segments} segments"
        f" ({built.replaced:,} came again later, {built.bad:,} bad rows)"
    )


def _object(flag: str, text: str) -> dict[str, Any]:
    """A JSON object that a flag gives."""
    try:
        found = json.loads(text)
    except json.JSONDecodeError:
        found = None
    if not isinstance(found, dict):
        typer.echo(f"closeby: {flag} {text} is no JSON object", err=True)
        raise typer.Exit(WRONG_USE)
    return found


def _serving() -> Any:
    """The module that imports Ray."""
    try:
        from . import serving
    except ModuleNotFoundError as error:
        raise _failed(f"{error}; pip install 'closeby[cluster]'") from error
    return serving


def _options(**given: Any) -> ClusterOptions:
    from pydantic import ValidationError

    from .options import ClusterOptions

    try:
        return ClusterOptions.model_validate(given)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        name = "--" + str(fault["loc"][0]).replace("_", "-")
        typer.echo(f"closeby: {name}: {fault['msg']}", err=True)
        raise typer.Exit(WRONG_USE) from error


def _failed(error: object) -> typer.Exit:
    typer.echo(f"closeby: {error}", err=True)
    return typer.Exit(FAILED)


def _until_told() -> None:
    told = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: told.set())
    told.wait()
