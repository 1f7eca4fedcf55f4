"""Write constraints.txt: one exact version of everything that the project and extras resolve to.

The resolution is made for each supported Python, from wheels only, so that a pin without a wheel
for one of them shows itself here: it then gets one line for each Python, with a marker. Names and
versions alone are written, never where they came from.
"""

import json
import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NOT_PINNED = ("peers",)
"""Extras that no check installs."""
PYTHONS = ("3.11", "3.12", "3.13")
# A build asks for these only on a machine that does not have them.
BUILD_TOOLS = ("cmake>=3.20", "ninja>=1.10")
HEADER = f"""\
# Exact versions of everything that the project, its extras and the build resolve to (pip -c).
# Written by `make constraints` (wheels only, Python {", ".join(PYTHONS)}): change the ranges in
# pyproject.toml, then run it again. Names and versions only, so any package index will do.
"""


def requirements() -> list[str]:
    """What the project asks for: the builds', its own, and the extras'."""
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text())
    client = tomllib.loads((ROOT / "client" / "pyproject.toml").read_text())
    project = pyproject["project"]
    extras = project["optional-dependencies"]
    return [
        *pyproject["build-system"]["requires"],
        *client["build-system"]["requires"],
        *client["project"]["dependencies"],
        *project["dependencies"],
        *(wanted for extra, each in extras.items() if extra not in NOT_PINNED for wanted in each),
        *BUILD_TOOLS,
    ]


def resolve(python: str, wanted: list[str]) -> dict[str, str]:
    """Normalised name to version, as pip resolves `wanted` for one Python version."""
    with tempfile.TemporaryDirectory() as scratch:
        report = Path(scratch, "report.json")
        options = ["--dry-run", "--quiet", "--ignore-installed", "--only-binary=:all:"]
        target = ["--python-version", python, "--target", str(Path(scratch, "target"))]
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install"]
        command = [*pip, *options, *target, "--report", str(report), *wanted]
        subprocess.run(command, check=True)  # noqa: S603 (the project's own requirements)
        installed = json.loads(report.read_text())["install"]
    return {
        re.sub(r"[-_.]+", "-", entry["metadata"]["name"]).lower(): entry["metadata"]["version"]
        for entry in installed
    }


def pins(resolved: dict[str, dict[str, str]]) -> list[str]:
    """One line a package, or one a Python where they differ."""
    lines = []
    for name in sorted({name for versions in resolved.values() for name in versions}):
        found = {
            python: versions[name] for python, versions in resolved.items() if name in versions
        }
        if len(found) == len(resolved) and len(set(found.values())) == 1:
            lines.append(f"{name}=={next(iter(found.values()))}")
            continue
        lines += [
            f'{name}=={version} ; python_version == "{python}"' for python, version in found.items()
        ]
    return lines


if __name__ == "__main__":
    wanted = requirements()
    resolved = {python: resolve(python, wanted) for python in PYTHONS}
    (ROOT / "constraints.txt").write_text(HEADER + "\n".join(pins(resolved)) + "\n")
