"""What the starter library does to a weak model, on rows that nobody saw who wrote it.

    python benchmarks/starter.py --data DIR [--data DIR] [--weak MODEL] [--tasks spam,toxicity] [--limit 100] [--seed 0]
        [--home DIR] [--write]

DIR/SOURCE/{task.json,train.jsonl,test.jsonl} are the rows; each DIR is looked in. The simple and the profound form are
compared with zero-shot, whose prompt has the grimoire's own card too; the prior is estimated on training texts without
their answers. A source's answers need not be the grimoire's labels: `SOURCES` says which labels count as right.

Prints each effect, and the lines for the grimoire's front matter, which `--write` puts there. What is kept in
`results/starter/` holds row hashes, labels and predictions, no text. A stopped run goes on when started again.
"""

import argparse
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import yaml
from data import Data, load
from paper import HERE, keep, predictions, slug

from sleicl_chains.cli.console import Meter
from sleicl_chains.evaluation.table import ArmBuilder
from sleicl_chains.files import Home, write_whole
from sleicl_chains.grimoires.grimoire import Effect, Grimoire, load_grimoire
from sleicl_chains.models.embedders import embedder
from sleicl_chains.models.journal import Journal
from sleicl_chains.models.names import weak_model
from sleicl_chains.statistics import paired_difference
from sleicl_chains.tasks.cards import Task

RESULTS = HERE / "results" / "starter"
LIBRARY = HERE.parent / "vectorstore" / "grimoires"
WEAK = "embedded:qwen2.5-coder-1.5b"
FORMS: tuple[Literal["simple", "profound"], ...] = ("simple", "profound")
ARMS = ("zero-shot", *FORMS)
LEAST_ROWS = 100
"""An effect on fewer rows does not go into a grimoire's front matter."""
ALL = 1_000_000


@dataclass(frozen=True)
class Source:
    """Rows for a grimoire's task; `right` says which labels are right for an answer that is none of them."""

    name: str
    right: Mapping[str, tuple[str, ...]]

    def accepts(self, answer: str, label: str | None) -> bool:
        """Return whether a grimoire's label is right for a row of this answer."""
        return label in self.right.get(answer, (answer,))


SOURCES = {
    "news-topic": Source("AgNews", {}),
    "question-type": Source("TREC", {}),
    # The finer scale splits two of the three labels, and no boundary between those moves.
    "sentiment": Source("SST5", {"very positive": ("positive",), "very negative": ("negative",)}),
    # Its hate is an attack on a group: an insult to a person is none, so both other labels are right there.
    "toxicity": Source("hate_speech18", {"no hate": ("abuse", "harmless")}),
    "spam": Source("sms-spam", {}),
}


def main() -> None:
    """Measure the tasks that there are rows for, and keep the results."""
    options = _options()
    for task in options.tasks.split(","):
        source, started = SOURCES[task], time.monotonic()
        data = load(_folder(options.data, source.name), train=ALL, test=options.limit, seed=options.seed)
        if len({row.answer for row in data.test}) < 2:
            print(f"{task}: all {len(data.test)} rows of {source.name} have one answer; nothing to measure", flush=True)
            continue
        path, grimoire = _shipped(task)
        found = answered(options, grimoire, source, data)
        measured = effects(found, source, options.weak)
        summary = about(options, grimoire, source, found) | {"effect": [asdict(one) for one in measured]}
        keep(summary, found, f"{task}-{slug(options.weak)}-{options.limit}-seed{options.seed}", RESULTS)
        print(f"{grimoire.id}: {summary['arms']}, {time.monotonic() - started:.0f} s", *measured, sep="\n")
        print(yaml.safe_dump({"effect": summary["effect"]}, sort_keys=False), flush=True)
        if options.write:
            write(path, grimoire, measured)


def answered(options: argparse.Namespace, grimoire: Grimoire, source: Source, data: Data) -> dict[str, Any]:
    """Return the right answers and each arm's by row hash; what is in `work/` already is not asked again."""
    home = Home.at(options.home)
    card = Task(
        name=grimoire.task, task_type=grimoire.task_type, description=grimoire.description, labels=grimoire.labels
    )
    builder = ArmBuilder(
        card, weak_model(options.weak, home=home), embedder(), grimoire=grimoire, mode="score", prior="mean",
        seed=options.seed, journal=Journal(home.journal), home=home, texts=[row.text for row in data.train],
    )  # fmt: skip
    arms = builder.build(ARMS)
    folder = HERE / "work" / f"{grimoire.id}-{source.name}-{slug(options.weak)}-{options.limit}-seed{options.seed}"
    with Meter(arms) as meter:
        report = builder.evaluate(arms, data.test, options.weak, run=folder, progress=meter)
    return predictions(Path(report.run))


def _right(found: Mapping[str, Any], source: Source, arm: str) -> list[bool]:
    return [source.accepts(answer, found["predictions"][arm][row]) for row, answer in found["gold"].items()]


def about(options: argparse.Namespace, grimoire: Grimoire, source: Source, found: Mapping[str, Any]) -> dict[str, Any]:
    """Return what was measured, and the share of rows that each arm gets right."""
    n = len(found["gold"])
    return {
        "grimoire": grimoire.id, "source": source.name, "right": dict(source.right), "weak": options.weak, "n": n,
        "seed": options.seed, "prior": "mean over training texts without answers",
        "arms": [{"arm": arm, "accuracy": sum(_right(found, source, arm)) / n} for arm in ARMS],
    }  # fmt: skip


def effects(found: Mapping[str, Any], source: Source, weak: str) -> list[Effect]:
    """Return what either form does, against zero-shot."""
    plain, name, n = _right(found, source, "zero-shot"), weak.removeprefix("embedded:"), len(found["gold"])
    measured = []
    for arm in FORMS:
        difference, low, high = (round(one, 4) for one in paired_difference(_right(found, source, arm), plain))
        measured.append(Effect(name, arm, difference, low, high, rows=n, source=source.name))
    return measured


def write(path: Path, grimoire: Grimoire, measured: list[Effect]) -> None:
    """Put effects into a shipped grimoire's file, in place of those on the same rows and weak model."""
    if any(one.rows < LEAST_ROWS for one in measured):
        raise SystemExit(f"{path}: not written, there are fewer than {LEAST_ROWS} rows")
    new = {(one.weak, one.arm, one.source) for one in measured}
    kept = [one for one in grimoire.effects if (one.weak, one.arm, one.source) not in new]
    write_whole(path, replace(grimoire, effects=(*kept, *measured)).to_markdown())


def _folder(places: list[str], name: str) -> Path:
    for place in places:
        if (Path(place) / name / "task.json").exists():
            return Path(place) / name
    raise SystemExit(f"found no {name}/task.json in {', '.join(places)}; see --data")


def _shipped(task: str) -> tuple[Path, Grimoire]:
    (path,) = [path for path in LIBRARY.glob("*.md") if load_grimoire(path).task == task]
    return path, load_grimoire(path)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, action="append")
    parser.add_argument("--tasks", default=",".join(SOURCES))
    parser.add_argument("--weak", default=WEAK)
    parser.add_argument("--limit", type=int, default=LEAST_ROWS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--home")
    parser.add_argument("--write", action="store_true", help="put the effects into the grimoires' front matter")
    return parser.parse_args()


if __name__ == "__main__":
    main()
