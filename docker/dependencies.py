"""Print the dependencies that a pyproject.toml declares, one a line."""

import sys
import tomllib
from pathlib import Path

if __name__ == "__main__":
    project = tomllib.loads(Path(sys.argv[1]).read_text())["project"]
    sys.stdout.write("\n".join(project["dependencies"]) + "\n")
