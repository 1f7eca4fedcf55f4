"""Sphinx configuration of these pages; `make docs` adds the API reference, which pdoc makes."""

import tomllib
from pathlib import Path

_project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]

project = "closeby"
author = "The closeby developers"
copyright = author  # noqa: A001
release = _project["version"]

extensions = ["myst_parser"]
html_theme = "furo"
html_title = f"closeby {release}"

# Heading anchors, as the pages link to each other's chapters on a code host, too.
myst_heading_anchors = 4
suppress_warnings = [
    # Results, examples and the README lie outside this folder.
    "myst.xref_missing",
    # The pages show requests without the protocol's version.
    "misc.highlighting_failure",
]
