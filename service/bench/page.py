"""report.html: the whole report as one page that needs nothing else."""

from __future__ import annotations

import base64
import re
from html import escape
from pathlib import Path
from typing import Any

from .report import FRONT, Row, advice, facts, main_measure, table

__all__ = ["page"]

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 75rem; margin: 2rem auto; padding: 0 1rem;
       color: #222; }
h1 { font-size: 1.5rem } h2 { font-size: 1.15rem; margin-top: 2rem }
.advice { background: #eef5ee; border-left: 4px solid #3a7d44; padding: .7rem 1rem }
.wide { overflow-x: auto }
table { border-collapse: collapse; font-size: .85rem; font-variant-numeric: tabular-nums }
th, td { padding: .2rem .6rem; text-align: right; border-bottom: 1px solid #ddd }
th:nth-child(2), td:nth-child(2) { text-align: left; white-space: nowrap }
th { position: sticky; top: 0; background: #fff } tr.front { background: #fff8e1 }
img { max-width: 100% } li { margin: .3rem 0 } code { word-break: break-all }
"""


def page(
    run: dict[str, Any], rows: list[Row], left_out: list[str], target: float, pictures: list[Path]
) -> str:
    """The page: advice, pictures, table, conditions, what was left out."""
    head, cells = table(rows)
    heads = "".join(f"<th>{escape(name)}</th>" for name in head)
    body = "\n".join(
        f"<tr{' class=front' if row['pareto'] else ''}>"
        + "".join(f"<td>{escape(cell)}</td>" for cell in shown)
        + "</tr>"
        for row, shown in zip(rows, cells, strict=True)
    )
    images = "\n".join(
        f'<img alt="{path.stem}" src="data:image/png;base64,'
        f'{base64.b64encode(path.read_bytes()).decode()}">'
        for path in pictures
    )
    told = "\n".join(f"<li>{_marked(fact)}</li>" for fact in facts(run))
    missing = "\n".join(f"<li>{escape(line)}</li>" for line in left_out)
    without = f"<h2>Left out</h2>\n<ul>{missing}</ul>" if left_out else ""
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>closeby bench: {escape(run["name"])}</title>
<style>{_STYLE}</style>
</head>
<body>
<h1>closeby bench: {escape(run["name"])}</h1>
<p class="advice">{_marked(advice(rows, target, run["planned"]))}</p>
{images}
<h2>Every measurement</h2>
<p>{FRONT}: no other has more {escape(main_measure(rows))} in less time.</p>
<div class="wide"><table>
<thead><tr>{heads}</tr></thead>
<tbody>
{body}
</tbody></table></div>
<h2>How it was measured</h2>
<ul>{told}</ul>
{without}
</body>
</html>
"""


def _marked(text: str) -> str:
    """The little Markdown of the sentences as HTML."""
    text = escape(text)
    text = re.sub(r"\*\*(.+?)\*\*", r"<b>\1</b>", text)
    text = re.sub(r"`(.+?)`", r"<code>\1</code>", text)
    return re.sub(r"(?<![\w*])\*(.+?)\*(?![\w*])", r"<i>\1</i>", text)
