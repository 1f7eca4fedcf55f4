"""The measured part of docs/benchmarks.md, written anew from the result files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from . import report

BEGIN, END = "<!-- measured: written by python -m benchmarks page -->", "<!-- end of measured -->"


def write(page: Path, results: Path) -> None:
    """Replace what stands between the two marks of `page` by tables and pictures of `results`.

    Raises:
        ValueError: the page lacks the marks.
    """
    link = Path("..") / results.resolve().relative_to(page.resolve().parents[1])
    compared, others = [], []
    for path in sorted(results.glob("*.json")):
        result = json.loads(path.read_text())
        if "subjects" in result:
            compared.append((result["dataset"]["metric"] != "jaccard", path.stem, result))
        elif path.stem.startswith(("scale-", "stages-")):
            others.append(path.stem)
    parts = [_compared(result, f"{link}/{stem}") for _, stem, result in sorted(compared, key=str)]
    parts += [_other(results / f"{stem}.md", f"{link}/{stem}") for stem in others]
    put(page, BEGIN, END, "\n\n".join(parts))


def put(page: Path, begin: str, end: str, body: str) -> None:
    """Replace what stands between two marks of `page`. Raises ValueError if it lacks them."""
    before, mark, rest = page.read_text().partition(begin)
    _, found, after = rest.partition(end)
    if not mark or not found:
        raise ValueError(f"{page} lacks the marks {begin} and {end}")
    page.write_text(f"{before}{begin}\n\n{body}\n\n{end}{after}")


def _compared(result: dict[str, Any], link: str) -> str:
    data, machine = result["dataset"], result["machine"]
    lines = [
        f"### {data['name']}: {data['points']:,} points",
        "",
        f"{data['what']}. {machine['cpu']}, commit {machine['commit']}, {machine['date']}. "
        f"[All settings]({link}.md), [raw]({link}.json).",
        "",
        *report.summary(result),
        "",
        f"![recall against time]({link}-recall.png)",
        "",
        f"[Memory]({link}-memory.png), [build time]({link}-build.png).",
    ]
    return "\n".join(lines)


def _other(table: Path, link: str) -> str:
    title, _, body = table.read_text().strip().partition("\n")
    picture = f"\n\n![growth]({link}.png)" if table.with_suffix(".png").exists() else ""
    return f"##{title}\n{body}{picture}"
