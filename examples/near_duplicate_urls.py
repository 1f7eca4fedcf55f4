"""Find the near-duplicates of a few URLs among 20,000 others.

Start a server (`closeby serve`), then: python near_duplicate_urls.py http://127.0.0.1:8080
"""

import sys

from closeby.client import Client
from closeby.loaders import Lines, open_points, samples

url = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8080"

with Client(url) as db:
    urls = db.create_collection(
        "example-urls", metric="jaccard", features={"kind": "shingles", "unit": "byte", "n": 4}
    )
    # Any text file with one URL a line does, .gz and .xz too. Lines(urls=True) compares what
    # follows the scheme, and keeps the whole URL as the payload.
    for batch in open_points(samples.URLS_PATH, format=Lines(urls=True), batch_size=2_000):
        urls.upsert(points=batch.points())
        if urls.info().count >= 20_000:
            break

    for point in urls.get(ids=[5_501, 13_501, 19_501]):
        print(point.payload["url"])
        for hit in urls.query(text=point.text, limit=4, threshold=0.5).hits:
            if hit.id != point.id:
                print(f"    {hit.score:.2f}  {hit.payload['url']}")

    db.delete_collection("example-urls")
