"""`python -m closeby.service` is the `closeby` command."""

from .cli import main

main()
