"""Plain text, one point a line: lists of URLs, of titles, of SMILES."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from .points import PointBatch, Row, collect
from .report import Report, excerpt
from .source import Source

_SCHEME = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]*://")


def after_scheme(url: str) -> str:
    """A URL without `https://` and the like, which says nothing about how near two URLs are."""
    return _SCHEME.sub("", url, count=1)


@dataclass(frozen=True, slots=True)
class Lines:
    """Each line is the `text` of a point, its number (1-based) the id. Blank lines are left out.

    With `urls`, the text is what follows the scheme, and the payload `{"url": <the line>}`.
    A line that is not UTF-8 is a bad row.
    """

    name: ClassVar[str] = "lines"
    extensions: ClassVar[tuple[str, ...]] = ("txt", "text", "lst", "list", "urls", "smi", "smiles")

    urls: bool = False

    def recognises(self, head: bytes) -> bool:  # noqa: ARG002
        """Never: any text is lines, so only a name or the caller can say it."""
        return False

    def refusal(self, head: bytes) -> str | None:
        """A reason if the head is binary."""
        return "holds bytes that no text has" if b"\0" in head else None

    def batches(self, source: Source, report: Report, size: int) -> Iterator[PointBatch]:
        """The lines that are not blank."""
        return collect(self._rows(source, report), "text", report, size, given_ids=False)

    def _rows(self, source: Source, report: Report) -> Iterator[Row]:
        for number, raw in source.lines():
            if raw is None:
                report.reject(number, f"is longer than {source.limits.record} bytes")
                continue
            try:
                line = raw.decode("utf-8").strip()
            except UnicodeDecodeError:
                report.reject(number, f"is not UTF-8: {excerpt(raw.decode('latin-1'))}")
                continue
            if not line:
                continue
            if self.urls:
                yield Row(number, number, after_scheme(line), {"url": line})
            else:
                yield Row(number, number, line, None)
