"""What users can set, call or meet is documented, and what is documented is true."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from closeby.service.app import create_app
from closeby.service.cli import app as command
from closeby.service.problem import PROBLEMS
from closeby.service.settings import Settings

DOCS = Path(__file__).parents[1] / "docs"
HTTP = (DOCS / "http.md").read_text("utf-8")
SETTINGS = (DOCS / "settings.md").read_text("utf-8")
BLOCK = re.compile(r"```http\n(.*?)\n```", re.DOTALL)
VARIES = "…"


def test_every_setting_is_documented_with_its_default() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*?) \|", SETTINGS, re.MULTILINE))
    assert {*rows} == {*Settings.model_fields}
    for name, field in Settings.model_fields.items():
        default = field.default
        shown = rows[name].strip("`")
        if default is None:
            assert shown == "none", name
        elif isinstance(default, float):
            assert float(shown) == default, name
        else:
            assert shown == str(default), name


def test_every_endpoint_is_documented() -> None:
    documented = {*re.findall(r"^### (GET|PUT|POST|DELETE) (\S+)$", HTTP, re.MULTILINE)}
    paths = create_app(Settings()).openapi()["paths"]
    served = {(method.upper(), path) for path, item in paths.items() for method in item}
    assert documented == served


def test_every_error_code_is_documented_with_its_status() -> None:
    section = HTTP.split("## Errors", 1)[1]
    documented = dict(re.findall(r"^### (\w+)\n\n(\d{3})\. ", section, re.MULTILINE))
    assert documented == {code: str(problem.status) for code, problem in PROBLEMS.items()}


def test_every_command_and_flag_is_documented() -> None:
    group = typer.main.get_command(command)
    assert isinstance(group, typer.core.TyperGroup)
    for name in group.commands:
        assert f"| `closeby {name}` |" in SETTINGS
    for parameter in group.commands["serve"].params:
        for flag in parameter.opts:
            assert f"`{flag}`" in SETTINGS


def exchanges() -> Iterator[tuple[str, str, Any, int, Any]]:
    """Method, path, body, status and answer of each example, in the order of the page."""
    blocks = BLOCK.findall(HTTP)
    assert len(blocks) % 2 == 0
    for request, answer in zip(blocks[::2], blocks[1::2], strict=True):
        line, _, body = request.partition("\n\n")
        method, path = line.split()
        status, _, shown = answer.partition("\n\n")
        yield method, path, json.loads(body) if body else None, int(status), json.loads(shown)


def check_alike(shown: Any, real: Any, at: str) -> None:
    if shown == VARIES:
        return
    if isinstance(shown, dict) and isinstance(real, dict):
        assert {*shown} == {*real}, at
        for key, value in shown.items():
            check_alike(value, real[key], f"{at}.{key}")
    elif isinstance(shown, list) and isinstance(real, list):
        assert len(shown) == len(real), at
        for i, (one, other) in enumerate(zip(shown, real, strict=True)):
            check_alike(one, other, f"{at}[{i}]")
    else:
        assert shown == real, at


def test_the_examples_of_the_page_are_what_a_server_answers(tmp_path: Path) -> None:
    found = [*exchanges()]
    assert len(found) >= 10
    with starting(tmp_path) as client:
        for method, path, body, status, shown in found:
            answer = client.request(method, path, json=body)
            assert answer.status_code == status, (method, path, answer.text)
            check_alike(shown, answer.json(), f"{method} {path}")


def starting(folder: Path) -> Any:
    testclient = pytest.importorskip("starlette.testclient")
    return testclient.TestClient(create_app(Settings(data_dir=folder)))


def test_links_lead_somewhere() -> None:
    for page in DOCS.glob("*.md"):
        for target in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", page.read_text("utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
