"""What can go wrong beside the library's own errors.

::

    closeby.index.ClosebyError
    ├── InvalidInputError (also a ValueError)   an argument cannot be used
    └── ObjectiveError (also a ValueError)      the caller's function answered what cannot be used
"""

from __future__ import annotations

from closeby.index import ClosebyError


class ObjectiveError(ClosebyError, ValueError):
    """The objective's value or gradient has the wrong shape or is not finite.

    Attributes:
        iteration: when it happened, from 0.
    """

    def __init__(self, message: str, *, iteration: int) -> None:
        super().__init__(f"{message} (iteration {iteration})")
        self.iteration = iteration
