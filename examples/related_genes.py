"""Which known resistance genes are related to a piece of DNA?

Start a server (`closeby serve`), then: python related_genes.py http://127.0.0.1:8080
"""

import sys

from closeby.client import Client
from closeby.loaders import open_points, samples

url = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8080"

with Client(url) as db:
    genes = db.create_collection(
        "example-genes",
        metric="jaccard",
        features={"kind": "kmers", "k": 16, "canonical": True},
        threshold=0.3,
    )
    # The name of each FASTA record becomes its id; a name that comes twice is reported.
    reader = open_points(samples.GENES_PATH)
    for batch in reader:
        genes.upsert(points=batch.points())
    print(f"{genes.info().count} genes, {reader.report.bad} records left out, such as:")
    print(f"    {reader.report.samples[0].reason}")

    # A read as a sequencer may give it: part of a gene, from the other strand.
    gene = genes.get(ids=["blaTEM-1A_1_HM749966"])[0].sequence
    read = gene[100:700][::-1].translate(str.maketrans("ACGT", "TGCA"))
    for hit in genes.query(sequence=read, limit=5).hits:
        print(f"    {hit.score:.2f}  {hit.id}")

    db.delete_collection("example-genes")
