"""A structure in a file of arrays: FAISS's bytes, and the curve that was measured on it.

Whoever reads the file has compared its checksums by then: FAISS's reader trusts what it reads.
"""

from __future__ import annotations

from typing import Any

import faiss
import numpy as np
import numpy.typing as npt
from closeby.index.batches import Int64Array
from closeby.index.points import PointsView

from .curve import RecallCurve
from .structure import Structure


def write(
    structure: Structure, header: dict[str, Any], arrays: dict[str, np.ndarray[Any, Any]]
) -> None:
    """Add to header and arrays what :func:`read` needs, but where the points are."""
    binary = isinstance(structure.faiss_index, faiss.IndexBinary)
    dump = faiss.serialize_index_binary if binary else faiss.serialize_index
    arrays["faiss"] = np.asarray(dump(structure.faiss_index), np.uint8)
    header |= {
        "curve": structure.curve.as_json(),
        "measured_at": structure.measured_at,
        "trained_at": structure.trained_at,
    }


def read(
    header: dict[str, Any],
    arrays: dict[str, np.ndarray[Any, Any]],
    places: Int64Array,
    covered: int,
    view: PointsView,
    code: npt.NDArray[Any],
    faiss_type: str,
) -> Structure:
    """The structure of a file whose checksums are right.

    Args:
        header: of the file.
        arrays: of the file.
        places: int64 (n,), of the point at each position; -1: it is not there any more.
        covered: how many of the first points only the structure finds.
        view: the points.
        code: what FAISS is given of a point, (1, width).
        faiss_type: name of the type of FAISS's index.

    Raises:
        ValueError: it does not belong to these points.
    """
    here = np.sort(places[places >= 0])
    if covered > len(view) or (len(here) and here[-1] >= covered) or np.any(here[1:] == here[:-1]):
        raise ValueError("each position must have a place of its own among the first points")
    uncovered = np.setdiff1d(np.arange(covered), here, assume_unique=True)
    if view.alive[uncovered].any():
        raise ValueError("the structure lacks points")
    binary = code.dtype == np.uint8
    restore = faiss.deserialize_index_binary if binary else faiss.deserialize_index
    try:
        found = restore(np.array(arrays["faiss"]))
    except RuntimeError as error:
        raise ValueError(f"FAISS cannot read its part: {error}") from error
    if (
        type(found).__name__ != faiss_type
        or found.d != code.shape[1] * (8 if binary else 1)
        or found.ntotal != len(places)
    ):
        raise ValueError("FAISS's part does not belong to these points")
    curve = RecallCurve.of_json(header["curve"])
    structure = Structure.of(
        found, places, covered, curve, int(header["measured_at"]), int(header["trained_at"])
    )
    structure.remove(np.flatnonzero(~view.alive[:covered]))
    return structure


def places_of(ids: Int64Array, view: PointsView) -> tuple[Int64Array, int]:
    """Where points lie that a structure holds, and how many of the first points it covers.

    Args:
        ids: int64 (n,), of the point at each position; -1: it was removed.
        view: points in the order of their ids.

    Returns:
        places int64 (n,), -1 for those that are not here, and how many points have no higher id.

    Raises:
        ValueError: the points are in another order.
    """
    if np.any(view.ids[1:] <= view.ids[:-1]):
        raise ValueError("the points are not in the order of their ids")
    at = np.searchsorted(view.ids, ids)
    here = (ids >= 0) & (at < len(view))
    here[here] = view.ids[at[here]] == ids[here]
    return np.where(here, at, -1), int(np.searchsorted(view.ids, ids.max(initial=-1), side="right"))
