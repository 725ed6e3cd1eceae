"""Does choosing a grimoire for each question help? Eight that GPT-4 wrote of one task, and four ways to choose.

    python -m benchmarks.choosers --data DIR --grimoires DIR [--tasks TREC,Subj,AgNews] [--limit 100] [--home DIR]

100 labelled rows and 100 test rows a task, chosen as `paper.py` does; the weak model answers all of them with each
grimoire (profound, labels scored, the prior `mean` taken off). What is compared on the test rows:

- `mean`: the mean accuracy of the eight, which is what a grimoire taken at random gives;
- `best on train`: the one that was right most often on the labelled rows;
- `similar`, `classifier`: `solver(..., grimoires=[...], choose=...)`, with the embeddings wordllama and minilm;
- `oracle`: right where any of the eight is, which no chooser can pass.

Intervals are paired bootstraps over test rows against `mean`. What is kept in `results/choosers/` are row hashes and
whether each grimoire was right, no text. A stopped run goes on from the journal.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import numpy as np

from benchmarks.data import grimoire_of, load
from sleicl_chains import Answer, Example, Journal, solver, weak_model
from sleicl_chains.answering.choosing import Choose
from sleicl_chains.answering.priors import prior_texts
from sleicl_chains.files import Home
from sleicl_chains.models.embedders import embedder

if TYPE_CHECKING:
    from langchain_core.runnables import Runnable
    from numpy.typing import NDArray

RESULTS = Path(__file__).parent / "results" / "choosers"
NAMES = (
    "k-means-4", "hierarchical-4", "random-4", "random-0", "keep-hard-4-shot-hard-for-Baichuan2_7B_Chat-1.0",
    "keep-hard-4-shot-hard-for-LLaMA2_13B_Chat-1.0", "keep-hard-4-shot-hard-for-PHI2-1.0",
    "keep-hard-4-shot-hard-for-gpt-3.5-turbo-1.0",
)  # fmt: skip
"""Beginnings of the files' names: each sampler once, and the hard one for four weak models."""
SPACES = ("wordllama", "minilm")
TRAIN_ROWS, DRAWS = 100, 2000


def main() -> None:
    """Ask all tasks, print a table and keep what was right."""
    options = _options()
    home = Home.at(options.home)
    weak, journal = weak_model(options.weak, home=home), Journal(home.journal)
    tables = {}
    for name in options.tasks.split(","):
        task, train, test = load(Path(options.data) / name, train=TRAIN_ROWS, test=options.limit, seed=0)
        guides = [grimoire_of(Path(options.grimoires) / name, start, task) for start in NAMES]
        texts = prior_texts(train, task, seed=0)
        plain = solver(weak, task, prior_texts=texts, journal=journal)
        alone = [
            solver(weak, task, arm="profound", grimoire=guide, prior_texts=texts, journal=journal) for guide in guides
        ]
        on_train, on_test = (np.array([right(one, rows) for one in alone]).T for rows in (train, test))
        arms: dict[str, NDArray[np.bool_]] = {
            "zero-shot": right(plain, test),
            "best on train": on_test[:, on_train.sum(axis=0).argmax()],
            "oracle": np.asarray(on_test.any(axis=1)),
        }
        for space in SPACES:
            for choose in get_args(Choose):
                chain = solver(
                    weak, task, arm="profound", grimoires=guides, choose=choose, train=train, prior_texts=texts,
                    embeddings=embedder(space, home=home), journal=journal,
                )  # fmt: skip
                arms[f"{choose}, {space}"] = right(chain, test)
        tables[name] = (on_test, arms)
        keep(name, test, on_train, on_test, arms)
        show(name, on_test, arms)
    if len(tables) > 1:
        every = np.concatenate([on_test for on_test, _ in tables.values()])
        first = next(iter(tables.values()))[1]
        show("all", every, {arm: np.concatenate([arms[arm] for _, arms in tables.values()]) for arm in first})


def right(chain: "Runnable[str, Answer]", rows: Sequence[Example]) -> "NDArray[np.bool_]":
    """(n_rows,): whether the chain's answers are right."""
    said = []
    for at, row in enumerate(rows):
        said.append(chain.invoke(row.text).answer == row.answer)
        print(f"\r{at + 1} of {len(rows)}", end="", flush=True)
    print("\r", end="")
    return np.array(said)


def show(name: str, on_test: "NDArray[np.bool_]", arms: "dict[str, NDArray[np.bool_]]") -> None:
    """Print accuracies, and the difference of each to the mean of the grimoires."""
    each, mean = on_test.mean(axis=0), on_test.mean(axis=1)
    print(f"\n{name}, {len(on_test)} rows: each grimoire {' '.join(f'{value:.3f}' for value in each)}")
    print(f"{'mean':22}{mean.mean():.3f}")
    rng = np.random.default_rng(0)
    draws = rng.integers(0, len(mean), (DRAWS, len(mean)))
    for arm, said in arms.items():
        apart = said - mean
        low, high = np.quantile(apart[draws].mean(axis=1), (0.025, 0.975))
        print(f"{arm:22}{said.mean():.3f}  {apart.mean():+.3f} [{low:+.3f}, {high:+.3f}]")


def keep(
    name: str, test: Sequence[Example], on_train: "NDArray[np.bool_]", on_test: "NDArray[np.bool_]",
    arms: "dict[str, NDArray[np.bool_]]",
) -> None:  # fmt: skip
    """Write one file without any text: row hashes, and 1 where an answer was right."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    told = {
        "rows": [row.id for row in test], "grimoires": list(NAMES), "on_train": _digits(on_train.T),
        "on_test": _digits(on_test.T), "arms": {arm: _digits([said])[0] for arm, said in arms.items()},
    }  # fmt: skip
    (RESULTS / f"{name}-{len(test)}.json").write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")


def _digits(rows: "Sequence[NDArray[np.bool_]] | NDArray[np.bool_]") -> list[str]:
    return ["".join("01"[int(one)] for one in row) for row in rows]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--grimoires", required=True)
    parser.add_argument("--tasks", default="TREC,Subj,AgNews")
    parser.add_argument("--weak", default="embedded:qwen2.5-coder-1.5b")
    parser.add_argument("--limit", type=int, default=100)
    parser.add_argument("--home")
    return parser.parse_args()


if __name__ == "__main__":
    main()
