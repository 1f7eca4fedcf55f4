"""Frank-Wolfe: time to an objective with and without reading all atoms.

    python -m benchmarks maxip frank-wolfe ITEMS.npy [--target outside]
    python -m benchmarks maxip slope ITEMS.npy                     (time against n)

The problem: approximate a hidden mixture of atoms, ½ |w - t|² over their hull. The goal is the
objective that exact Frank-Wolfe (vanilla: all atoms at each step) has after 150 steps; each solver
stops when it is there. Beside it: lazy pool + exact BPCG, the best of 1,000 random atoms a step and
copt (a general library), whose oracle reads all atoms with BLAS. A mixture lies inside the hull,
where random atoms are good ones too; --target outside asks for the nearest point of a face, where
they are not. One thread, processor time, medians of five runs (of one for those that take seconds).
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from closeby.index import MaxIPIndex
from closeby.optimize import Progress, frank_wolfe
from closeby.optimize.atoms import MatrixAtoms

STEPS = 150
RUNS = 5
SHORT = 1.0  # seconds below which a run is repeated
SOLVERS: dict[str, dict[str, Any]] = {
    "exact Frank-Wolfe": {"variant": "fw", "oracle": "exact"},
    "lazy pool + exact BPCG": {"variant": "bpcg", "oracle": "lazy"},
    "random subset of 1,000": {"variant": "fw", "oracle": "subset", "subset": 1000},
    "closeby fw": {"variant": "fw"},
    "closeby bpcg": {"variant": "bpcg"},
}


def mixture(items: np.ndarray, seed: int = 0) -> np.ndarray:
    """A hidden mixture of 100 atoms among the longer half, float64 (d,)."""
    rng = np.random.default_rng(seed)
    norms = np.linalg.norm(items, axis=1)
    long = np.flatnonzero(norms >= np.quantile(norms, 0.99))
    return rng.dirichlet(np.ones(100)) @ items[rng.choice(long, 100)].astype(np.float64)


def outside(items: np.ndarray, seed: int = 0) -> np.ndarray:
    """A point beyond the hull, in the direction of a mixture: few atoms make the nearest point."""
    direction = mixture(items, seed)
    direction /= np.linalg.norm(direction)
    return 1.2 * float((items @ direction.astype(np.float32)).max()) * direction


def to_goal(
    atoms: Any, target: np.ndarray, goal: float, options: dict[str, Any],
    certify: Any = "never", limit: float = 60.0,
) -> dict[str, Any]:  # fmt: skip
    """Run until the objective is at most `goal`, or for `limit` seconds of processor time."""
    started = time.process_time()
    curve: list[tuple[float, float]] = []

    def watch(step: Progress) -> bool:
        spent = time.process_time() - started
        curve.append((spent, step.objective))
        return step.objective <= goal or spent > limit

    result = frank_wolfe(
        lambda w: (0.5 * float((w - target) @ (w - target)), w - target),
        atoms, max_iter=20_000, tol=0.0, certify=certify, callback=watch, **options,
    )  # fmt: skip
    seconds = time.process_time() - started
    return {
        "seconds": seconds,
        "objective": min(result.objective, curve[-1][1] if curve else np.inf),
        "reached": result.objective <= goal or curve[-1][1] <= goal,
        "steps": len(result.trace),
        "atoms_read": float(result.trace["atoms"][-1]),
        "gap": result.gap,
        "curve": curve,
    }


def frank_wolfe_rows(
    items: np.ndarray, index: MaxIPIndex, target: np.ndarray
) -> list[dict[str, Any]]:
    """Every solver to the same goal."""
    matrix = MatrixAtoms(items)  # checking the atoms is no part of a solver's time
    started = time.process_time()
    exact = frank_wolfe(
        lambda w: (0.5 * float((w - target) @ (w - target)), w - target),
        matrix, "fw", max_iter=STEPS, tol=0.0, certify="never", oracle="exact",
    )  # fmt: skip
    spent = time.process_time() - started
    goal = exact.objective
    rows = [{"solver": "exact Frank-Wolfe", "seconds": spent, "objective": goal, "steps": STEPS}]
    curve = [(s * spent / exact.trace["seconds"][-1], o) for s, o in
             zip(exact.trace["seconds"], exact.trace["objective"], strict=True)]  # fmt: skip
    rows[0]["curve"] = curve
    for name, options in list(SOLVERS.items())[1:]:
        atoms = index if name.startswith("closeby") else matrix
        for certify in ("never", "final") if name == "closeby bpcg" else ("never",):
            row = _repeated(lambda a=atoms, o=options, c=certify: to_goal(a, target, goal, o, c))
            label = name + (", certified gap" if certify == "final" else "")
            rows.append({"solver": label, **row, "times_faster": spent / row["seconds"]})
    try:
        row = general_library(items, target, goal)
        rows.append({"solver": "copt", **row, "times_faster": spent / row["seconds"]})
    except ImportError as missing:
        print(f"copt: left out, {missing}")
    return rows


def _repeated(run: Any) -> dict[str, Any]:
    """A run with the median time of several, if it is short."""
    row: dict[str, Any] = run()
    if row["seconds"] < SHORT:
        times = sorted([row["seconds"], *(run()["seconds"] for _ in range(RUNS - 1))])
        row |= {"seconds": times[len(times) // 2], "shortest": times[0], "longest": times[-1]}
    return row


def general_library(
    items: np.ndarray, target: np.ndarray, goal: float, limit: float = 60.0
) -> dict[str, Any]:
    """Frank-Wolfe of copt, an oracle over all atoms and exact steps (Demyanov-Rubinov, β = 1)."""
    import copt  # an optional peer

    curve: list[tuple[float, float]] = []
    started = time.process_time()

    def best(direction: np.ndarray, w: np.ndarray, _: Any) -> tuple[Any, None, None, float]:
        at = int((items @ direction.astype(np.float32)).argmax())
        return items[at].astype(np.float64) - w, None, None, 1.0

    def watch(state: dict[str, Any]) -> bool:
        spent = time.process_time() - started
        curve.append((spent, float(state["f_t"])))
        return bool(state["f_t"] > goal and spent < limit)

    first = items[int((items @ target.astype(np.float32)).argmax())].astype(np.float64)
    copt.minimize_frank_wolfe(
        lambda w: (0.5 * float((w - target) @ (w - target)), w - target),
        first, best, jac=True, step="DR", lipschitz=1.0, max_iter=20_000, tol=0.0, callback=watch,
    )  # fmt: skip
    seconds, objective = curve[-1]
    reached = objective <= goal
    return {
        "seconds": seconds, "objective": objective, "reached": reached, "steps": len(curve),
        "atoms_read": float(len(items) * len(curve)), "curve": curve,
    }  # fmt: skip


def frank_wolfe_table(found: dict[str, Any]) -> str:
    """All solvers as a table."""
    lines = [
        f"Index built in {found['build_seconds']:.1f} s. Goal: the objective of exact Frank-Wolfe "
        f"after {STEPS} steps; target: {found['target']}.",
        "",
        "| solver | seconds | times faster | objective | steps | gap |",
        "|---|---|---|---|---|---|",
    ]
    for row in found["frank_wolfe"]:
        missed = "" if row.get("reached", True) else " (goal not reached)"
        gap = f"{row['gap']:.3g}" if "gap" in row and np.isfinite(row["gap"]) else ""
        lines.append(
            f"| {row['solver']} | {row['seconds']:.4g} | {row.get('times_faster', 1):.1f} | "
            f"{row['objective']:.4g}{missed} | {row['steps']} | {gap} |"
        )
    return "\n".join(lines)


def plot_frank_wolfe(found: dict[str, Any], axes: Any) -> None:
    """Objective against processor time, all solvers."""
    for row in found["frank_wolfe"]:
        seconds, objective = np.array(row["curve"]).T
        style = "--" if row["solver"].startswith(("exact", "lazy", "random", "copt")) else "-"
        (line,) = axes.plot(
            np.maximum(seconds, 1e-4), np.maximum(objective, 1e-12), style, label=row["solver"]
        )
        axes.plot(max(seconds[-1], 1e-4), max(objective[-1], 1e-12), "o", color=line.get_color())
    goal = found["frank_wolfe"][0]["objective"]
    axes.axhline(goal, color="0.6", linewidth=0.8, label="goal")
    axes.set(xscale="log", yscale="log", xlabel="processor seconds", ylabel="½ |w - t|²")


def main_frank_wolfe(items: np.ndarray, target: str) -> dict[str, Any]:
    """Build an index and let every solver run to the goal."""
    index = MaxIPIndex()
    started = time.process_time()
    index.add(items)
    build = time.process_time() - started
    index.vectors([0])  # sorts the ids, once in the life of an index
    goal = outside(items) if target == "outside" else mixture(items)
    rows = frank_wolfe_rows(items, index, goal)
    found = {"build_seconds": build, "target": target, "frank_wolfe": rows}
    print(frank_wolfe_table(found))
    return found


def main_slope(items: np.ndarray) -> dict[str, Any]:
    """Seconds to exact Frank-Wolfe's objective at each n, and the log-log slope."""
    sizes = [len(items) >> shift for shift in range(5, -1, -1)]
    rows: list[dict[str, float]] = []
    order = np.random.default_rng(0).permutation(len(items))
    for n in sizes:
        part = np.ascontiguousarray(items[np.sort(order[:n])])
        index = MaxIPIndex()
        index.add(part)
        index.vectors([0])
        spent: dict[str, list[float]] = {"exact": [], "index": []}
        for seed in range(RUNS):
            target = mixture(part, seed)
            started = time.process_time()
            exact = frank_wolfe(
                lambda w, t=target: (0.5 * float((w - t) @ (w - t)), w - t),
                part, "fw", max_iter=60, tol=0.0, certify="never", oracle="exact",
            )  # fmt: skip
            spent["exact"].append(time.process_time() - started)
            times = [
                to_goal(index, target, exact.objective, {"variant": "bpcg"})["seconds"]
                for _ in range(3)
            ]
            spent["index"].append(float(np.median(times)))
        rows.append({"n": n} | {name: float(np.median(s)) for name, s in spent.items()})
        print(rows[-1], flush=True)
    return {"rows": rows} | {f"{name}_slope": _slope(rows, name) for name in ("exact", "index")}


def _slope(rows: list[dict[str, float]], name: str) -> float:
    fitted = np.polyfit(np.log([r["n"] for r in rows]), np.log([r[name] for r in rows]), 1)
    return float(fitted[0])


def slope_table(found: dict[str, Any]) -> str:
    """Times at each n."""
    lines = ["| n | exact, 60 steps | closeby bpcg to its objective |", "|---|---|---|"]
    lines += [f"| {r['n']:,} | {r['exact']:.4g} s | {r['index']:.4g} s |" for r in found["rows"]]
    slopes = f"Log-log slope: exact {found['exact_slope']:.2f}, closeby {found['index_slope']:.2f}."
    return "\n".join([*lines, "", slopes + f" Medians of {RUNS} targets."])


def plot_slope(found: dict[str, Any], axes: Any) -> None:
    """Time against n."""
    n = [r["n"] for r in found["rows"]]
    for name, label in (
        ("exact", "exact Frank-Wolfe, 60 steps"),
        ("index", "closeby bpcg to there"),
    ):
        slope = found[f"{name}_slope"]
        axes.plot(n, [r[name] for r in found["rows"]], "o-", label=f"{label}: slope {slope:.2f}")
    axes.set(xscale="log", yscale="log", xlabel="atoms n", ylabel="processor seconds")
