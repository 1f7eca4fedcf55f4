import hashlib
import lzma

import pytest
from closeby.loaders import open_points, samples


def test_urls():
    urls = samples.urls()
    assert len(urls) == len(set(urls)) == 120_628
    assert all(url.startswith(("http://", "https://")) for url in urls)


def test_genes():
    genes = samples.genes()
    assert len(genes) == 3_153
    assert len({gene.name for gene in genes}) == 3_144
    assert set("".join(gene.sequence for gene in genes)) <= set("ACGTMNRYK" + "SWBDHV")


def test_later_genes_of_a_name_are_reported():
    reader = open_points(samples.GENES_PATH)
    assert sum(map(len, reader)) == 3_144
    assert reader.report.bad == 9


@pytest.mark.parametrize("path", [samples.URLS_PATH, samples.GENES_PATH])
def test_files_are_the_data_as_published(path):
    digest = hashlib.sha256(lzma.decompress(path.read_bytes())).hexdigest()
    assert digest in (path.parent / "README.md").read_text()
