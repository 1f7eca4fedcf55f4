"""The image's health check: fails unless /healthz of the server in this container answers 200."""

import os
import urllib.request

if __name__ == "__main__":
    # No proxy: the server is on this host, whatever the environment says about the others.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    port = int(os.environ.get("CLOSEBY_PORT", "8080"))
    opener.open(f"http://127.0.0.1:{port}/healthz", timeout=4).close()
