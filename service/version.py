"""The version of closeby."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

__all__ = ["closeby_version"]


def closeby_version() -> str:
    """The installed version; "unknown" in a tree which was never installed."""
    try:
        return version("closeby")
    except PackageNotFoundError:
        return "unknown"
