"""What is shipped agrees with what is declared: versions, pins, image, wheel."""

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("index", "optimize", "service", "loaders", "client")
FOLDERS = (*ROOMS, "csrc", "docs", "examples", "tests", "docker")
SCRIPTS = (".ci/run", "docker/verify.sh", "tests/native/run_sanitized.sh")


def text_of(path: str) -> str:
    return (ROOT / path).read_text()


def toml_of(path: str) -> dict[str, Any]:
    return tomllib.loads(text_of(path))


def tracked_files() -> list[Path]:
    """Everything under version control that is there, relative to the root."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return [Path(name) for name in listed.split("\0") if name and (ROOT / name).is_file()]


def native_modules() -> list[str]:
    """The compiled modules, by their Cython sources."""
    return [path.stem for path in tracked_files() if path.match("index/*.pyx")]


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    return toml_of("pyproject.toml")["project"]


@pytest.fixture(scope="module")
def pins() -> dict[str, list[Requirement]]:
    """Canonical name to the pins of constraints.txt: several where Pythons differ."""
    found: dict[str, list[Requirement]] = {}
    for line in text_of("constraints.txt").splitlines():
        if line and not line.startswith("#"):
            requirement = Requirement(line)
            found.setdefault(canonicalize_name(requirement.name), []).append(requirement)
    return found


# --- versions -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "pattern"),
    [
        ("client/_version.py", r'(?m)^__version__ = "(.+)"$'),
        ("docker/Dockerfile", r"(?m)^ARG VERSION=(\S+)$"),
        ("docker/compose.yaml", r"(?m)^ +image: closeby:(\S+)$"),
        ("CHANGELOG.md", r"(?m)^## (?:\[)?(\d+\.\d+\.\d+)"),
    ],
)
def test_every_version_is_the_projects(project: dict[str, Any], path: str, pattern: str) -> None:
    assert re.search(pattern, text_of(path)).group(1) == project["version"]  # type: ignore[union-attr]


# --- pins ---------------------------------------------------------------------------------------


def declared_requirements() -> list[str]:
    pyproject = toml_of("pyproject.toml")
    extras = pyproject["project"]["optional-dependencies"]
    client = toml_of("client/pyproject.toml")
    wanted = [*pyproject["build-system"]["requires"], *pyproject["project"]["dependencies"]]
    wanted += [*client["build-system"]["requires"], *client["project"]["dependencies"]]
    return sorted({*wanted, *extras["test"], *extras["lint"]})


def test_pins_are_exact_versions_and_nothing_else(pins: dict[str, list[Requirement]]) -> None:
    for requirements in pins.values():
        for pin in requirements:
            assert pin.url is None
            assert [specifier.operator for specifier in pin.specifier] == ["=="], str(pin)
    for line in text_of("constraints.txt").splitlines():
        assert line.startswith("#") or re.fullmatch(r"[a-z0-9-]+==[\w.+!]+( ; .+)?", line), line


@pytest.mark.parametrize("declared", declared_requirements())
def test_each_declared_requirement_has_a_pin_that_satisfies_it(
    pins: dict[str, list[Requirement]], declared: str
) -> None:
    wanted = Requirement(declared)
    held = pins.get(canonicalize_name(wanted.name), [])
    assert held, f"{declared} is not in constraints.txt: run make constraints"
    for pin in held:
        (specifier,) = pin.specifier
        assert wanted.specifier.contains(specifier.version, prereleases=True), f"{pin} / {declared}"


def test_what_the_requirements_need_in_turn_is_pinned_too(
    pins: dict[str, list[Requirement]],
) -> None:
    waiting = [Requirement(declared) for declared in declared_requirements()]
    seen: set[str] = set()
    while waiting:
        name = canonicalize_name(waiting.pop().name)
        if name in seen:
            continue
        seen.add(name)
        try:
            requires = metadata.requires(name) or []
        except metadata.PackageNotFoundError:  # an extra that is not installed here
            continue
        needed = (Requirement(line) for line in requires)
        waiting += [r for r in needed if r.marker is None or r.marker.evaluate({"extra": ""})]
    assert seen - pins.keys() == set()


# --- image --------------------------------------------------------------------------------------


def copied_into_the_image() -> list[str]:
    """The sources of the Dockerfile's COPY lines that come from the repository."""
    lines = re.findall(r"(?m)^COPY (?!--from)(.+)$", text_of("docker/Dockerfile"))
    return [source for line in lines for source in line.split()[:-1]]


def test_the_image_is_built_from_all_that_the_wheel_is_built_from() -> None:
    packages = toml_of("pyproject.toml")["tool"]["scikit-build"]["wheel"]["packages"].values()
    needed = {*packages, "csrc", "CMakeLists.txt", "pyproject.toml", "constraints.txt"}
    assert needed <= set(copied_into_the_image())


def test_dockerignore_lets_through_what_is_copied_and_nothing_else() -> None:
    rules = [line for line in text_of(".dockerignore").splitlines() if line and line[0] != "#"]
    assert rules[0] == "*"
    allowed = {rule[1:] for rule in rules if rule.startswith("!")}
    assert allowed == set(copied_into_the_image())
    assert all((ROOT / path).exists() for path in allowed)


def test_the_image_runs_as_a_fixed_user_that_is_not_root() -> None:
    users = re.findall(r"(?m)^USER (.+)$", text_of("docker/Dockerfile"))
    assert users == ["10001:10001"]


def test_the_composed_service_is_published_on_loopback_only() -> None:
    ports = re.search(r"(?m)^    ports:\n((?:      - .+\n)+)", text_of("docker/compose.yaml"))
    assert ports is not None
    for port in ports.group(1).splitlines():
        assert port.strip().startswith('- "127.0.0.1:'), port


@pytest.mark.parametrize(
    "setting",
    ["read_only: true", "cap_drop:\n      - ALL", "no-new-privileges:true", "mem_limit:"],
)
def test_the_composed_service_is_confined(setting: str) -> None:
    assert setting in text_of("docker/compose.yaml")


# --- repository ---------------------------------------------------------------------------------


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_folder_of_the_layout_is_there(folder: str) -> None:
    assert any(path.parts[0] == folder for path in tracked_files()), f"{folder}/ has no file"


def test_every_folder_has_its_place_in_the_architecture_page() -> None:
    folders = {path.parts[0] for path in tracked_files() if len(path.parts) > 1}
    headings = re.findall(r"(?m)^## (.+)$", text_of("docs/architecture.md"))
    named = {name for heading in headings for name in re.findall(r"(\w+)/", heading)}
    assert {name for name in folders if not name.startswith(".")} - {"docs"} <= named


@pytest.mark.parametrize("script", SCRIPTS)
def test_scripts_can_be_run(script: str) -> None:
    assert os.access(ROOT / script, os.X_OK)
    subprocess.run(["bash", "-n", script], cwd=ROOT, check=True)


@pytest.mark.parametrize("room", [room for room in ROOMS if room != "index"])
def test_only_the_library_touches_the_native_module(room: str) -> None:
    sources = [path for path in tracked_files() if path.parts[0] == room and path.suffix == ".py"]
    assert sources
    native = re.compile("|".join(rf"\b{module}\b" for module in native_modules()))
    assert [str(path) for path in sources if native.search(text_of(str(path)))] == []


def test_no_file_names_a_registry_or_a_machine() -> None:
    hosts = ["pypi.org", "pythonhosted", "deb.debian", "npmjs.org", "pkg.dev", "index-url"]
    paths = ["work/", "root/", "opt/pypi", "opt/wheels", "tmp/w/"]
    alternatives = [*map(re.escape, hosts), *(rf"(?<![\w.}}$*-])/{path}" for path in paths)]
    forbidden = re.compile("|".join(alternatives))
    found = []
    for path in tracked_files():
        if path == Path("tests/test_packaging.py"):
            continue
        content = (ROOT / path).read_bytes()
        if b"\0" in content:
            continue
        lines = content.decode().splitlines()
        found += [f"{path}:{n}: {x}" for n, x in enumerate(lines, 1) if forbidden.search(x)]
    assert found == []


# --- sdist and wheel ----------------------------------------------------------------------------


def build_wheel(source: Path, out: Path) -> zipfile.ZipFile:
    environment = os.environ | dict.fromkeys(
        ("PIP_CONSTRAINT", "PIP_BUILD_CONSTRAINT"), str(ROOT / "constraints.txt")
    )
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    command = [*pip, "wheel", "--no-deps", "--wheel-dir", str(out), str(source)]
    subprocess.run(command, check=True, env=environment)
    (wheel,) = out.glob("*.whl")
    return zipfile.ZipFile(wheel)


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source distribution of a checkout that has nothing but what is under version control."""
    checkout = tmp_path_factory.mktemp("checkout")
    for path in tracked_files():
        (checkout / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / path, checkout / path)
    out = tmp_path_factory.mktemp("sdist")
    build = "import sys; from scikit_build_core.build import build_sdist; build_sdist(sys.argv[1])"
    subprocess.run([sys.executable, "-c", build, str(out)], cwd=checkout, check=True)
    (archive,) = out.glob("*.tar.gz")
    return archive


@pytest.mark.slow
def test_sdist_holds_sources_and_nothing_built(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        names = [name.split("/", 1)[1] for name in archive.getnames() if "/" in name]
    assert {"pyproject.toml", "CMakeLists.txt", "LICENSE", "index/_native.pyx"} <= set(names)
    assert {"tests/test_packaging.py", "Makefile", "constraints.txt"} <= set(names)
    assert [name for name in names if re.search(r"\.(so|o|pyc|whl)$|^(build|\.venv)", name)] == []


@pytest.mark.slow
def test_wheel_from_the_sdist_holds_what_is_installed(
    sdist: Path, project: dict[str, Any], tmp_path: Path
) -> None:
    with build_wheel(sdist, tmp_path) as wheel:
        names = wheel.namelist()
        info = f"closeby-{project['version']}.dist-info"
        entry_points = wheel.read(f"{info}/entry_points.txt").decode()
    assert {name.split("/")[0] for name in names} == {"closeby", info}
    assert {f"closeby/{room}/py.typed" for room in ROOMS} <= set(names)
    assert "closeby/__init__.py" not in names  # a namespace that the client alone shares
    assert {name.split("/")[1] for name in names if name.startswith("closeby/")} == set(ROOMS)
    for module in native_modules():
        assert len([n for n in names if re.match(rf"closeby/index/{module}.*\.so$", n)]) == 1
    assert len([name for name in names if re.match(r"closeby/loaders/samples/.+\.xz$", name)]) >= 2
    unwanted = re.compile(r"\.(pyx|cpp|hpp|inl|c|toml|pyc)$|/tests?/|/test_")
    assert [name for name in names if unwanted.search(name)] == []
    assert re.search(r"(?m)^closeby ?= ?closeby\.service\.cli:main$", entry_points)
    assert any(name.startswith(info) and name.endswith("LICENSE") for name in names)
