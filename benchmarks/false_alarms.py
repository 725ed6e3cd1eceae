"""How often `learn` says "helps" or "hurts" where there is nothing to find, and how often it finds what is there.

    python -m benchmarks.false_alarms [--runs 200] [--rows 50,80,200] [--gains 0] [--readings blend] [--shuffled]
        [--shared .5,.95]

No language model is asked. Made-up evidence, label scores and states, is drawn around each row's right answer under
two different prompts. Part of the noise is the row's own, the same under both (`--shared`), the rest the prompt's: they
are equally good by construction, and disagree about the harder rows, a quarter of them at .5 and a tenth at .95.
`--gains 5,10` makes the prompt with the grimoire better by so many points of accuracy, as the likeliest label has it.
`--shuffled` shuffles the labels of the rows instead, so that nothing can be found. Each run goes through the folds, the
readers and the test of `learn`.

Keeps a line a run in `results/false_alarms.jsonl` with the p of both tests, by right or wrong and by score, so
that a level can be set without running again; a changed reader or fold starts from nothing. Prints a table with Wilson
intervals, at the level of `learn` and at others.
"""

import argparse
import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sleicl_chains.answering.evidence import Observation
from sleicl_chains.learning.crossfit import CrossFit, Groups, Held
from sleicl_chains.learning.verdict import LEVELS, Tests, finding_of, rights
from sleicl_chains.models.abilities import LabelScores
from sleicl_chains.statistics import sign_flips, wilson
from sleicl_chains.tasks.cards import Task
from sleicl_chains.tasks.rows import Example

Array = NDArray[np.float64]

LABELS = ("north", "east", "south")
TASK = Task(name="made-up", task_type="classification", description="Say where each case lies.", labels=LABELS)
SIGNAL = 1.0
"""Distance of the right answer's evidence from the others', in standard deviations of the noise."""
WIDTH = 24
"""Numbers in a made-up state."""
READINGS: dict[str, Groups] = {"blend": [("scores",), ("state",), ("vector",)], "score": []}
RESULTS = Path(__file__).parent / "results" / "false_alarms.jsonl"
BESIDE = (0.1, 0.05, 0.03, 0.02, 0.01, 0.005)


@dataclass(frozen=True)
class Setting:
    """What a line of the table is about."""

    readings: str
    rows: int
    gain: int
    """Points of accuracy."""
    shuffled: bool
    shared: float = 0.5
    """The part of the noise's variance that is the row's own, under both prompts the same."""


def run(setting: Setting, draw: int) -> dict[str, Any]:
    """Return what both tests say of one made-up task."""
    rng = np.random.default_rng(draw)
    gold = rng.integers(0, len(LABELS), setting.rows)
    said = rng.permutation(gold) if setting.shuffled else gold
    rows = [Example(f"case {draw}-{at}", LABELS[label]) for at, label in enumerate(said)]
    shared = [rng.normal(size=(setting.rows, width)) for width in (len(LABELS), WIDTH)]
    vectors = rng.normal(size=(setting.rows, 8))  # embeddings that tell nothing
    crossfit, groups = CrossFit(TASK, rows), READINGS[setting.readings]
    theirs, ours = (
        crossfit.held_out(evidence(rng, gold, shared, vectors, SIGNAL + more, setting.shared), groups)
        for more in (0.0, bonus(setting.gain))
    )
    right, baseline = rights(ours, rows, LABELS), rights(theirs, rows, LABELS)
    steps = [np.subtract(right, baseline, dtype=float), np.subtract(scores(ours), scores(theirs))]
    return {
        "right": [sign_flips([steps[0].tolist()])[0], float(steps[0].sum())],
        "score": [sign_flips([steps[1].tolist()])[0], float(steps[1].sum())],
        "difference": float(steps[0].mean()), "apart": float((right != baseline).mean()),
        "accuracy": float(baseline.mean()), "spread": float(steps[1].std()),
    }  # fmt: skip


def scores(held: Sequence[Held]) -> list[float]:
    """Return the quadratic score of each row."""
    return [one.score or 0.0 for one in held]


def evidence(
    rng: np.random.Generator,
    gold: NDArray[np.int_],
    common: Sequence[Array],
    vectors: Array,
    signal: float,
    shared: float,
) -> list[Observation]:
    """Return what a made-up model shows of each row under one prompt."""
    scores, states = ((1 - shared) ** 0.5 * rng.normal(size=own.shape) + shared**0.5 * own for own in common)
    at = np.arange(len(gold))
    scores[at, gold] += signal
    states[at, gold * 2] += signal
    states[at, gold * 2 + 1] += signal
    powers = np.exp(scores + np.array([1.0, 0.0, 0.0]))  # with a prior that favours the first label
    shares = powers / powers.sum(axis=1, keepdims=True)
    return [
        Observation(LabelScores(dict(zip(LABELS, map(float, share), strict=True)), 1.0, 10, 1), state, vector)
        for share, state, vector in zip(shares, states.tolist(), vectors.tolist(), strict=True)
    ]


def accuracy(signal: float) -> float:
    """Return how often the right label's score is the highest: the integral of p(z - signal) P(z)^(labels - 1)."""
    from scipy.stats import norm

    at = np.linspace(-8, 8 + signal, 4001)
    return float(np.trapezoid(norm.pdf(at - signal) * norm.cdf(at) ** (len(LABELS) - 1), at))


@cache
def bonus(gain: int) -> float:
    """Return what is to be added to the signal for so many more points of accuracy."""
    from scipy.optimize import brentq

    wanted = accuracy(SIGNAL) + gain / 100
    return float(brentq(lambda more: accuracy(SIGNAL + more) - wanted, 0, 10)) if gain else 0.0


def main() -> None:
    """Run what is missing, and print the table."""
    options = _options()
    started = time.monotonic()
    for values in product(options.readings, options.rows, options.gains, [options.shuffled], options.shared):
        setting = Setting(*values)
        known = {record["draw"] for record in records() if setting_of(record) == setting}
        for draw in range(options.runs):
            if draw not in known:
                keep({"code": code(), **asdict(setting), "draw": draw, **run(setting, draw)})
        print(f"{setting}: {time.monotonic() - started:.0f} s", flush=True)
    print_table()


def keep(record: dict[str, Any]) -> None:
    """Write a run's line, numbers to six digits after the point, which tells every p of 10,000 flips from the next."""
    short = json.loads(json.dumps(record), parse_float=lambda digits: round(float(digits), 6))
    with RESULTS.open("a", encoding="utf-8") as file:
        file.write(json.dumps(short) + "\n")


def records() -> list[dict[str, Any]]:
    """Return the runs of the readers as they are now."""
    found = [json.loads(line) for line in RESULTS.read_text("utf-8").splitlines()] if RESULTS.exists() else []
    return [record for record in found if record["code"] == code()]


def setting_of(record: dict[str, Any]) -> Setting:
    """Return which setting a run is of."""
    return Setting(**{name: record[name] for name in Setting.__dataclass_fields__})


@cache
def code() -> str:
    """Return eight digits that tell these readers from others by what they make of two small tasks."""
    found = [run(Setting(readings, 30, 5, shuffled=False), draw) for readings, draw in (("blend", 0), ("score", 1))]
    told = [{name: np.round(value, 2).tolist() for name, value in one.items()} for one in found]
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:8]


def print_table() -> None:
    """Print all settings under both tests."""
    names = sorted({setting_of(record) for record in records()}, key=lambda one: tuple(asdict(one).values()))
    print(f"levels of learn: {LEVELS}; helps + hurts at other levels beside them")
    print(
        "| labels | gain | shared | reading | rows | runs | test | helps | hurts | "
        + " | ".join(map(str, BESIDE))
        + " |"
    )
    print("|---|---:|---:|---|---:|---:|---|---:|---:|" + "---:|" * len(BESIDE))
    tests: tuple[Tests, ...] = ("right", "score")
    for setting, test in product(names, tests):
        found = [record for record in records() if setting_of(record) == setting]
        both = [[_says(record, test, level) for record in found] for level in (LEVELS[test], *BESIDE)]
        cells = [_rate(both[0].count(word), len(found)) for word in ("helps", "hurts")]
        cells += [f"{sum(map(bool, said)) / len(found):.3f}" for said in both[1:]]
        labels = "shuffled" if setting.shuffled else "right"
        print(
            f"| {labels} | {setting.gain} | {setting.shared} | {setting.readings} | {setting.rows} | {len(found)} "
            f"| {test} | {' | '.join(cells)} |"
        )


def _says(record: dict[str, Any], test: str, level: float) -> str:
    p, total = record[test]
    finding = finding_of(p, level, total, record["difference"])
    return "" if finding == "no difference shown" else finding


def _rate(count: int, runs: int) -> str:
    low, high = wilson(count, runs)
    return f"{count / runs:.3f} [{low:.3f}, {high:.3f}]"


def _options() -> argparse.Namespace:
    def numbers(text: str) -> list[int]:
        return [int(part) for part in text.split(",")]

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--rows", type=numbers, default=[50, 80, 200])
    parser.add_argument("--gains", type=numbers, default=[0], help="points of accuracy")
    parser.add_argument("--readings", type=lambda text: text.split(","), default=["blend"])
    parser.add_argument("--shuffled", action="store_true")
    parser.add_argument("--shared", type=lambda text: [float(part) for part in text.split(",")], default=[0.5, 0.95])
    return parser.parse_args()


if __name__ == "__main__":
    main()
