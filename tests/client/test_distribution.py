"""closeby-client, the distribution: what it declares and what its wheel holds."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import closeby.client
import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "client"

USE = """
import sys, httpx
from closeby.client import Client
answer = {"hits": [{"id": 7, "score": 1.0, "payload": None}], "recall_estimate": 1, "took_ms": 1}
transport = httpx.MockTransport(lambda request: httpx.Response(200, json=answer))
with Client("http://closeby.test", transport=transport) as db:
    print(db.collection("c").query(vector=[0.5, 1.5]).hits[0].id)
assert "numpy" not in sys.modules and "orjson" not in sys.modules
"""


def test_versions_agree() -> None:
    declared = tomllib.loads((SOURCE / "pyproject.toml").read_text())["project"]
    servers = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert declared["version"] == servers["version"] == closeby.client.__version__
    assert [re.split(r"\W", one)[0] for one in declared["dependencies"]] == ["httpx"]


def test_the_licence_is_the_projects() -> None:
    assert (SOURCE / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()


@pytest.mark.slow
def test_the_wheel_works_alone(tmp_path: Path) -> None:
    source = tmp_path / "client"
    shutil.copytree(SOURCE, source, ignore=shutil.ignore_patterns("__pycache__", ".*"))
    # What may lie about in a work tree must not be shipped.
    (source / "notes.txt").write_text("not for shipping")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "wheel", "--no-deps", "-w", str(tmp_path), str(source)], check=True)
    (wheel,) = tmp_path.glob("closeby_client-*-py3-none-any.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        licences = [name for name in archive.namelist() if name.endswith("licenses/LICENSE")]
    modules = {f"closeby/client/{path.name}" for path in SOURCE.glob("*.py")}
    assert names == modules | {"closeby/client/py.typed"}
    assert len(licences) == 1

    environment = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True)
    python = environment / "bin" / "python"
    pip[0] = str(python)
    subprocess.run([*pip, "install", str(wheel)], check=True)
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    used = subprocess.run(
        [str(python), "-W", "error", "-c", USE],
        check=True,
        capture_output=True,
        text=True,
        env=clean,
        cwd=tmp_path,
    )
    assert used.stdout == "7\n"
