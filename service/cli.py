"""The command line: `closeby serve | import | dedup | demo | version`."""

from __future__ import annotations

import asyncio
import signal
import socket
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer
import uvicorn

from .app import closeby_version, create_app
from .deployment import Deployment
from .errors import AddressInUseError, StartupError
from .settings import Settings, load_settings
from .telemetry import configure_logging

__all__ = ["app", "main"]

app = typer.Typer(
    name="closeby",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="""Near-neighbour search for sets, sequences, text and vectors at high similarity.

    Start here:

      closeby demo                       near-duplicate URLs and related genes, in a minute

      closeby serve --data-dir ./data    a server on http://127.0.0.1:8080 ; see /docs there
    """,
)


@app.command()
def serve(
    host: Annotated[
        str | None, typer.Option(help="Address to listen on. [default: 127.0.0.1]")
    ] = None,
    port: Annotated[
        int | None, typer.Option(help="Port; 0 takes a free one and prints it. [default: 8080]")
    ] = None,
    data_dir: Annotated[
        Path | None,
        typer.Option(help="Where the points are kept; made if missing. [default: ./closeby-data]"),
    ] = None,
    read_only: Annotated[
        bool | None,
        typer.Option(
            "--read-only", help="Follow another server of this data directory; refuse writes."
        ),
    ] = None,
    api_key_file: Annotated[
        Path | None, typer.Option(help="File whose first line every request must show as its key.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="TOML file with any of the settings of docs/settings.md.")
    ] = None,
    log_level: Annotated[
        str | None, typer.Option(help="debug, info, warning or error. [default: info]")
    ] = None,
    log_format: Annotated[str | None, typer.Option(help="json or text. [default: json]")] = None,
) -> None:
    """Serve collections over HTTP until SIGTERM or Ctrl-C.

    Prints one line with the URL when it listens; logs go to stderr. A flag wins over the
    environment (CLOSEBY_PORT, CLOSEBY_DATA_DIR, …), which wins over the --config file.

    For example:

      closeby serve

      closeby serve --port 0 --data-dir /var/lib/closeby --log-format text

      CLOSEBY_API_KEY=secret closeby serve --host 0.0.0.0
    """
    try:
        settings = load_settings(
            config,
            host=host,
            port=port,
            data_dir=data_dir,
            read_only=read_only,
            api_key_file=api_key_file,
            log_level=log_level,
            log_format=log_format,
        )
        configure_logging(settings.log_level, settings.log_format)
        listener = _listen(settings.host, settings.port)
        try:
            deployment = Deployment(settings)
        except BaseException:
            listener.close()
            raise
    except StartupError as error:
        _fail(error)
    _run(settings, deployment, listener)


@app.command()
def demo(
    output: Annotated[
        Path | None, typer.Option(help="Also write the tables and numbers into this directory.")
    ] = None,
    queries: Annotated[
        int, typer.Option(min=1, help="Queries over which recall is measured.")
    ] = 500,
) -> None:
    """Find near-duplicate URLs and related genes over HTTP, with shipped data.

    Starts a server of its own on a free port, and leaves nothing running.

    For example:

      closeby demo

      closeby demo --queries 100 --output ./demo-results
    """
    # Only the demo needs loaders, client and baselines; `serve` starts without them.
    from .demo import run_demo

    raise typer.Exit(run_demo(output, queries))


@app.command()
def dedup(
    source: Annotated[
        Path, typer.Argument(metavar="IN", help="Text by line, JSONL, FASTA or FASTQ.")
    ],
    output: Annotated[Path, typer.Argument(metavar="OUT", help="Where the kept records go.")],
    threshold: Annotated[
        float, typer.Option(help="Least similarity of near-duplicates, above 0, at most 1.")
    ],
    pairs: Annotated[
        Path | None,
        typer.Option(help='Also write all pairs there, {"a": id, "b": id, "score": s} a line.'),
    ] = None,
    shingles: Annotated[
        int | None, typer.Option(help="Compare text by n-grams of so many --unit. [default: 4]")
    ] = None,
    unit: Annotated[str, typer.Option(help="byte, char or word.")] = "byte",
    words: Annotated[
        int | None, typer.Option(help="Compare text by n-grams of so many words.")
    ] = None,
    kmers: Annotated[
        int | None, typer.Option(help="Compare sequences by canonical k-mers. [default: 16]")
    ] = None,
    field: Annotated[
        str | None, typer.Option(help="Field of JSONL to compare, e.g. text. [default: found]")
    ] = None,
    format: Annotated[  # noqa: A002
        str | None, typer.Option(help="lines, jsonl or fasta. [default: by name and content]")
    ] = None,
    keep: Annotated[
        str, typer.Option(help="Of each cluster: first, last, longest or shortest.")
    ] = "first",
    target_recall: Annotated[
        float, typer.Option(help="Share of the pairs at the threshold to be found.")
    ] = 0.995,
    on_error: Annotated[str, typer.Option(help="A bad record: skip or stop.")] = "skip",
    threads: Annotated[int, typer.Option(min=1, help="Threads.")] = 1,
    seed: Annotated[int, typer.Option(help="Of the hashes.")] = 0,
) -> None:
    """Keep one of each cluster of near-duplicates in a file.

    Needs no server. Kept records are byte for byte as they were; see docs/dedup.md.

    For example:

      closeby dedup urls.txt unique.txt --threshold .8

      closeby dedup in.jsonl out.jsonl --threshold .8 --pairs pairs.jsonl --field text --words 3

      closeby dedup genes.fasta.gz out.fasta.gz --threshold .9 --kmers 21 --keep longest
    """
    from .dedup_command import run_dedup

    raise typer.Exit(
        run_dedup(
            source,
            output,
            pairs,
            threshold=threshold,
            shingles=shingles,
            unit=unit,
            words=words,
            kmers=kmers,
            field=field,
            format=format,
            keep=keep,
            target_recall=target_recall,
            on_error=on_error,
            threads=threads,
            seed=seed,
        )
    )


@app.command(name="import")
def import_file(
    collection: Annotated[str, typer.Argument(help="Made if there is none of that name.")],
    file: Annotated[
        Path, typer.Argument(help="Text by line, JSONL, CSV, FASTA, npy and more; .gz, .xz too.")
    ],
    url: Annotated[str, typer.Option(help="Of the server.")] = "http://127.0.0.1:8080",
    metric: Annotated[
        str | None,
        typer.Option(help="Of a new collection: jaccard, cosine or ip. [default: found]"),
    ] = None,
    shingles: Annotated[
        int | None, typer.Option(help="A new collection of text, by n-grams of so many --unit.")
    ] = None,
    unit: Annotated[str, typer.Option(help="byte, char or word.")] = "byte",
    words: Annotated[
        int | None, typer.Option(help="A new collection of text, by n-grams of so many words.")
    ] = None,
    kmers: Annotated[
        int | None, typer.Option(help="A new collection of sequences, by canonical k-mers.")
    ] = None,
    target_recall: Annotated[
        float | None, typer.Option(help="Of a new collection. [default: .95]")
    ] = None,
    collection_threshold: Annotated[
        float | None, typer.Option(help="`threshold` of a new collection. [default: .5, cosine .8]")
    ] = None,
    format: Annotated[  # noqa: A002
        str | None, typer.Option(help="Of the file. [default: by name and content]")
    ] = None,
    columns: Annotated[
        str | None, typer.Option(help='Options of the format as JSON: \'{"column": "body"}\'.')
    ] = None,
    on_error: Annotated[str, typer.Option(help="A bad row: skip or stop.")] = "skip",
    id_prefix: Annotated[
        str | None, typer.Option(help="Put before each id; keeps rows of several files apart.")
    ] = None,
    on_server: Annotated[
        bool, typer.Option("--on-server", help="FILE is one of the server's import_roots.")
    ] = False,
    wait: Annotated[
        bool, typer.Option("--wait", help="Until it is done, with a progress bar.")
    ] = False,
    api_key_file: Annotated[
        Path | None, typer.Option(help="File whose first line is the server's API key.")
    ] = None,
) -> None:
    """Import a file into a collection of a server.

    The collection is made if it does not exist, with features that suit the file unless flags say
    others. Without --wait the id of the job is printed, and the import goes on.

    For example:

      closeby import urls urls.txt.gz --wait

      closeby import genomes genomes.fasta --kmers 21 --wait --url http://10.0.0.5:8080

      closeby import images embeddings.npy --metric cosine
    """
    from .import_command import ImportFlags, run_import_command

    options = {
        "format": format,
        "columns": columns,
        "on_error": on_error,
        "id_prefix": id_prefix,
    }
    flags = ImportFlags(
        url=url,
        api_key_file=api_key_file,
        metric=metric,
        shingles=shingles,
        unit=unit,
        words=words,
        kmers=kmers,
        target_recall=target_recall,
        collection_threshold=collection_threshold,
        wait=wait,
        on_server=on_server,
        options=options,
    )
    raise typer.Exit(run_import_command(collection, file, flags))


@app.command()
def version() -> None:
    """Print the version.

    For example:

      closeby version
    """
    typer.echo(closeby_version())


def main() -> None:
    """Entry point of the `closeby` command."""
    app()


def _fail(error: StartupError) -> None:
    typer.echo(f"closeby: {error.detail}", err=True)
    raise typer.Exit(1)


def _listen(host: str, port: int) -> socket.socket:
    """A bound socket. Raises AddressInUseError with one clear line."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise AddressInUseError(f"cannot listen on {host}: {error.strerror}") from error
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(address)
        listener.listen(2048)
    except OSError as error:
        listener.close()
        raise AddressInUseError(
            f"cannot listen on {host} port {port}: {error.strerror}; another --port, or 0 for a"
            " free one, may do"
        ) from error
    listener.setblocking(False)
    return listener


class _Server(uvicorn.Server):
    """Says where it listens, once it does; ends what has no end of its own when it stops."""

    def __init__(self, config: uvicorn.Config, deployment: Deployment) -> None:
        super().__init__(config)
        self._deployment = deployment

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._deployment.ending.set()
        await super().shutdown(sockets)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started and sockets:
            host, port = sockets[0].getsockname()[:2]
            shown = f"[{host}]" if ":" in host else host
            typer.echo(f"closeby listens on http://{shown}:{port}")


def _run(settings: Settings, deployment: Deployment, listener: socket.socket) -> None:
    config = uvicorn.Config(
        create_app(settings, deployment),
        loop="uvloop",
        http="httptools",
        ws="none",
        lifespan="on",
        access_log=False,
        log_config=None,
        server_header=False,
        timeout_graceful_shutdown=int(max(1, settings.shutdown_timeout)),
    )
    server = _Server(config, deployment)

    def ignore(_signal: int, _frame: FrameType | None) -> None:
        """Uvicorn raises the signal again after it has shut down: a clean stop exits with 0."""

    for stop in (signal.SIGTERM, signal.SIGINT):
        signal.signal(stop, ignore)
    try:
        with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
            runner.run(server.serve(sockets=[listener]))
    finally:
        deployment.close()
    if not server.started:
        raise typer.Exit(1)
