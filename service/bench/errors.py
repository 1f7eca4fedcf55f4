"""Why a benchmark cannot be run as it was asked for."""

from __future__ import annotations


class BenchError(Exception):
    """One line for the user: what is wrong and what is possible instead."""
