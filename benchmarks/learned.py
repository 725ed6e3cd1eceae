"""What `learn` finds on each task, and its recipe on test rows beside rules that need no learning.

    python -m benchmarks.learned --data DIR --grimoires DIR [--tasks TREC,Subj] [--limit 100] [--mode score]
        [--home DIR]

100 labelled rows a task, as in `paper.py`. Beside the recipe stand always few-shot, always profound+few-shot, always
zero-shot and always profound: the same examples, the same reading, fitted on the same rows as the recipe's. The test
rows are read once, after everything is fitted. What is kept in `results/learned/` are row hashes, what was found and
whether each was right, no text; the tables are of all that is kept;
`gains.py` makes of it what the package knows of a model. A stopped run goes on from
the journal.
"""

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.data import Data, grimoire_of, load
from sleicl_chains.answering.recipes import Choice, Recipe
from sleicl_chains.answering.solver import solver
from sleicl_chains.evaluation.summary import is_right
from sleicl_chains.files import Home
from sleicl_chains.grimoires.grimoire import Grimoire
from sleicl_chains.learning.crossfit import plain_reading
from sleicl_chains.learning.cut import cut
from sleicl_chains.learning.learn import recipe_of
from sleicl_chains.learning.lesson import Lesson
from sleicl_chains.learning.plan import Plan, forms_of
from sleicl_chains.models.embedders import embedder, remembered
from sleicl_chains.models.journal import Journal
from sleicl_chains.models.names import weak_model
from sleicl_chains.statistics import wilson

RESULTS = Path(__file__).parent / "results" / "learned"
TASKS = "TREC,banking-cards,Subj,SST5,AgNews,hate_speech18,RTE"
RULES = ("zero-shot", "few-shot", "profound", "profound+few-shot")
TRAIN_ROWS, DRAWS = 100, 10_000


def main() -> None:
    """Learn and test each task, keep what was found, and print the tables."""
    options = _options()
    RESULTS.mkdir(parents=True, exist_ok=True)
    for name in filter(None, options.tasks.split(",")):
        data = load(Path(options.data) / name, train=TRAIN_ROWS, test=options.limit, seed=options.seed)
        found = learned(data, grimoire_of(Path(options.grimoires) / name, options.sampler, data.task), options)
        kept = RESULTS / f"{name}-{found['mode']}-seed{options.seed}.json"
        kept.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        print(f"{name}: {found['seconds']:.0f} s", flush=True)
    kind = "score" if options.mode == "score" else "blend"
    show(
        {
            file.name.partition(f"-{kind}")[0]: json.loads(file.read_text("utf-8"))
            for file in sorted(RESULTS.glob(f"*-{kind}-*.json"))
        }
    )


def learned(data: Data, grimoire: Grimoire, options: argparse.Namespace) -> dict[str, Any]:
    """Learn one task; return what was found, and which test rows the recipe and each rule have right."""
    home = Home.at(options.home)
    weak, journal, space = weak_model(options.weak, home=home), Journal(home.journal), remembered(embedder())
    parts = cut(data.task, data.train, options.seed, [grimoire])
    mode, prior = plain_reading(weak, data.task, len(parts.tested))
    if options.mode == "score":
        mode, prior = "score", "mean"
    started, before = time.monotonic(), len(journal)
    plan = Plan.of(parts, [forms_of(grimoire)])
    lesson = Lesson(data.task, parts, plan, weak, [grimoire], mode, prior, options.seed, space, journal, None)
    forecast = lesson.forecast()
    outcome = lesson.run()
    seconds, calls = time.monotonic() - started, len(journal) - before
    recipes = {
        arm: recipe_of(
            lesson, {**outcome, **lesson.taken(Choice(arm=arm, mode=mode, ground=""))}, options.weak, {}, "wordllama"
        )
        for arm in RULES
    }
    right = {arm: _right(recipe, data, weak, space, journal) for arm, recipe in recipes.items()}
    return {
        "task": data.task.name, "weights": str(recipes["few-shot"].model.get("weights", "")), "model": options.weak,
        "mode": mode, "rows": [row.id for row in data.test], "right": right, "forecast": forecast,
        "seconds": round(seconds, 1), "new_calls": calls, "verdict": outcome["verdict"].model_dump(),
        "choice": outcome["choice"].model_dump(), "also_tried": [one.model_dump() for one in outcome["also_tried"]],
    }  # fmt: skip


def _right(recipe: Recipe, data: Data, weak: Any, space: Any, journal: Journal) -> str:
    """Return a digit a test row: 1 where the recipe is right."""
    chain = solver(recipe, model=weak, embeddings=space, journal=journal)
    said = [is_right(chain.invoke(row.text).answer, row.answer, data.task.labels) for row in data.test]
    return "".join("01"[one] for one in said)


def show(found: Mapping[str, Mapping[str, Any]]) -> None:
    """Print what was found in each task, and the rules beside the recipe."""
    print("| task | rows | verdict | difference | p | smallest shown | recipe | expected | minutes |")
    print("|---|---:|---|---|---:|---:|---|---:|---:|")
    for name, one in found.items():
        verdict, choice = one["verdict"], one["choice"]
        shown = "none" if verdict["smallest_shown"] is None else f"{verdict['smallest_shown']:.2f}"
        print(
            f"| {name} | {verdict['n']} | {verdict['finding']} | {verdict['difference']:+.3f} [{verdict['low']:+.3f}, "
            f"{verdict['high']:+.3f}] | {verdict['p']:.3f} | {shown} | {choice['arm']} | {choice['expected']:+.3f} | "
            f"{one['seconds'] / 60:.1f} |"
        )
    arms = ["recipe", *RULES]
    print("| test rows | " + " | ".join(arms) + " |\n|---|" + "---:|" * len(arms))
    table = {name: _table(one) for name, one in found.items()}
    for name, right in table.items():
        cells = [_rate(right[arm]) for arm in arms]
        print(f"| {name} ({len(right['recipe'])}) | " + " | ".join(cells) + " |")
    for rule in RULES:
        print(
            f"the recipe less always {rule}: {_difference([right['recipe'] - right[rule] for right in table.values()])}"
        )


def _table(one: Mapping[str, Any]) -> dict[str, Any]:
    right = {arm: np.array([int(digit) for digit in digits]) for arm, digits in one["right"].items()}
    return {"recipe": right[one["choice"]["arm"]], **right}


def _rate(right: Any) -> str:
    low, high = wilson(int(right.sum()), len(right))
    return f"{right.mean():.3f} [{low:.2f}, {high:.2f}]"


def _difference(steps: Sequence[Any]) -> str:
    """Return the mean over tasks of the difference, and its interval by a bootstrap of the rows within each task."""
    rng = np.random.default_rng(0)
    draws = [one[rng.integers(0, len(one), (DRAWS, len(one)))].mean(axis=1) for one in steps]
    low, high = np.quantile(np.mean(draws, axis=0), (0.025, 0.975))
    return f"{np.mean([one.mean() for one in steps]):+.4f} [{low:+.4f}, {high:+.4f}]"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--grimoires", required=True)
    parser.add_argument("--tasks", default=TASKS)
    parser.add_argument("--weak", default="embedded:qwen2.5-coder-1.5b")
    parser.add_argument("--sampler", default="k-means", help="which grimoire: the beginning of its file's name")
    parser.add_argument("--mode", choices=["plain", "score"], default="plain", help="read plainly, or by `score`")
    parser.add_argument("--limit", type=int, default=100, help="test rows")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--home")
    return parser.parse_args()


if __name__ == "__main__":
    main()
