"""What a result was measured on: machine, versions, commit."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from closeby.index import _native

PACKAGES = (
    "closeby", "numpy", "faiss-cpu", "nmslib", "datasketch", "rensa", "hnswlib", "matplotlib",
)  # fmt: skip


def describe() -> dict[str, Any]:
    """Machine, software and state of the sources, for the head of a result file."""
    return {
        "cpu": _first("/proc/cpuinfo", r"model name\s*: (.+)") or platform.processor(),
        "cores": os.cpu_count(),
        "caches": _run("lscpu", r"(L[123][di]? cache:.+)"),
        "ram_gib": round(int(_first("/proc/meminfo", r"MemTotal:\s+(\d+)") or 0) / 2**20, 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "compiler": (_run("c++", r"(.+)", "--version") or ["unknown"])[0],
        "instruction_set": _native.instruction_set(),
        "packages": {name: _version(name) for name in PACKAGES},
        "commit": _commit(),
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "load_average": round(os.getloadavg()[0], 2),
    }


def _first(path: str, pattern: str) -> str | None:
    try:
        match = re.search(pattern, Path(path).read_text())
    except OSError:
        return None
    return match[1].strip() if match else None


def _run(command: str, pattern: str, *arguments: str) -> list[str]:
    try:
        output = subprocess.run([command, *arguments], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return []
    return [re.sub(r"\s+", " ", line) for line in re.findall(pattern, output.stdout)]


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _commit() -> str:
    root = str(Path(__file__).parent)
    head = _run("git", r"(\w{12})", "-C", root, "rev-parse", "--short=12", "HEAD")
    changed = _run("git", r"(.+)", "-C", root, "status", "--porcelain", "../index", "../csrc")
    return (head[0] + (" with changes" if changed else "")) if head else "unknown"
