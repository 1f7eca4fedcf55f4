"""Import a file of URLs as it is, and find all near-duplicates in what is there.

Start a server (`closeby serve`), then:

    python import_and_deduplicate.py http://127.0.0.1:8080 [your-urls.txt.gz]
"""

import sys

from closeby.client import Client
from closeby.loaders import samples

url = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8080"
path = sys.argv[2] if len(sys.argv) > 2 else samples.URLS_PATH

with Client(url) as db:
    urls = db.create_collection(
        "example-import", metric="jaccard", features={"kind": "shingles", "unit": "byte", "n": 4}
    )
    # The file is sent as it is; the server reads it, batch by batch, and goes on after a crash.
    job = urls.import_file(path)
    done = job.wait(progress=lambda info: print(f"{info.state}: {info.progress.done:,} points"))
    print(f"{done.result['points']:,} URLs imported, {done.result['bad']} bad lines")

    job = urls.duplicates(threshold=0.9)
    found = job.wait().result
    print(f"{found['pairs']:,} pairs, {found['duplicates']:,} URLs need not be kept")
    for _, pair in zip(range(3), job.rows(), strict=False):
        print(f"    {pair['score']:.2f}  {pair['a']} {pair['b']}: keep {pair['keep']}")

    db.delete_collection("example-import")
