"""What Xu, Song and Shrivastava (NeurIPS 2021) prove, measured: one command, one plot each.

    python -m benchmarks.maxip.theorems iterations --out FILE [--plot FILE.png]
    python -m benchmarks.maxip.theorems exponent   --out FILE [--plot FILE.png]
    python -m benchmarks.maxip.theorems adaptive   --out FILE [--plot FILE.png]

``iterations``: Frank-Wolfe whose oracle answers as badly as (c, τ)-MaxIP allows, steps 2/(c(t+2)):
how many steps an error takes, against 1/c². ``exponent``: what a query of the paper's structure
costs as n grows, on the hardest points there are, against ρ. ``adaptive``: Frank-Wolfe that asks
one structure with queries made of its own answers, and what helps.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from closeby.index.maxip_paper import PaperMaxIP, hyperplane_rho, rho

from benchmarks.machine import describe

DIM = 32


def unit(rows: np.ndarray) -> np.ndarray:
    """Rows of length 1."""
    return np.asarray(rows / np.linalg.norm(rows, axis=-1, keepdims=True))


def slope(x: Any, y: Any) -> float:
    """The exponent of a power law through the points."""
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])


# --- iterations ----------------------------------------------------------------------------------


def steps_to(error: float, c: float, atoms: np.ndarray, target: np.ndarray, most: int) -> int:
    """Steps until ½|w - t|² ≤ error with the worst answer that c allows; `most` if never."""
    w = atoms[0]
    for t in range(most):
        if 0.5 * float((w - target) @ (w - target)) <= error:
            return t
        gaps = (atoms - w) @ (target - w)
        allowed = np.flatnonzero(gaps >= c * gaps.max())
        worst = allowed[gaps[allowed].argmin()]
        w = w + min(1.0, 2 / (c * (t + 2))) * (atoms[worst] - w)
    return most


def iterations() -> dict[str, Any]:
    """Steps at each c, their fitted exponent in 1/c, and the bound 2βD²/(c²(t+1))."""
    levels = (1.0, 0.8, 0.6, 0.5, 0.4, 0.3, 0.2, 0.15, 0.1)
    error, rows = 1e-3, []
    for c in levels:
        taken = []
        for seed in range(5):
            rng = np.random.default_rng(seed)
            atoms = unit(rng.standard_normal((2_000, DIM)))
            target = rng.dirichlet(np.ones(20)) @ atoms[:20]  # within the hull: the minimum is 0
            taken.append(steps_to(error, c, atoms, target, 2_000_000))
        bound = 2 * 4 / (c * c * error)  # β = 1, D = 2 on the unit sphere
        rows.append({"c": c, "steps": float(np.median(taken)), "bound": bound})
        print(rows[-1], flush=True)
    fitted = slope([1 / r["c"] for r in rows], [r["steps"] for r in rows])
    print(f"steps grow as (1/c)^{fitted:.2f}; the theorem allows (1/c)^2")
    return {"error": error, "rows": rows, "exponent_in_1_over_c": fitted}


def plot_iterations(found: dict[str, Any], axes: Any) -> None:
    """Steps and bound against 1/c²."""
    x = [1 / r["c"] ** 2 for r in found["rows"]]
    axes.plot(x, [r["steps"] for r in found["rows"]], "o-", label="worst answers allowed")
    axes.plot(x, [r["bound"] for r in found["rows"]], ":", label="bound 2βD² / (c² ε)")
    axes.set(xscale="log", yscale="log", xlabel="1 / c²", ylabel="steps to error ε = .001")


# --- exponent ------------------------------------------------------------------------------------


def query_cost(n: int, c: float, tau: float, seed: int) -> tuple[float, bool]:
    """Tables looked into and points compared, and whether the near point was found.

    One point has inner product τ with the query and all others c·τ: the hardest case that the
    promise allows.
    """
    rng = np.random.default_rng(seed)
    query = np.eye(DIM)[0]
    rest = rng.standard_normal((n, DIM))
    rest[:, 0] = 0
    cosines = np.full((n, 1), c * tau)
    cosines[0] = tau
    points = cosines * query + np.sqrt(1 - cosines**2) * unit(rest)
    structure = PaperMaxIP(points.astype(np.float32), c, tau, seed, bands=1)
    answer = structure.query(query.astype(np.float32))
    return structure.tables + answer.compared, answer.id == 0


def exponent() -> dict[str, Any]:
    """The fitted exponent of the cost in n for several promises, beside both values of ρ."""
    sizes = (500, 1_000, 2_000, 4_000, 8_000)
    rows = []
    for c, tau in ((0.3, 0.9), (0.5, 0.9), (0.5, 0.8), (0.6, 0.9)):
        costs, hits = [], []
        for n in sizes:
            runs = [query_cost(n, c, tau, seed) for seed in range(5)]
            costs.append(float(np.mean([cost for cost, _ in runs])))
            hits += [hit for _, hit in runs]
        rows.append(
            {
                "c": c,
                "tau": tau,
                "n": sizes,
                "cost": costs,
                "found": float(np.mean(hits)),
                "measured": slope(sizes, costs),
                "rho_of_these_hashes": hyperplane_rho(c, tau),
                "rho_of_the_best_hashes": rho(c, tau),
            }
        )
        print({k: v for k, v in rows[-1].items() if k not in ("n", "cost")}, flush=True)
    return {"rows": rows}


def plot_exponent(found: dict[str, Any], axes: Any) -> None:
    """Cost against n."""
    for row in found["rows"]:
        label = (
            f"c {row['c']}, τ {row['tau']}: n^{row['measured']:.2f}, ρ of these hashes "
            f"{row['rho_of_these_hashes']:.2f}, of the best {row['rho_of_the_best_hashes']:.2f}"
        )
        axes.plot(row["n"], row["cost"], "o-", label=label)
    axes.plot(found["rows"][0]["n"], found["rows"][0]["n"], "k:", label="all points")
    axes.set(xscale="log", yscale="log", xlabel="n", ylabel="tables + points compared, a query")


# --- adaptive ------------------------------------------------------------------------------------

Ask = Callable[[np.ndarray, int], int]


def adaptive() -> dict[str, Any]:
    """Share of steps with an answer of at least half the best gap, and the error reached."""
    rng = np.random.default_rng(1)
    atoms = unit(rng.standard_normal((4_000, DIM))).astype(np.float32)
    target = rng.dirichlet(np.ones(30)) @ atoms[:30].astype(np.float64)
    c, tau, steps = 0.5, 0.85, 200
    five = [PaperMaxIP(atoms, c, tau, seed, bands=1) for seed in range(5)]
    lattice = [PaperMaxIP(atoms, c, tau, seed, bands=1, cell=0.5) for seed in range(5)]

    def dithered(query: np.ndarray, _: int) -> int:
        noise = unit(rng.standard_normal(DIM))
        shaken = (query / np.linalg.norm(query) + 0.4 * noise).astype(np.float32)
        return five[0].query(shaken).id

    ways: dict[str, Ask] = {
        "exact": lambda q, _: int((atoms @ q).argmax()),
        "one structure": lambda q, _: five[0].query(q).id,
        "one, lattice": lambda q, _: lattice[0].query(q).id,
        "one, dithered queries": dithered,
        "five seeds in turn": lambda q, t: five[t % 5].query(q).id,
        "five seeds, lattice": lambda q, t: lattice[t % 5].query(q).id,
        "best of five seeds": lambda q, _: _best_of(atoms, q, five),
    }
    rows = []
    for name, ask in ways.items():
        errors, good, stalled = _follow(atoms, target, ask, steps, c)
        rows.append({"oracle": name, "good_steps": good, "stalled": stalled, "errors": errors})
        print(f"{name:24s} good {good:.2f}  stalled {stalled:.2f}  error {errors[-1]:.2e}")
    return {"atoms": len(atoms), "c": c, "tau": tau, "rows": rows}


def _best_of(atoms: np.ndarray, query: np.ndarray, structures: list[PaperMaxIP]) -> int:
    met = [found for s in structures if (found := s.query(query).id) >= 0]
    return max(met, key=lambda i: float(atoms[i] @ query), default=-1)


def _follow(
    atoms: np.ndarray, target: np.ndarray, ask: Ask, steps: int, c: float
) -> tuple[list[float], float, float]:
    """Errors along Frank-Wolfe with line search, and shares of good and of useless answers."""
    w = atoms[0].astype(np.float64)
    errors, good, stalled = [], 0, 0
    for t in range(steps):
        direction = target - w
        errors.append(0.5 * float(direction @ direction))
        gaps = (atoms - w) @ direction
        chosen = ask(direction.astype(np.float32), t)
        gap = float(gaps[chosen]) if chosen >= 0 else 0.0
        good += gap >= c * gaps.max()
        if gap <= 0:
            stalled += 1
            continue
        along = atoms[chosen] - w
        w = w + min(1.0, gap / float(along @ along)) * along
    return errors, good / steps, stalled / steps


def plot_adaptive(found: dict[str, Any], axes: Any) -> None:
    """Error against steps."""
    for row in found["rows"]:
        axes.plot(row["errors"], label=f"{row['oracle']}: {row['stalled']:.0%} stalled")
    axes.set(yscale="log", xlabel="step", ylabel="½ |w - t|²")


EXPERIMENTS: dict[str, tuple[Callable[[], dict[str, Any]], Callable[[dict[str, Any], Any], None]]]
EXPERIMENTS = {
    "iterations": (iterations, plot_iterations),
    "exponent": (exponent, plot_exponent),
    "adaptive": (adaptive, plot_adaptive),
}


def main() -> None:
    """Run one experiment, print, and write what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("experiment", choices=EXPERIMENTS)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--plot", type=Path)
    arguments = parser.parse_args()
    run, draw = EXPERIMENTS[arguments.experiment]
    found = run()
    if arguments.plot:
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib import pyplot as plt

        figure, axes = plt.subplots(figsize=(7, 4.5))
        draw(found, axes)
        axes.legend(fontsize=8)
        figure.tight_layout()
        figure.savefig(arguments.plot, dpi=130)
    for row in found["rows"]:
        row.pop("errors", None)
    if arguments.out:
        arguments.out.write_text(json.dumps({"machine": describe(), **found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
