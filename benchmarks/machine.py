"""What a result was measured on: machine, versions, commit of the sources."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from closeby.index import _native
from closeby.service.bench import machine

PACKAGES = (
    "closeby", "numpy", "faiss-cpu", "nmslib", "datasketch", "rensa", "hnswlib", "scann", "copt",
    "matplotlib",
)  # fmt: skip


def describe() -> dict[str, Any]:
    """Machine, software and state of the sources, for the head of a result file."""
    here = {"instruction_set": _native.instruction_set(), "commit": _commit()}
    return machine.describe(PACKAGES) | here


def _commit() -> str:
    root = str(Path(__file__).parent)
    head = machine.lines_of("git", r"(\w{12})", "-C", root, "rev-parse", "--short=12", "HEAD")
    status = ("status", "--porcelain", "../index", "../csrc")
    changed = machine.lines_of("git", r"(.+)", "-C", root, *status)
    return (head[0] + (" with changes" if changed else "")) if head else "unknown"
