"""The version of the client; the server's distribution has the same."""

__version__ = "0.1.0"
