"""What the nearest grimoire of *another* task does to a weak model: what a wrong match costs.

    python benchmarks/borrowed.py --data DIR --home DIR [--tasks TREC,Subj,AgNews] [--weak MODEL] [--limit 100]

For each task the shipped grimoires are matched to its card, those of the task itself left out (`OWN`). The best one is
shown whether it counts as fitting or not, and the table says which. Both forms are compared with zero-shot on the same
test rows, labels scored, the prior from training texts without their answers. What is kept in `results/borrowed/` holds
row hashes, labels and predictions, no text. A stopped run goes on from the journal.
"""

import argparse
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from data import Data, load
from paper import HERE, keep, predictions, slug

from sleicl_chains.cli.console import Meter
from sleicl_chains.evaluation.table import ArmBuilder
from sleicl_chains.files import Home
from sleicl_chains.grimoires.match import Match
from sleicl_chains.grimoires.store import GrimoireStore
from sleicl_chains.models.embedders import embedder
from sleicl_chains.models.journal import Journal
from sleicl_chains.models.names import weak_model
from sleicl_chains.statistics import paired_difference
from sleicl_chains.tasks.cards import Task

RESULTS = HERE / "results" / "borrowed"
OWN = {"TREC": {"question-type"}, "AgNews": {"news-topic"}, "SST5": {"sentiment"}, "hate_speech18": {"toxicity"}}
"""Shipped grimoires whose task is the same as that of the rows."""
ARMS = ("zero-shot", "simple", "profound")
ALL = 1_000_000


def main() -> None:
    """Match, ask, print a line a form, and keep the predictions."""
    options = _options()
    home = Home.at(options.home)
    for name in options.tasks.split(","):
        data = load(Path(options.data) / name, train=ALL, test=options.limit, seed=0)
        hit = borrowed(data.task, OWN.get(name, set()), home)
        found = answered(options, data, hit, f"borrowed-{name}-{hit.grimoire.id}-{slug(options.weak)}-{options.limit}")
        right = right_of(found)
        arms = [{"arm": arm, "accuracy": sum(said) / len(said)} for arm, said in right.items()]
        about = {"task": name, "grimoire": hit.grimoire.id, "score": round(hit.score, 4), "why": str(hit.why)}
        about |= {"weak": options.weak, "n": len(data.test), "arms": arms}
        keep(about, found, f"{name}-{slug(options.weak)}", RESULTS)
        print(f"{name}, {len(data.test)} rows: {hit.grimoire.task}, similarity {hit.score:.2f}, {hit.why}")
        show(right)


def answered(options: argparse.Namespace, data: Data, hit: Match, run: str) -> dict[str, Any]:
    """Return the right answers and each arm's by row hash; what is in `work/` already is not asked again."""
    home = Home.at(options.home)
    builder = ArmBuilder(
        data.task, weak_model(options.weak, home=home), embedder(), grimoire=hit.grimoire, mode="score", prior="mean",
        seed=0, journal=Journal(home.journal), home=home, texts=[row.text for row in data.train],
    )  # fmt: skip
    arms = builder.build(ARMS)
    with Meter(arms) as meter:
        report = builder.evaluate(arms, data.test, options.weak, run=HERE / "work" / run, progress=meter)
    return predictions(Path(report.run))


def right_of(found: Mapping[str, Any]) -> dict[str, list[bool]]:
    """Return by arm which rows are right."""
    gold = found["gold"]
    return {arm: [found["predictions"][arm][row] == answer for row, answer in gold.items()] for arm in ARMS}


def show(right: Mapping[str, list[bool]]) -> None:
    """Print each arm's accuracy, and its difference to zero-shot."""
    for arm, said in right.items():
        difference, low, high = paired_difference(said, right["zero-shot"])
        print(f"  {arm:9} {sum(said) / len(said):.3f}  {difference:+.3f} [{low:+.3f}, {high:+.3f}]", flush=True)


def borrowed(task: Task, own: set[str], home: Home) -> Match:
    """Return the nearest shipped grimoire that is of another task."""
    with tempfile.TemporaryDirectory() as folder:  # a library without anything of the user's
        hits = GrimoireStore(Home(Path(folder)), embedder("minilm", home=home)).match(task, k=20, threshold=0.0)
    return next(hit for hit in hits if hit.grimoire.task not in own)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--tasks", default="TREC,Subj,AgNews")
    parser.add_argument("--weak", default="embedded:qwen2.5-coder-1.5b")
    parser.add_argument("--limit", type=int, default=100)
    parser.add_argument("--home")
    return parser.parse_args()


if __name__ == "__main__":
    main()
