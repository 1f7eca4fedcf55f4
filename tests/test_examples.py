"""Every example runs as its text says, and prints what it promises."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from closeby.loaders import samples

EXAMPLES = Path(__file__).parent.parent / "examples"

# What the output must hold: (regular expression, at least so many times).
EXPECTED = {
    "near_duplicate_urls.py": [(r"^https?://", 3), (r"^    0\.\d\d  https?://", 6)],
    "related_genes.py": [(r"3144 genes, 9 records", 1), (r"^    0\.\d\d  blaTEM-", 5)],
    "deduplicate.py": [(r"^20,000 URLs, [\d,]+ pairs, [\d,]+ kept$", 1)],
    "import_and_deduplicate.py": [
        (r"^[\d,]+ URLs imported, 0 bad lines$", 1),
        (r"^[\d,]+ pairs, [\d,]+ URLs need not be kept$", 1),
        (r"^    (0\.9\d|1\.00)  \d+ \d+: keep \d+$", 3),
    ],
    "library_only.py": [(r"^    0\.\d\d  The committee|^    0\.\d\d  On Tuesday", 4)],
    "dense_vectors.py": [(r"^(19\d|200) of 200 originals found", 1)],
    "recommend.py": [(r"^recall of the true ten: (0\.9|1\.0)", 1), (r"offered item 123 first", 1)],
    "coreset.py": [
        (r"^100 of 9,000 points", 1),
        (r"^discrepancy: 0\.0[01]\d+, 0\.0[4-9]\d* at random", 1),
    ],
    "sparse_approximation.py": [(r"^converged after", 1), (r"^checked: \d+\.\d%", 1)],
}


def test_every_example_is_run():
    assert {path.name for path in EXAMPLES.glob("*.py")} == set(EXPECTED)


@pytest.fixture
def arguments(name, tmp_path):
    """What an example is given besides the server: less data, where all of it takes long."""
    if name != "import_and_deduplicate.py":
        return []
    urls = tmp_path / "urls.txt"
    urls.write_text("\n".join(samples.urls()[:20_000]))
    return [str(urls)]


@pytest.mark.parametrize("name", EXPECTED)
def test_example(name, arguments, server):
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name), server.url, *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for pattern, least in EXPECTED[name]:
        assert len(re.findall(pattern, done.stdout, re.MULTILINE)) >= least, done.stdout


@pytest.mark.parametrize("name", EXPECTED)
def test_example_is_short(name):
    assert len((EXAMPLES / name).read_text().splitlines()) < 40
