"""closeby for the suite ann-benchmarks."""

from .module import Closeby

__all__ = ["Closeby"]
