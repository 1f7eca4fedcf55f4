"""The file of a whole MaxIP index: its segments, and the points that are not sealed yet."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from .batches import Int64Array
from .files import write_arrays
from .hashed import Stored
from .maxip_segment import MaxIPSegment
from .segments import Sealed

Arrays: TypeAlias = dict[str, npt.NDArray[Any]]
Unsealed: TypeAlias = tuple[Int64Array, Stored]
"""Ids and vectors of points in no segment yet."""


def write_contents(
    path: Path,
    parameters: dict[str, Any],
    segments: Sequence[Sealed[MaxIPSegment]],
    unsealed: Unsealed | None,
) -> None:
    """Write segments and unsealed points, replacing the file atomically. Raises OSError."""
    arrays: Arrays = {}
    entries = []
    for number, sealed in enumerate(segments):
        arrays |= {f"{number}.{name}": array for name, array in sealed.segment.arrays.items()}
        calibration = sealed.segment.calibration.as_json()
        entries.append({"chunks": sealed.chunks, "calibration": calibration})
    if unsealed is not None:
        arrays |= {"tail.ids": unsealed[0], "tail.vectors": np.asarray(unsealed[1])}
    write_arrays(path, parameters | {"segments": entries}, arrays)


def contents_of(
    header: dict[str, Any], arrays: Arrays
) -> tuple[list[Sealed[MaxIPSegment]], Unsealed | None]:
    """What :func:`write_contents` wrote; raises what a header and arrays that do not fit raise."""
    segments = []
    for number, entry in enumerate(header["segments"]):
        prefix = f"{number}."
        own = {n.removeprefix(prefix): a for n, a in arrays.items() if n.startswith(prefix)}
        segment = MaxIPSegment.of_arrays(own, entry["calibration"])
        if segment.lists.dim != header["dim"]:
            raise ValueError("a segment is of another dimension than the index")
        segments.append(Sealed(int(entry["chunks"]), segment))
    if "tail.ids" not in arrays:
        return segments, None
    return segments, (arrays["tail.ids"], arrays["tail.vectors"])
