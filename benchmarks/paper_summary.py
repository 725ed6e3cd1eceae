"""What `paper.py` found, tasks and seeds together: figures, verdicts, and whether the recipe reaches its goal.

    python benchmarks/paper_summary.py [--weak MODEL] [--embeddings minilm] [--prior none] [--sampler k-means]
        [--tasks TREC,Subj] [--limit 300]
        [--leave-out AgNews-2] [--pair simple+hidden,zero-shot+hidden]

Reads `results/paper/` alone. The recipe is set against the best single method without a grimoire: one method for all
tasks, taken by its mean macro-F1 on the rows that the recipes were chosen on. Intervals are paired bootstraps
over test rows (2,000 draws within each task, all seeds of a row together).
"""

import argparse
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from paper import PRIOR, RESULTS, SAMPLER, SPACE, TASKS, WEAK, read_kept, suffix

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

DRAWS = 2000
LEVEL = 0.05
BASELINES = ("majority", "probe", "probe-minilm")
METHODS = {
    "zero-shot / mean": "zero-shot", "few-shot / mean": "few-shot", "zero-shot+hidden": "zero-shot+hidden",
    "few-shot+hidden": "few-shot+hidden", "zero-shot+fusion": "zero-shot+fusion", "few-shot+fusion": "few-shot+fusion",
    "zero-shot+blend": "zero-shot+blend", "few-shot+blend": "few-shot+blend", "knn / mean": "knn",
}  # fmt: skip
"""Methods without a grimoire: the name in a recipe's trials, and in the table."""


@dataclass(frozen=True)
class Found:
    """One task: its seeds' reports and predictions, rows in the same order everywhere."""

    task: str
    seeds: list[str]
    reports: list[dict[str, Any]]
    kept: list[dict[str, Any]]

    @cached_property
    def rows(self) -> list[str]:
        """The row hashes."""
        return sorted(self.kept[0]["gold"])

    @cached_property
    def gold(self) -> list[str]:
        """The right answers."""
        return [self.kept[0]["gold"][row] for row in self.rows]

    @cached_property
    def arms(self) -> list[str]:
        """The arms that every seed has."""
        return [arm for arm in self.kept[0]["predictions"] if all(arm in one["predictions"] for one in self.kept)]

    def predictions(self, arm: str) -> list[list[str | None]]:
        """Return an arm's answers, a list a seed."""
        return [[one["predictions"][arm][row] for row in self.rows] for one in self.kept]

    def accuracy(self, arm: str, weights: "Array") -> "Array":
        """Return the accuracy under each draw of row weights (draws x rows), the mean over seeds."""
        right = [
            [answer == gold for answer, gold in zip(said, self.gold, strict=True)] for said in self.predictions(arm)
        ]
        found: Array = (weights @ np.array(right, dtype=float).T / len(self.rows)).mean(axis=1)
        return found

    def macro_f1(self, arm: str, weights: "Array") -> "Array":
        """Return the macro-F1 under each draw of row weights (draws x rows), the mean over seeds."""
        return np.mean([self._f1(said, weights) for said in self.predictions(arm)], axis=0)  # type: ignore[no-any-return]

    def _f1(self, said: Sequence[str | None], weights: "Array") -> "Array":
        labels = sorted({*self.gold, *(label for label in said if label is not None)})
        gold = np.array([[answer == label for label in labels] for answer in self.gold], dtype=float)
        told = np.array([[answer == label for label in labels] for answer in said], dtype=float)
        involved = weights @ (gold + told)
        scores = np.where(involved > 0, 2 * (weights @ (gold * told)) / np.maximum(involved, 1e-9), np.nan)
        found: Array = np.nanmean(scores, axis=1)
        return found

    def whole(self) -> "Array":
        """Return the weights of the rows as they are."""
        return np.ones((1, len(self.rows)))

    def draws(self) -> "Array":
        """Return the weights of `DRAWS` bootstrap samples."""
        n = len(self.rows)
        return np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), size=DRAWS).astype(float)


def main() -> None:
    """Print everything."""
    options = _options()
    tasks, left_out = options.tasks.split(","), options.leave_out.split(",")
    unusual = suffix(options.weak, options.embeddings, options.prior, options.sampler)
    every = (read(task, unusual, options.limit, left_out) for task in tasks)
    found = [one for one in every if one]
    if not found:
        raise SystemExit("results/paper has nothing of this model; run paper.py first")
    seeds = ", ".join(f"{one.task} {len(one.kept)}" for one in found)
    print(
        f"{options.weak}, {options.embeddings}; seeds: {seeds}; test rows: "
        + ", ".join(f"{one.task} {len(one.rows)}" for one in found)
    )
    print_table("accuracy", found)
    print_table("macro-F1", found)
    for one in found:
        print_verdicts(one)
    able = [one for one in found if can_do(one)]
    unable = ", ".join(one.task for one in found if one not in able) or "none"
    print(f"\nThis model cannot do this (no arm shown above majority, Bonferroni): {unable}")
    if able and all("recipe" in one.arms for one in found):
        print_goal(able, best_method(found))
    for pair in options.pairs:
        arm, _, rival = pair.partition(",")
        print_pair(found, arm, rival, "accuracy")
        print_pair(able, arm, rival, "macro-F1")


def read(task: str, unusual: str, limit: int, left_out: Sequence[str] = ()) -> Found | None:
    """Return what is kept of a task but for the seeds TASK-SEED that are left out; None where nothing is."""
    names = f"{task}-score{unusual}-{limit}-seed?.json"
    by_seed = {path.stem.rpartition("seed")[2]: path.stem for path in sorted(RESULTS.glob(names))}
    kept = {seed: read_kept(stem) for seed, stem in by_seed.items() if f"{task}-{seed}" not in left_out}
    reports, found = [report for report, _ in kept.values()], [found for _, found in kept.values()]
    return Found(task, list(kept), reports, found) if kept else None


# ------------------------------------------------------------------ tables


def print_table(what: str, found: Sequence[Found]) -> None:
    """Print one figure of every arm on every task, the mean over seeds."""
    arms = list(dict.fromkeys(arm for one in found for arm in one.arms))
    print(f"\n| {what} | " + " | ".join(one.task for one in found) + " |\n|---|" + "---:|" * len(found))
    for arm in arms:
        print(f"| {arm} | " + " | ".join(_figure(one, arm, what) for one in found) + " |")


def _figure(one: Found, arm: str, what: str) -> str:
    if arm not in one.arms:
        return ""
    value = one.accuracy(arm, one.whole()) if what == "accuracy" else one.macro_f1(arm, one.whole())
    return f"{value[0]:.3f}"


def print_verdicts(one: Found) -> None:
    """Print each seed's verdict on the grimoire, as the recipe has it, and what the recipe took."""
    for seed, report in zip(one.seeds, one.reports, strict=True):
        recipe = report.get("recipe")
        if not recipe:
            continue
        print(
            f"{one.task}, seed {seed}: {_verdict(recipe['verdict'])}; recipe: {recipe['arm']}, {recipe['mode']}; "
            f"learned in {recipe['seconds']:.0f} s ({recipe['new_calls']} new calls)"
        )


def _verdict(found: dict[str, Any]) -> str:
    if found["difference"] is None:
        return f"{found['finding']}: {found['why']}"
    span = f"{found['difference']:+.3f} [{found['low']:+.3f}, {found['high']:+.3f}], p {found['p']:.3f}"
    shown, plain = found.get("pair") or (found["best_with"], found["best_without"])  # the latter in earlier results
    return f"{found['finding']}: {shown} against {plain}, n {found['n']}: {span}"


# ------------------------------------------------------------------ the goal


def can_do(one: Found) -> bool:
    """Say whether some arm of the model is shown to be more accurate than the most frequent label."""
    arms = [arm for arm in one.arms if arm not in BASELINES]
    weights = one.draws()
    floor = one.accuracy("majority", weights)
    level = 100 * LEVEL / 2 / len(arms)
    return any(np.percentile(one.accuracy(arm, weights) - floor, level) > 0 for arm in arms)


def best_method(found: Iterable[Found]) -> str:
    """Return the method without a grimoire that is best over all tasks, on the rows that recipes were chosen on.

    One that a race dropped after half of the rows is out: there it was clearly behind. Recipes since then raced none:
    for them it is few-shot, against which their grimoires were tested.
    """
    scores: dict[str, list[float]] = defaultdict(list)
    for report in (report for one in found for report in one.reports):
        for trial in report["recipe"].get("trials", ()):
            if trial["name"] in METHODS and not trial["dropped"]:
                scores[METHODS[trial["name"]]].append(trial["macro_f1"])
    if not scores:
        return "few-shot"
    full = max(map(len, scores.values()))
    means = {name: float(np.mean(values)) for name, values in scores.items() if len(values) == full}
    print("\nMean macro-F1 on choose rows: " + ", ".join(f"{name} {mean:.3f}" for name, mean in means.items()))
    return max(means, key=lambda name: means[name])


def print_goal(able: Sequence[Found], method: str) -> None:
    """Print the recipe against the best single method, and against zero-shot task by task."""
    names = ", ".join(one.task for one in able)
    for rival in dict.fromkeys([method, "zero-shot", "probe", "probe-minilm"]):
        print(f"recipe less {rival}, macro-F1 over {names}: {_over_tasks(able, 'recipe', rival)}")
    below = {one.task: _below(one, "zero-shot") for one in able}
    for rank, task in enumerate(sorted(below, key=lambda name: below[name])):
        held = below[task] * (len(below) - rank) >= LEVEL
        print(f"{task}: recipe below zero-shot: p = {below[task]:.3f}, Holm: {'not shown' if held else 'BELOW'}")
        if held:
            break


def print_pair(found: Sequence[Found], arm: str, rival: str, what: str) -> None:
    """Print how far one arm is above another: on each task, and over all that have both.

    In accuracy every row counts alike; in macro-F1 every task does.
    """
    both = [one for one in found if arm in one.arms and rival in one.arms]
    if not both:
        print(f"{arm} less {rival}, {what}: no task has both arms in every seed")
        return
    told = [f"{one.task} {_over_tasks([one], arm, rival, what)}" for one in both]
    over = f"{sum(len(one.rows) for one in both)} rows" if what == "accuracy" else f"{len(both)} tasks"
    print(f"{arm} less {rival}, {what}: {'; '.join(told)}; over {over}: {_over_tasks(both, arm, rival, what)}")


def _over_tasks(found: Sequence[Found], arm: str, rival: str, what: str = "macro-F1") -> str:
    """Return the mean difference of two arms, with its interval, in words."""
    shares = [len(one.rows) if what == "accuracy" else 1 for one in found]

    def steps(one: Found, weights: "Array") -> "Array":
        measure = one.accuracy if what == "accuracy" else one.macro_f1
        return measure(arm, weights) - measure(rival, weights)

    drawn = np.average([steps(one, one.draws()) for one in found], axis=0, weights=shares)
    low, high = np.percentile(drawn, [2.5, 97.5])
    whole = np.average([steps(one, one.whole()) for one in found], axis=0, weights=shares)
    return f"{whole[0]:+.3f} [{low:+.3f}, {high:+.3f}]"


def _below(one: Found, rival: str) -> float:
    """Return the two-sided bootstrap p of the recipe being below a rival; 1 where it is not below at all."""
    steps = one.macro_f1("recipe", one.draws()) - one.macro_f1(rival, one.draws())
    return min(1.0, 2 * float((steps >= 0).mean())) if np.median(steps) < 0 else 1.0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weak", default=WEAK)
    parser.add_argument("--embeddings", default=SPACE)
    parser.add_argument("--prior", default=PRIOR)
    parser.add_argument("--sampler", default=SAMPLER)
    parser.add_argument("--tasks", default=TASKS)
    parser.add_argument("--limit", type=int, default=300)
    parser.add_argument(
        "--pair", dest="pairs", action="append", default=[], metavar="ARM,RIVAL",
        help="how far one arm is above another, on the tasks that the model can do",
    )  # fmt: skip
    parser.add_argument("--leave-out", default="", help="TASK-SEED,...: recipes learned by an earlier rule, say")
    return parser.parse_args()


if __name__ == "__main__":
    main()
