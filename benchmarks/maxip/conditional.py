"""Conditional gradients: time to an objective with and without reading all atoms.

    python -m benchmarks.maxip.conditional ITEMS.npy [--n 1000000] [--out FILE] [--plot FILE.png]
    python -m benchmarks.maxip.conditional ITEMS.npy --slope     (time against n)

The problem: approximate a hidden mixture of atoms, ½ |w - t|² over their hull. The goal is the
objective that exact Frank-Wolfe (vanilla: all atoms at each step) has after 150 steps; each solver
stops when it is there. Beside it: lazy pool + exact BPCG, and the best of 1,000 random atoms a
step. A mixture lies inside the hull, where random atoms are good ones too; --target outside asks
for the nearest point of a face, where they are not. Then herding and policy gradient. One thread,
processor time.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from closeby.index import MaxIPIndex
from closeby.optimize import NearestSumIndex, Progress, frank_wolfe, herding, policy_gradient
from closeby.optimize.atoms import MatrixAtoms

from benchmarks.machine import describe

STEPS = 150
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
            row = to_goal(atoms, target, goal, options, certify)
            label = name + (", certified gap" if certify == "final" else "")
            rows.append({"solver": label, **row, "times_faster": spent / row["seconds"]})
    for row in rows:
        print(
            f"{row['solver']:30s} {row['seconds']:9.3f} s  {row.get('times_faster', 1):7.1f} ×  "
            f"objective {row['objective']:.4g}  steps {row['steps']}  "
            f"{'' if row.get('reached', True) else 'goal not reached'}",
            flush=True,
        )
    return rows


def herding_rows(items: np.ndarray, m: int, exact_m: int) -> dict[str, Any]:
    """Discrepancy of herding by index, exactly and by random subsets."""
    target = items.mean(axis=0, dtype=np.float64)

    def timed(work: Callable[[], Any]) -> tuple[Any, float]:
        started = time.process_time()
        return work(), time.process_time() - started

    index, build_seconds = timed(lambda: NearestSumIndex(items))
    found, seconds = timed(lambda: herding(index, m, target))
    inner, _ = timed(lambda: herding(items, exact_m, target, criterion="inner"))
    exact, exact_seconds = timed(lambda: herding(items, exact_m, target))
    subset, subset_seconds = timed(lambda: herding(items, m, target, oracle="subset"))
    row = {
        "chosen": m,
        "build_seconds": build_seconds,
        "seconds": seconds,
        "discrepancy": found.discrepancy[-1],
        "exact_chosen": exact_m,
        "exact_seconds": exact_seconds,
        "ratio_to_exact_there": found.discrepancy[exact_m - 1] / exact.discrepancy[-1],
        "ratio_to_welling_there": found.discrepancy[exact_m - 1] / inner.discrepancy[-1],
        "subset_seconds": subset_seconds,
        "subset_discrepancy": subset.discrepancy[-1],
        "subset_ratio_to_exact_there": subset.discrepancy[exact_m - 1] / exact.discrepancy[-1],
    }
    print("herding", json.dumps({k: float(f"{v:.4g}") for k, v in row.items()}), flush=True)
    return row


def policy_row(items: np.ndarray, states: int = 4, steps: int = 20) -> dict[str, Any]:
    """Policy gradient over half of the atoms as actions, against comparing all of them."""
    actions = items[: max(1, len(items) // 2)]
    index = MaxIPIndex()
    index.add(actions)
    index.vectors([0])  # sorts the ids, once in the life of an index
    matrix = MatrixAtoms(actions)
    rng = np.random.default_rng(0)
    wanted = np.stack([mixture(actions, seed) for seed in rng.integers(1 << 30, size=states)])

    def grad_q(s: Any, policies: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return -0.5 * ((s - policies) ** 2).sum(axis=1), s - policies

    rows = {}
    for name, given in (("exact", matrix), ("index", index)):
        started = time.process_time()
        result = policy_gradient(grad_q, given, wanted, steps)
        rows[name] = (time.process_time() - started, float(result.values.mean()),
                      float(result.trace["objective"][0]))  # fmt: skip
    gained = (rows["index"][1] - rows["exact"][2]) / (rows["exact"][1] - rows["exact"][2])
    row = {
        "actions": len(actions),
        "states": states,
        "exact_seconds": rows["exact"][0],
        "seconds": rows["index"][0],
        "times_faster": rows["exact"][0] / rows["index"][0],
        "share_of_exact_gain": gained,
    }
    print("policy gradient", json.dumps({k: float(f"{v:.4g}") for k, v in row.items()}), flush=True)
    return row


def slope(items: np.ndarray) -> dict[str, Any]:
    """Seconds to exact Frank-Wolfe's objective at each n, and the log-log slope."""
    sizes = [n for n in (31_250, 62_500, 125_000, 250_000, 500_000, 1_000_000) if n <= len(items)]
    rows = []
    order = np.random.default_rng(0).permutation(len(items))
    for n in sizes:
        part = np.ascontiguousarray(items[np.sort(order[:n])])
        index = MaxIPIndex()
        index.add(part)
        target = mixture(part)
        exact = frank_wolfe(
            lambda w, t=target: (0.5 * float((w - t) @ (w - t)), w - t),
            part, "fw", max_iter=60, tol=0.0, certify="never", oracle="exact",
        )  # fmt: skip
        times = [
            to_goal(index, target, exact.objective, {"variant": "bpcg"})["seconds"]
            for _ in range(5)
        ]
        rows.append({"n": n, "seconds": float(np.median(times))})
        print(rows[-1], flush=True)
    fitted = np.polyfit(np.log([r["n"] for r in rows]), np.log([r["seconds"] for r in rows]), 1)
    print(f"slope {fitted[0]:.2f}")
    return {"rows": rows, "slope": float(fitted[0])}


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """Objective against processor time, all solvers."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4.5))
    for row in rows:
        seconds, objective = np.array(row["curve"]).T
        axes.plot(np.maximum(seconds, 1e-3), objective, label=row["solver"])
    axes.set(xscale="log", yscale="log", xlabel="processor seconds", ylabel="½ |w - t|²")
    axes.axhline(rows[0]["objective"], color="0.7", linewidth=0.8)
    axes.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=130)


def main() -> None:
    """Measure, print, and write what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("items", type=Path)
    parser.add_argument("--n", type=int, default=1_000_000)
    parser.add_argument("--target", choices=("mixture", "outside"), default="mixture")
    parser.add_argument("--slope", action="store_true")
    parser.add_argument("--skip", action="append", default=[], choices=("herding", "policy"))
    parser.add_argument("--out", type=Path)
    parser.add_argument("--plot", type=Path)
    arguments = parser.parse_args()
    faiss.omp_set_num_threads(1)
    items = np.ascontiguousarray(np.load(arguments.items, mmap_mode="r")[: arguments.n], np.float32)
    data = f"{arguments.items.parent.name}, {items.shape[0]:,} x {items.shape[1]}"
    found: dict[str, Any] = {"data": data, "machine": describe()}
    if arguments.slope:
        found["slope"] = slope(items)
    else:
        index = MaxIPIndex()
        started = time.process_time()
        index.add(items)
        found["build_seconds"] = time.process_time() - started
        print(f"build {found['build_seconds']:.1f} s", flush=True)
        target = outside(items) if arguments.target == "outside" else mixture(items)
        found["target"] = arguments.target
        found["frank_wolfe"] = frank_wolfe_rows(items, index, target)
        if arguments.plot:
            plot(found["frank_wolfe"], arguments.plot)
        if "herding" not in arguments.skip:
            found["herding"] = herding_rows(items, min(10_000, len(items) // 10), 300)
        del index
        if "policy" not in arguments.skip:
            found["policy_gradient"] = policy_row(items)
        for row in found["frank_wolfe"]:
            row.pop("curve", None)
    if arguments.out:
        arguments.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
