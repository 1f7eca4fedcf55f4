"""closeby.optimize: conditional-gradient methods whose steps do not read all atoms.

    frank_wolfe        minimise a smooth function over the convex hull of atoms (or of ± atoms)
    herding            choose points whose mean approaches a target
    policy_gradient    move policies towards the best of many actions

Each step needs the atom of highest inner product with a direction. These solvers ask a ladder of
ever dearer oracles for it and take the first atom that promises enough progress (``ladder``), with
a ``closeby.index.MaxIPIndex`` behind it. A plain matrix works too, and is read whole.

Modules, from the ground up: ``errors``, ``trace`` < ``objective`` (what the caller gives) <
``atoms`` (what can be asked) < ``ladder``, ``nearest`` < ``frank_wolfe``, ``herding``, ``policy``.
"""

from __future__ import annotations

from .errors import ObjectiveError
from .frank_wolfe import frank_wolfe
from .herding import HerdingResult, RandomFourier, herding, random_discrepancy
from .nearest import NearestSumIndex
from .policy import PolicyResult, policy_gradient
from .trace import FrankWolfeResult, Progress, Trace

__all__ = [
    "FrankWolfeResult",
    "HerdingResult",
    "NearestSumIndex",
    "ObjectiveError",
    "PolicyResult",
    "Progress",
    "RandomFourier",
    "Trace",
    "frank_wolfe",
    "herding",
    "policy_gradient",
    "random_discrepancy",
]
