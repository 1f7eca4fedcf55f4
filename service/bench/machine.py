"""What a result was measured on: machine and versions."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any


def describe(packages: Sequence[str]) -> dict[str, Any]:
    """Machine and software, with the versions of these packages, for the head of a result."""
    return {
        "cpu": _first("/proc/cpuinfo", r"model name\s*: (.+)") or platform.processor(),
        "cores": os.cpu_count(),
        "caches": lines_of("lscpu", r"(L[123][di]? cache:.+)"),
        "ram_gib": round(int(_first("/proc/meminfo", r"MemTotal:\s+(\d+)") or 0) / 2**20, 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "compiler": (lines_of("c++", r"(.+)", "--version") or ["unknown"])[0],
        "packages": {name: _version(name) for name in packages},
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "load_average": round(os.getloadavg()[0], 2),
    }


def _first(path: str, pattern: str) -> str | None:
    try:
        match = re.search(pattern, Path(path).read_text())
    except OSError:
        return None
    return match[1].strip() if match else None


def lines_of(command: str, pattern: str, *arguments: str) -> list[str]:
    """What matches in the output of a command; none if it fails or is not there."""
    try:
        output = subprocess.run(  # noqa: S603 (named by the caller's code)
            [command, *arguments], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return []
    return [re.sub(r"\s+", " ", line) for line in re.findall(pattern, output.stdout)]


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
