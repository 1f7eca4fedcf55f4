"""Herding and policy gradient by an index, against comparing all and against random subsets.

    python -m benchmarks maxip herding ITEMS.npy [--choose 10000]
    python -m benchmarks maxip policy ITEMS.npy

Herding chooses points whose mean approaches that of all. Exact herdings stand beside it, which
compare all points for each choice: the greedy one, which leaves the least discrepancy, with which
every other is compared (its curve is that of ``greedy``, its time that of closeby over a matrix,
for fewer choices), and Welling's, of the highest inner product, which is what is called herding in
the literature. One thread, processor time.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from closeby.index import MaxIPIndex
from closeby.optimize import NearestSumIndex, herding, policy_gradient, random_discrepancy
from closeby.optimize.atoms import MatrixAtoms

from .conditional import mixture
from .greedy import greedy_discrepancy

EXACT_CHOICES = 100
RELAXATION = 1.5
# Ratios are of so many choices together: single ones go up and down.
TOGETHER = 100
STATES = 4
STEPS = 20
RUNS = 5


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """What the work gives, and the processor seconds that it took."""
    started = time.process_time()
    return work(), time.process_time() - started


def main_herding(items: np.ndarray, choose: int) -> dict[str, Any]:
    """Discrepancy after each choice of every way to choose."""
    target = items.mean(axis=0, dtype=np.float64)
    few = min(EXACT_CHOICES, choose)
    index, build = timed(lambda: NearestSumIndex(items))
    relaxed = f"relaxation {RELAXATION}"
    ways: dict[str, Callable[[], Any]] = {
        "closeby, index": lambda: herding(index, choose, target),
        f"closeby, index, {relaxed}": lambda: herding(index, choose, target, relaxation=RELAXATION),
        "greedy, random 1,000": lambda: herding(items, choose, target, oracle="subset"),
        f"random 1,000, {relaxed}": lambda: herding(
            items, choose, target, oracle="subset", relaxation=RELAXATION
        ),
        "greedy, all points": lambda: herding(items, few, target),
        "Welling, all points": lambda: herding(items, few, target, criterion="inner"),
    }
    rows, curves = [], {}
    for name, run in ways.items():
        found, seconds = timed(run)
        curves[name] = found.discrepancy.tolist()
        rows.append({"way": name, "chosen": len(found.ids), "seconds": seconds})
        print(rows[-1], flush=True)
    curves["at random"] = random_discrepancy(items, choose, target).tolist()
    rows.append({"way": "at random", "chosen": choose, "seconds": 0.0})
    exact = greedy_discrepancy(items, choose, target)
    if not np.allclose(exact[:few], curves["greedy, all points"], rtol=0.01):
        raise AssertionError("both exact herdings must be the same")
    curves["greedy, all points"] = exact.tolist()
    for row in rows:
        curve = np.array(curves[row["way"]])
        row["discrepancy"] = float(curve[row["chosen"] - 1])
        row["of_greedy_few"] = _ratio(curve, exact, few)
        row["of_greedy"] = _ratio(curve, exact, choose)
    result = {
        "build_seconds": build, "few": few, "choose": choose, "rows": rows, "curves": curves
    }  # fmt: skip
    print(herding_table(result))
    return result


def _ratio(curve: np.ndarray, exact: np.ndarray, chosen: int) -> float | None:
    """Of the discrepancies up to so many choices, the geometric mean of the last; None if fewer."""
    if len(curve) < chosen:
        return None
    last = slice(max(0, chosen - TOGETHER), chosen)
    return float(np.exp(np.mean(np.log(curve[last] / exact[last]))))


def herding_table(found: dict[str, Any]) -> str:
    """All ways as a table."""
    few, choose = found["few"], found["choose"]
    lines = [
        f"Index built in {found['build_seconds']:.1f} s. Ratios are of the discrepancy to that of "
        f"exact greedy herding after as many choices, means over the last {TOGETHER} of them.",
        "",
        f"| herding | chosen | seconds | discrepancy | ratio after {few:,} | after {choose:,} |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {r['way']} | {r['chosen']:,} | {r['seconds']:.3g} | {r['discrepancy']:.3g} | "
        f"{r['of_greedy_few']:.3g} | {r['of_greedy']:.3g} |"
        if r["of_greedy"] is not None
        else f"| {r['way']} | {r['chosen']:,} | {r['seconds']:.3g} | {r['discrepancy']:.3g} | "
        f"{r['of_greedy_few']:.3g} | |"
        for r in found["rows"]
    ]
    return "\n".join(lines)


def plot_herding(found: dict[str, Any], axes: Any) -> None:
    """Discrepancy against points chosen."""
    for name, curve in found["curves"].items():
        axes.plot(range(1, len(curve) + 1), curve, label=name)
    axes.set(xscale="log", yscale="log", xlabel="points chosen", ylabel="|mean - target|")


def main_policy(items: np.ndarray) -> dict[str, Any]:
    """Policy gradient over half of the atoms as actions, against comparing all of them."""
    actions = items[: max(1, len(items) // 2)]
    index = MaxIPIndex()
    index.add(actions)
    index.vectors([0])  # sorts the ids, once in the life of an index
    rng = np.random.default_rng(0)
    states = np.stack([mixture(actions, seed) for seed in rng.integers(1 << 30, size=STATES)])

    def grad_q(s: Any, policies: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return -0.5 * ((s - policies) ** 2).sum(axis=1), s - policies

    rows: dict[str, dict[str, Any]] = {}
    for name, given in (("exact", MatrixAtoms(actions)), ("index", index)):
        runs = [
            timed(lambda g=given: policy_gradient(grad_q, g, states, STEPS)) for _ in range(RUNS)
        ]
        result = runs[0][0]
        rows[name] = {
            "seconds": float(np.median([seconds for _, seconds in runs])),
            "values": [*result.trace["objective"].tolist(), float(result.values.mean())],
        }
    start, end = rows["exact"]["values"][0], rows["exact"]["values"][-1]
    found = {
        "actions": len(actions),
        "states": STATES,
        "steps": STEPS,
        "times_faster": rows["exact"]["seconds"] / rows["index"]["seconds"],
        "share_of_exact_gain": (rows["index"]["values"][-1] - start) / (end - start),
        "rows": rows,
    }
    print(policy_table(found))
    return found


def policy_table(found: dict[str, Any]) -> str:
    """Both as a table."""
    lines = [
        f"{found['actions']:,} actions, {found['states']} states, {found['steps']} steps; "
        f"medians of {RUNS} runs. {found['times_faster']:.0f} times faster, to "
        f"{100 * found['share_of_exact_gain']:.1f} % of what exact steps gain.",
        "",
        "| actions found by | seconds | mean value |",
        "|---|---|---|",
    ]
    lines += [
        f"| {name} | {row['seconds']:.4g} | {row['values'][-1]:.5g} |"
        for name, row in found["rows"].items()
    ]
    return "\n".join(lines)


def plot_policy(found: dict[str, Any], axes: Any) -> None:
    """What is missing to Q = 0 against time, of which each step took its share."""
    for name, row in found["rows"].items():
        values = row["values"]
        seconds = np.linspace(0, row["seconds"], len(values) + 1)[1:]
        axes.plot(seconds, -np.array(values), "o-", ms=3, label=name)
    axes.set(
        xscale="log",
        yscale="log",
        xlabel="processor seconds",
        ylabel="-Q, mean of the policies (lower is better)",
    )
