"""The command line: `closeby serve | worker | import | dedup | bench | demo | …`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

# A command imports what it needs when it runs: `--help` and `serve` should not wait for the rest.
import typer

from .cluster.command import cluster

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

# Options that several commands have.
_Url = Annotated[str, typer.Option(help="Of the server.")]
_ApiKeyFile = Annotated[
    Path | None, typer.Option(help="File whose first line is the server's API key.")
]
_Unit = Annotated[str, typer.Option(help="byte, char or word.")]
_Shingles = Annotated[
    int | None, typer.Option(help="Compare text by n-grams of so many --unit. [default: 4]")
]
_Words = Annotated[int | None, typer.Option(help="Compare text by n-grams of so many words.")]
_Kmers = Annotated[
    int | None, typer.Option(help="Compare sequences by canonical k-mers. [default: 16]")
]
_Format = Annotated[str | None, typer.Option(help="Of the file. [default: by name and content]")]
_Columns = Annotated[
    str | None, typer.Option(help='Options of the format as JSON: \'{"column": "body"}\'.')
]


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
    workers: Annotated[
        int | None, typer.Option(help="Processes that import beside the server. [default: 0]")
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
    from .errors import StartupError
    from .launch import launch
    from .settings import load_settings

    try:
        settings = load_settings(
            config,
            host=host,
            port=port,
            data_dir=data_dir,
            read_only=read_only,
            workers=workers,
            api_key_file=api_key_file,
            log_level=log_level,
            log_format=log_format,
        )
        started = launch(settings)
    except StartupError as error:
        typer.echo(f"closeby: {error.detail}", err=True)
        raise typer.Exit(1) from None
    if not started:
        raise typer.Exit(1)


@app.command()
def worker(
    data_dir: Annotated[
        Path | None, typer.Option(help="That of the server. [default: ./closeby-data]")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="TOML file with any of the settings of docs/settings.md.")
    ] = None,
    log_level: Annotated[
        str | None, typer.Option(help="debug, info, warning or error. [default: info]")
    ] = None,
    log_format: Annotated[str | None, typer.Option(help="json or text. [default: json]")] = None,
    with_parent: Annotated[
        bool, typer.Option("--with-parent", help="End when standard input does.", hidden=True)
    ] = False,
) -> None:
    """Do the imports of a server in another process, until SIGTERM or Ctrl-C.

    `closeby serve --workers N` starts N of them; this is for more of them, or with other settings.
    It needs the server's data directory, on the same machine.

    For example:

      closeby worker --data-dir /var/lib/closeby
    """
    from .errors import StartupError
    from .settings import load_settings
    from .worker import run_worker

    try:
        settings = load_settings(
            config, data_dir=data_dir, log_level=log_level, log_format=log_format
        )
        run_worker(settings, with_parent=with_parent)
    except StartupError as error:
        typer.echo(f"closeby: {error.detail}", err=True)
        raise typer.Exit(1) from None


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
    from .demo import run_demo

    raise typer.Exit(run_demo(output, queries))


@app.command()
def dedup(
    source: Annotated[
        Path,
        typer.Argument(metavar="IN", help="Text by line, JSONL, CSV, FASTA, Parquet and more."),
    ],
    output: Annotated[Path, typer.Argument(metavar="OUT", help="Where the kept records go.")],
    threshold: Annotated[
        float, typer.Option(help="Least similarity of near-duplicates, above 0, at most 1.")
    ],
    pairs: Annotated[
        Path | None,
        typer.Option(help='Also write all pairs there, {"a": id, "b": id, "score": s} a line.'),
    ] = None,
    shingles: _Shingles = None,
    unit: _Unit = "byte",
    words: _Words = None,
    kmers: _Kmers = None,
    field: Annotated[
        str | None, typer.Option(help="Field of JSONL to compare, e.g. text. [default: found]")
    ] = None,
    format: _Format = None,  # noqa: A002
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

    Needs no server. Kept records of lines, JSONL, FASTA, FASTQ and LIBSVM are byte for byte as they
    were; those of other formats come out as JSONL. See docs/dedup.md.

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


@app.command()
def bench(
    file: Annotated[
        Path | None, typer.Argument(help="Text by line, JSONL, CSV, FASTA, npy and more; .gz too.")
    ] = None,
    output: Annotated[
        Path, typer.Option(help="Directory of the results; a run that was stopped goes on there.")
    ] = Path("closeby-bench"),
    collection: Annotated[
        str | None, typer.Option(help="Instead of FILE: a collection of the server at --url.")
    ] = None,
    url: _Url = "http://127.0.0.1:8080",
    time_limit: Annotated[
        float | None, typer.Option(min=1, help="Seconds; what does not fit is left out, and named.")
    ] = None,
    engines: Annotated[
        str | None, typer.Option(help="flinng,hnsw,… [default: all that fit the metric]")
    ] = None,
    target_recall: Annotated[
        float, typer.Option(help="Recall to find the fastest engine for.")
    ] = 0.95,
    threshold: Annotated[
        float | None, typer.Option(help="Least similarity that is near. [default: .5, cosine .8]")
    ] = None,
    queries: Annotated[
        int, typer.Option(min=1, help="Rows held out to be asked for, at most a fifth.")
    ] = 1000,
    limit: Annotated[int | None, typer.Option(help="Take the first so many points.")] = None,
    metric: Annotated[
        str | None, typer.Option(help="jaccard, cosine or ip. [default: found]")
    ] = None,
    shingles: _Shingles = None,
    unit: _Unit = "byte",
    words: _Words = None,
    kmers: _Kmers = None,
    format: _Format = None,  # noqa: A002
    columns: _Columns = None,
    seed: Annotated[int, typer.Option(min=0, help="Of queries and hashes.")] = 0,
    api_key_file: _ApiKeyFile = None,
) -> None:
    """Measure every engine on your own data: which is fastest at the recall you need?

    Some rows are held out and asked for; answers are held against exact search. Writes report.html
    (one page, pictures within), report.md, results.csv and PNG files, and prints what to take.
    Every engine is measured once before any is measured more closely, so a short --time-limit
    leaves a useful report; the same command with more time goes on. See docs/bench.md.

    For example:

      closeby bench urls.txt.gz --output bench-urls --time-limit 300

      closeby bench embeddings.npy --metric cosine --engines flinng,hnsw,ivf --target-recall .98

      closeby bench --collection urls --url http://10.0.0.5:8080 --output bench-urls
    """
    from .bench.command import BenchFlags, run_bench

    flags = BenchFlags(
        file=file,
        collection=collection,
        url=url,
        output=output,
        time_limit=time_limit,
        metric=metric,
        shingles=shingles,
        unit=unit,
        words=words,
        kmers=kmers,
        format=format,
        columns=columns,
        engines=engines,
        queries=queries,
        limit=limit,
        threshold=threshold,
        target_recall=target_recall,
        seed=seed,
        api_key_file=api_key_file,
    )
    raise typer.Exit(run_bench(flags))


@app.command(name="import")
def import_file(
    collection: Annotated[str, typer.Argument(help="Made if there is none of that name.")],
    file: Annotated[
        Path,
        typer.Argument(help="Text by line, JSONL, CSV, FASTA, npy and more; .gz, .xz, .zst too."),
    ],
    url: _Url = "http://127.0.0.1:8080",
    metric: Annotated[
        str | None,
        typer.Option(help="Of a new collection: jaccard, cosine or ip. [default: found]"),
    ] = None,
    shingles: Annotated[
        int | None, typer.Option(help="A new collection of text, by n-grams of so many --unit.")
    ] = None,
    unit: _Unit = "byte",
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
    store: Annotated[
        str | None, typer.Option(help="Of a new collection: features, or none for hashes alone.")
    ] = None,
    format: _Format = None,  # noqa: A002
    columns: _Columns = None,
    on_error: Annotated[str, typer.Option(help="A bad row: skip or stop.")] = "skip",
    on_duplicate: Annotated[
        str | None, typer.Option(help="Near-duplicates: keep, link, skip or reject.")
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(
            "--duplicate-threshold", "--threshold", help="Least similarity of near-duplicates."
        ),
    ] = None,
    id_prefix: Annotated[
        str | None, typer.Option(help="Put before each id; keeps rows of several files apart.")
    ] = None,
    on_server: Annotated[
        bool, typer.Option("--on-server", help="FILE is one of the server's import_roots.")
    ] = False,
    wait: Annotated[
        bool, typer.Option("--wait", help="Until it is done, with a progress bar.")
    ] = False,
    api_key_file: _ApiKeyFile = None,
) -> None:
    """Import a file into a collection of a server.

    The collection is made if it does not exist, with features that suit the file unless flags say
    others. Without --wait the id of the job is printed, and the import goes on.

    For example:

      closeby import urls urls.txt.gz --wait

      closeby import genomes genomes.fasta --kmers 21 --wait --url http://10.0.0.5:8080

      closeby import images embeddings.npy --metric cosine

      closeby import texts texts.jsonl.gz --on-duplicate skip --duplicate-threshold .8 --wait
    """
    from .import_command import ImportFlags, run_import_command

    options = {
        "format": format,
        "columns": columns,
        "on_error": on_error,
        "on_duplicate": on_duplicate,
        "threshold": threshold,
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
        store=store,
        wait=wait,
        on_server=on_server,
        options=options,
    )
    raise typer.Exit(run_import_command(collection, file, flags))


app.add_typer(cluster, name="cluster")


@app.command()
def select(
    collection: Annotated[str, typer.Argument(help="Name of the collection.")],
    m: Annotated[int, typer.Argument(metavar="M", help="Points to choose.", min=1)],
    url: _Url = "http://127.0.0.1:8080",
    output: Annotated[
        Path | None, typer.Option(help="Where the rows go. [default: standard output]")
    ] = None,
    target: Annotated[
        Path | None, typer.Option(help="Mean to approach: .npy or a JSON list. [default: of all]")
    ] = None,
    matching: Annotated[
        str | None, typer.Option("--filter", help='Only such payloads, as JSON: {"lang": "en"}.')
    ] = None,
    exclude: Annotated[
        Path | None, typer.Option(help="File of ids not to choose, JSON or earlier rows by line.")
    ] = None,
    repeat: Annotated[
        bool, typer.Option("--repeat", help="Points may be chosen more than once.")
    ] = False,
    oracle: Annotated[str, typer.Option(help="auto, exact or index.")] = "auto",
    criterion: Annotated[str, typer.Option(help="greedy or inner.")] = "greedy",
    seed: Annotated[int, typer.Option(help="Of all that is random.")] = 0,
    api_key_file: _ApiKeyFile = None,
) -> None:
    """Choose points that represent a collection of a server, a coreset.

    Writes a JSON row for each, in the order of choice: id, weight, discrepancy, and the discrepancy
    of as many random points.

    For example:

      closeby select images 1000 --output coreset.jsonl

      closeby select articles 50 --filter '{"lang": "en"}' --exclude coreset.jsonl
    """
    from .optimize_command import OptimizeFlags, run_select_command

    flags = OptimizeFlags(url, api_key_file, output, matching, exclude)
    options = {"unique": not repeat, "oracle": oracle, "criterion": criterion, "seed": seed}
    raise typer.Exit(run_select_command(collection, m, target, flags, options))


@app.command()
def frank_wolfe(
    collection: Annotated[str, typer.Argument(help="Name of the collection.")],
    target: Annotated[Path, typer.Argument(help="The vector to approximate: .npy or a JSON list.")],
    url: _Url = "http://127.0.0.1:8080",
    output: Annotated[
        Path | None, typer.Option(help="Where the rows go. [default: standard output]")
    ] = None,
    signed: Annotated[
        bool, typer.Option("--signed", help="Weights of either sign (an l1 ball).")
    ] = False,
    radius: Annotated[float, typer.Option(help="What the weights add up to.")] = 1.0,
    variant: Annotated[str, typer.Option(help="bpcg, pairwise or fw.")] = "bpcg",
    max_iter: Annotated[int, typer.Option(min=1, help="Most steps.")] = 1_000,
    tol: Annotated[float, typer.Option(help="Gap to stop at.")] = 1e-6,
    certify: Annotated[str, typer.Option(help="never, final or always.")] = "final",
    matching: Annotated[
        str | None, typer.Option("--filter", help='Only such payloads, as JSON: {"lang": "en"}.')
    ] = None,
    exclude: Annotated[
        Path | None, typer.Option(help="File of ids to leave out, JSON or earlier rows by line.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of all that is random.")] = 0,
    api_key_file: _ApiKeyFile = None,
) -> None:
    """Approximate a vector by a combination of few points of a collection of a server.

    Writes a JSON row for each point with weight, heaviest first: id, weight.

    For example:

      closeby frank-wolfe images target.npy --output parts.jsonl

      closeby frank-wolfe words target.json --signed --radius 3 --tol 1e-4
    """
    from .optimize_command import OptimizeFlags, run_frank_wolfe_command

    flags = OptimizeFlags(url, api_key_file, output, matching, exclude)
    options = {
        "signed": signed,
        "radius": radius,
        "variant": variant,
        "max_iter": max_iter,
        "tol": tol,
        "certify": certify,
        "seed": seed,
    }
    raise typer.Exit(run_frank_wolfe_command(collection, target, flags, options))


@app.command()
def version() -> None:
    """Print the version.

    For example:

      closeby version
    """
    from .version import closeby_version

    typer.echo(closeby_version())


def main() -> None:
    """Entry point of the `closeby` command."""
    app()
