"""Does a grimoire make a weak model's state easier to read, or does any text?

    python -m benchmarks.controls --data DIR --grimoires DIR [--tasks TREC,Subj] [--seeds 0,1] [--home DIR]

48 labelled rows fit the reader and up to 200 test rows judge it, chosen as `paper.py` does. Every prompt is read in the
modes `hidden` and `score` (prior `mean`):

- zero-shot, whose system text names the labels, and the same with the labels in each question once more;
- the task's own simple and profound grimoire;
- as controls for the simple one: the simple grimoire of another task, the own one with its words shuffled, and a text
  on gardening cut to as many tokens.

Prints a table a task and one over all tasks and seeds, with paired bootstrap intervals over test rows. What is kept in
`results/controls/` are row hashes, labels and predictions, no text. A stopped run goes on from the journal.
"""

import argparse
import json
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.data import grimoire_of, load
from sleicl_chains.answering.arms import Arm
from sleicl_chains.answering.cues import CUE, Cue
from sleicl_chains.answering.evidence import Observation
from sleicl_chains.answering.fitting import fit_linear
from sleicl_chains.answering.observer import Observer
from sleicl_chains.answering.priors import mean_shares, prior_texts
from sleicl_chains.answering.readers import PriorReader, Reader
from sleicl_chains.answering.readings import Mode
from sleicl_chains.files import Home
from sleicl_chains.grimoires.grimoire import Grimoire
from sleicl_chains.models.journal import Journal
from sleicl_chains.models.llamacpp.model import EmbeddedModel
from sleicl_chains.models.names import weak_model
from sleicl_chains.statistics import macro_f1
from sleicl_chains.tasks.cards import Task
from sleicl_chains.tasks.rows import Example

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

RESULTS = Path(__file__).parent / "results" / "controls"
ORDER = ("TREC", "Subj", "AgNews", "SST5", "RTE", "hate_speech18")
"""The grimoire of another task is that of the next one, the last one's that of the first."""
TRAIN_ROWS, TEST_ROWS = 48, 200
MODES: tuple[Mode, ...] = ("hidden", "score")
DRAWS = 2000
NEUTRAL = """
A small garden asks for little more than patience. In early spring, before the soil has warmed, loosen it with a fork
and leave the worms where they are. Compost that has rested over the winter can be spread two fingers deep. Beans and
peas climb along strings, while lettuce is content in the shade of a wall. Water in the morning, close to the ground, so
that the leaves stay dry and the sun does not take most of it. By June the strawberries need straw under them, and the
tomatoes a stake on the side from which the wind comes. Pull weeds after rain, when the roots let go. In autumn the
leaves of the old apple tree cover the beds, and under them the ground remains soft until the frost. Tools last longer
when they are wiped with oil and hung on a nail instead of leaning in a damp corner of the shed.
"""


@dataclass(frozen=True)
class Found:
    """The answers on one task with one draw of labelled rows."""

    name: str
    task: Task
    seed: int
    rows: list[Example]
    said: dict[str, list[str]]
    """By prompt and mode, one answer a row."""
    tokens: dict[str, float]
    """Mean prompt tokens of each prompt."""

    @property
    def gold(self) -> list[str]:
        """The right answers."""
        return [row.answer for row in self.rows]

    def right(self, name: str) -> "Array":
        """Return 1 for each right answer, else 0."""
        return np.array([float(a == b) for a, b in zip(self.said[name], self.gold, strict=True)])

    def macro_f1(self, name: str) -> float:
        """Return the macro-F1."""
        return macro_f1(self.gold, self.said[name], self.task.labels)


def main() -> None:
    """Ask, print and keep, one task after the other; then all together."""
    options = _options()
    home = Home.at(options.home)
    weak = weak_model(options.weak, home=home)
    assert isinstance(weak, EmbeddedModel), "only the embedded engine gives a state"
    print(f"{options.weak}; {TRAIN_ROWS} labelled rows, up to {TEST_ROWS} test rows; seeds {options.seeds}", flush=True)
    found = []
    with Journal(home.journal) as journal:
        for seed, name in product(map(int, options.seeds.split(",")), options.tasks.split(",")):
            started = time.monotonic()
            one = ask(options, name, seed, weak, journal)
            found.append(one)
            keep(one, options.weak)
            print(f"\n{name}, seed {seed}: {time.monotonic() - started:.0f} s", flush=True)
            print_task([one])
    if len({one.seed for one in found}) > 1:
        for name in options.tasks.split(","):
            print(f"\n{name}, all seeds")
            print_task([one for one in found if one.name == name])
    print_summary(found)


def ask(options: argparse.Namespace, name: str, seed: int, weak: EmbeddedModel, journal: Journal) -> Found:
    """Observe every row under every prompt, and read the test rows by what was fitted on the labelled ones."""
    task, train, test = load(Path(options.data) / name, train=TRAIN_ROWS, test=TEST_ROWS, seed=seed)
    names = (name, ORDER[(ORDER.index(name) + 1) % len(ORDER)])
    own, other = (grimoire_of(Path(options.grimoires) / one, options.sampler) for one in names)
    said: dict[str, list[str]] = {}
    tokens: dict[str, float] = {}
    for prompt, setup in prompts(task, weak, journal, own, other, seed).items():
        seen = [setup.observe(row.text, ("state", "scores")) for row in [*train, *test]]
        tokens[prompt] = sum(one.prompt_tokens for one in seen) / len(seen)
        for mode in MODES:
            reader = fit(task, train, seen[: len(train)], mode, seed)
            shares = [reader.shares(one) for one in seen[len(train) :]]
            said[f"{prompt}, {mode}"] = [max(one, key=lambda label: one[label]) for one in shares]
    return Found(name, task, seed, test, said, tokens)


def prompts(
    task: Task, weak: EmbeddedModel, journal: Journal, own: Grimoire, other: Grimoire, seed: int
) -> dict[str, Observer]:
    """Return what is compared, by name."""
    words = own.simple.split()
    random.Random(seed).shuffle(words)

    def shown(text: str) -> Observer:
        grimoire = replace(own, id="control", simple=text)
        return Observer(weak, task, Arm("simple"), grimoire, given_cue=CUE, journal=journal)

    plain = Observer(weak, task, Arm(), given_cue=CUE, journal=journal)
    return {
        "zero-shot": plain,
        "labels in each question": replace(plain, given_cue=Cue(CUE.text, lists_labels=True)),
        "simple": shown(own.simple),
        "profound": Observer(weak, task, Arm("profound"), own, given_cue=CUE, journal=journal),
        "another task's simple": shown(other.simple),
        "simple, words shuffled": shown(" ".join(words)),
        "gardening": shown(cut(NEUTRAL, length(weak, own.simple), lambda text: length(weak, text))),
    }


def length(weak: EmbeddedModel, text: str) -> int:
    """Return the number of tokens."""
    return len(weak.engine.tokens(text, special=False))


def cut(text: str, tokens: int, count: Callable[[str], int]) -> str:
    """Return words of a text, over and over, as many as have at most so many tokens."""
    words = text.split()
    words *= 1 + tokens // len(words)
    low, high = 0, len(words)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if count(" ".join(words[:middle])) <= tokens else (low, middle - 1)
    return " ".join(words[:low])


def fit(task: Task, train: Sequence[Example], seen: Sequence[Observation], mode: Mode, seed: int) -> Reader:
    """Return the reader of a mode, fitted on labelled rows."""
    if mode == "hidden":
        return fit_linear(seen, [row.answer for row in train], ("state",), task.labels)
    texts = set(prior_texts(train, task, seed=seed))
    scored = [one.scores for one, row in zip(seen, train, strict=True) if one.scores and row.text in texts]
    return PriorReader(mean_shares(scores.probabilities for scores in scored))


def keep(found: Found, weak: str) -> None:
    """Write the predictions, one line a prompt and mode."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    about: dict[str, Any] = {"task": found.name, "seed": found.seed, "weak": weak, "train_rows": TRAIN_ROWS}
    about |= {"prompt_tokens": {name: round(value, 1) for name, value in found.tokens.items()}}
    about |= {"rows": [row.id for row in found.rows], "gold": found.gold}
    lines = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in {**about, **found.said}.items()]
    path = RESULTS / f"{found.name}-seed{found.seed}.json"
    path.write_text("{" + ",\n".join(lines) + "}\n", encoding="utf-8")


# ------------------------------------------------------------------ tables


def print_task(found: Sequence[Found]) -> None:
    """Print one task's table; figures are means over its seeds."""
    print("| prompt | tokens | mode | accuracy | macro-F1 | less zero-shot |\n|---|---:|---|---:|---:|---:|")
    for mode, prompt in product(MODES, found[0].tokens):
        name = f"{prompt}, {mode}"
        tokens = np.mean([one.tokens[prompt] for one in found])
        print(f"| {prompt} | {tokens:.0f} | {mode} | {_cells(found, name)} |")


def print_summary(found: Sequence[Found]) -> None:
    """Print the means over tasks and seeds, and the simple grimoire against each."""
    print(f"\nAll: {', '.join(f'{one.name} {one.seed}' for one in found)}")
    print("| prompt | mode | accuracy | macro-F1 | less zero-shot | simple less it |\n|---|---|---:|---:|---:|---:|")
    for mode, prompt in product(MODES, found[0].tokens):
        name = f"{prompt}, {mode}"
        print(f"| {prompt} | {mode} | {_cells(found, name)} | {_difference(found, f'simple, {mode}', name)} |")


def _cells(found: Sequence[Found], name: str) -> str:
    accuracy = _mean(found, lambda one: float(one.right(name).mean()))
    return f"{accuracy:.3f} | {_mean(found, lambda one: one.macro_f1(name)):.3f} | " + _difference(
        found, name, f"zero-shot, {name.rpartition(', ')[2]}"
    )


def _mean(found: Sequence[Found], figure: Callable[[Found], float]) -> float:
    """Return the mean of a figure, every task weighing alike."""
    tasks = _by_task(found)
    return float(np.mean([np.mean([figure(one) for one in seeds]) for seeds in tasks.values()]))


def _by_task(found: Sequence[Found]) -> Mapping[str, list[Found]]:
    names = dict.fromkeys(one.name for one in found)
    return {name: [one for one in found if one.name == name] for name in names}


def _difference(found: Sequence[Found], name: str, rival: str) -> str:
    """Return the mean difference in accuracy with its interval; a test row's seeds are drawn together."""
    if name == rival:
        return ""
    draw = np.random.default_rng(0)
    means, spreads = [], []
    for seeds in _by_task(found).values():
        steps = np.mean([one.right(name) - one.right(rival) for one in seeds], axis=0)
        means.append(steps.mean())
        spreads.append(steps[draw.integers(len(steps), size=(DRAWS, len(steps)))].mean(axis=1))
    low, high = np.percentile(np.mean(spreads, axis=0), [2.5, 97.5])
    return f"{np.mean(means):+.3f} [{low:+.3f}, {high:+.3f}]"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--grimoires", required=True)
    parser.add_argument("--tasks", default=",".join(ORDER))
    parser.add_argument("--sampler", default="k-means", help="which grimoire: the beginning of its file's name")
    parser.add_argument("--weak", default="embedded:smollm2")
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--home")
    return parser.parse_args()


if __name__ == "__main__":
    main()
