"""The library's front: what it offers, and what it imports for it."""

import subprocess
import sys

import closeby.index
import pytest


def test_every_name_that_is_offered_is_there_and_listed() -> None:
    for name in closeby.index.__all__:
        assert getattr(closeby.index, name) is not None
        assert name in dir(closeby.index)
    with pytest.raises(AttributeError, match="FlingIndex"):
        closeby.index.FlingIndex  # noqa: B018


def test_exceptions_are_imported_without_engines() -> None:
    code = (
        "import sys, closeby.index.errors\n"
        "sys.exit('numpy' in sys.modules or 'closeby.index.flinng' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
