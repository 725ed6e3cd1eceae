"""How often the gate says "helps" where there is nothing to find, and how often it finds what is there.

    python -m benchmarks.false_alarms [--runs 200] [--rows 40,100,200] [--grimoires 1,3] [--gains 0] [--readings all]

No language model is asked. A made-up one draws label scores and states around each row's right answer. Half of the
noise is the row's own, the same under every prompt, the other half hangs on the whole prompt: all prompts are equally
good by construction, and they disagree about the harder rows. `--gains 5,10,20` makes prompts with a grimoire better by
so many points of accuracy, as the likeliest label has it. `--shuffled` shuffles the labels of the rows instead, so that
nothing can be found. Each run draws new rows and goes through `learn` itself, from the cut to the verdict.

Prints a table with Wilson intervals, and keeps the counts in `results/gate.jsonl`, a line for twenty runs. What stands
there of the gate as it is now is not run again; a changed gate or reader starts from nothing.
"""

import argparse
import ast
import hashlib
import json
import re
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache, cached_property
from importlib.resources import files
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.embeddings import Embeddings
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from numpy.typing import NDArray

from sleicl_chains.answering.recipes import Verdict
from sleicl_chains.grimoires.grimoire import Grimoire, Provenance
from sleicl_chains.learning.gate import LEVEL
from sleicl_chains.learning.learn import learn
from sleicl_chains.models.abilities import LabelScores, State
from sleicl_chains.statistics import wilson
from sleicl_chains.tasks.cards import Task
from sleicl_chains.tasks.rows import Example

Array = NDArray[np.float64]

LABELS = ("north", "east", "south")
RULES = "Rules of the made-up task."
SIGNAL = 1.0
"""Distance of the right answer's evidence from the others', in standard deviations of the noise."""
SHARED = 0.5
"""The part of the noise's variance that is the row's own, under every prompt the same."""
WIDTH = 24
"""Numbers in a made-up state."""
BATCH = 20
CODE = (
    "evaluation/summary", "grimoires/samplers", "answering/fitting", "answering/evidence", "answering/priors",
    "answering/readers", "answering/calibration", "answering/shares", "learning/cut", "learning/gate",
    "learning/judging", "learning/survey", "statistics", "tasks/splits",
)  # fmt: skip
"""Modules that decide a verdict."""
RESULTS = Path(__file__).parent / "results" / "gate.jsonl"


class Speaker(BaseChatModel):
    """A made-up model that only talks; it is right by chance, more often where its evidence is clear."""

    gold: dict[str, str]
    signal: float
    bonus: float
    draw: int

    def evidence(self, prompt: str, width: int) -> tuple[Array, int, float]:
        """Return the noise of a prompt, the place of its right answer, and how far that stands out."""
        question = re.findall(r"case \d+", prompt)[-1]
        signal = self.signal + (self.bonus if RULES in prompt else 0.0)
        own, shared = (noise(width, f"{self.draw}:{width}:{text}") for text in (prompt, question))
        return (1 - SHARED) ** 0.5 * own + SHARED**0.5 * shared, LABELS.index(self.gold[question]), signal

    def logits(self, prompt: str) -> Array:
        """Return a score for each label."""
        found, place, signal = self.evidence(prompt, len(LABELS))
        found[place] += signal
        return found

    def _generate(
        self, messages: list[BaseMessage], stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None, **kwargs: Any,
    ) -> ChatResult:  # fmt: skip
        said = LABELS[int(self.logits(text_of(messages)).argmax())]
        return ChatResult(generations=[ChatGeneration(message=AIMessage(content=said))])

    @property
    def _llm_type(self) -> str:
        return "made-up"


class Scorer(Speaker):
    """The same, with label probabilities and a state."""

    def render(self, messages: Sequence[BaseMessage]) -> str:
        """Return the prompt as one text."""
        return text_of(messages)

    def score_labels(self, prompt: str, labels: Sequence[str]) -> LabelScores:
        """Return the softmax of the evidence, with a prior that favours the first label."""
        powers = np.exp(self.logits(prompt) + np.array([1.0, 0.0, 0.0]))
        return LabelScores(dict(zip(LABELS, map(float, powers / powers.sum()), strict=True)), 1.0, len(prompt) // 4, 1)

    def read_state(self, prompt: str) -> State:
        """Return the evidence in a few directions among noise."""
        found, place, signal = self.evidence(prompt, WIDTH)
        found[place * 2 : place * 2 + 2] += signal
        return State([float(value) for value in found], len(prompt) // 4)


class Space(Embeddings):
    """Embeddings that tell nothing."""

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Return noise fixed by each text."""
        return [self.embed_query(text) for text in texts]

    def embed_query(self, text: str) -> list[float]:
        """Return noise fixed by the text."""
        return [float(value) for value in noise(8, text)]


def noise(width: int, source: str) -> Array:
    """Return normal numbers fixed by a text."""
    digest = hashlib.sha256(source.encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "big")).normal(size=width)


def text_of(messages: Sequence[BaseMessage]) -> str:
    """Return the messages as one text."""
    return "\n".join(message.text for message in messages)


@dataclass(frozen=True)
class Setting:
    """What a line of the table is about."""

    readings: str
    """`all`: label scores, state and both; `generate`: words alone."""
    rows: int
    grimoires: int
    gain: int
    shuffled: bool

    @property
    def prompts(self) -> int:
        """Prompts that the gate compares: each grimoire's two texts, with examples and without, and three others."""
        return 3 + 4 * self.grimoires


@dataclass(frozen=True)
class Run:
    """One made-up task and model."""

    setting: Setting
    draw: int

    @cached_property
    def gold(self) -> dict[str, str]:
        """What the model's evidence points at, by text; the texts tell nothing but their number."""
        answers = np.random.default_rng(self.draw).choice(LABELS, size=self.setting.rows)
        return {f"case {number}": str(answer) for number, answer in enumerate(answers)}

    @cached_property
    def examples(self) -> list[Example]:
        """The labelled rows."""
        answers = list(self.gold.values())
        if self.setting.shuffled:
            answers = list(np.random.default_rng([self.draw, 1]).permutation(answers))
        return [Example(text, str(answer)) for text, answer in zip(self.gold, answers, strict=True)]

    def verdict(self) -> Verdict:
        """Learn, and return what the gate says."""
        task = Task(name="made-up", task_type="classification", description="Say where each case lies.", labels=LABELS)
        card = (task.name, task.task_type, task.description, task.labels)
        rules = [
            Grimoire(f"made-up-{number}", *card, f"{RULES} In full, {number}.", f"{RULES} {number}.", Provenance())
            for number in range(self.setting.grimoires)
        ]
        kind = KINDS[self.setting.readings]
        weak = kind(gold=self.gold, signal=SIGNAL, bonus=bonus(self.setting.gain), draw=self.draw)
        return learn(task, self.examples, weak=weak, grimoires=rules, seed=self.draw, space=Space()).verdict


KINDS: dict[str, type[Speaker]] = {"all": Scorer, "generate": Speaker}


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
    print(f"level {LEVEL} both sides together; accuracy without a grimoire {accuracy(SIGNAL):.3f}", flush=True)
    wanted = product(options.readings, options.rows, options.grimoires, options.gains, [options.shuffled])
    settings = [Setting(*values) for values in wanted]
    for first, setting in product(range(0, options.runs, BATCH), settings):
        if not any(record["first"] == first for record in kept(setting)):
            run_batch(setting, first)
            print(f"{setting}, {first + BATCH} runs: {time.monotonic() - started:.0f} s", flush=True)
    print_table()


@cache
def code() -> str:
    """Return eight digits that tell this gate from others by what it does, not by its comments and docstrings."""
    package = files("sleicl_chains")
    return digest([(package / f"{name}.py").read_text("utf-8") for name in CODE])


def digest(sources: Sequence[str]) -> str:
    """Return eight digits over what Python makes of some modules, without docstrings."""
    trees = [ast.parse(source) for source in sources]
    for node in (node for tree in trees for node in ast.walk(tree) if isinstance(getattr(node, "body", None), list)):
        node.body = [one for one in node.body if not _is_words(one)]  # type: ignore[attr-defined]
    return hashlib.sha256("".join(map(ast.dump, trees)).encode()).hexdigest()[:8]


def _is_words(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


def run_batch(setting: Setting, first: int) -> None:
    """Run twenty draws and keep their counts."""
    verdicts = [Run(setting, draw).verdict() for draw in range(first, first + BATCH)]
    count = Counter(verdict.finding for verdict in verdicts)
    total = sum(verdict.difference or 0.0 for verdict in verdicts)
    record = {
        "code": code(), **asdict(setting), "first": first, "runs": BATCH,
        **{name: count[name] for name in ("helps", "hurts")}, "difference": round(total / BATCH, 5),
    }  # fmt: skip
    with RESULTS.open("a", encoding="utf-8") as file:
        file.write(json.dumps(record) + "\n")


def kept(setting: Setting) -> list[dict[str, Any]]:
    """Return what was counted under a setting."""
    return [record for record in _records() if _setting(record) == setting]


def _records() -> list[dict[str, Any]]:
    found = [json.loads(line) for line in RESULTS.read_text("utf-8").splitlines()] if RESULTS.exists() else []
    return [record for record in found if record["code"] == code()]


def _setting(record: dict[str, Any]) -> Setting:
    return Setting(**{name: record[name] for name in Setting.__dataclass_fields__})


def print_table() -> None:
    """Print all settings; the last column is the mean difference that the one test saw, in points."""
    print("| labels | gain | readings | rows | prompts | runs | helps | hurts | points seen |")
    print("|---|---:|---|---:|---:|---:|---:|---:|---:|")
    for setting in sorted({_setting(record) for record in _records()}, key=lambda one: tuple(asdict(one).values())):
        records = kept(setting)
        runs = sum(record["runs"] for record in records)
        seen = sum(record["difference"] * record["runs"] for record in records) / runs
        cells = [_rate(sum(record[name] for record in records), runs) for name in ("helps", "hurts")]
        labels = "shuffled" if setting.shuffled else "right"
        print(
            f"| {labels} | {setting.gain} | {setting.readings} | {setting.rows} | {setting.prompts} | {runs} | "
            f"{' | '.join(cells)} | {100 * seen:+.1f} |"
        )


def _rate(count: int, runs: int) -> str:
    low, high = wilson(count, runs)
    return f"{count / runs:.3f} [{low:.3f}, {high:.3f}]"


def _options() -> argparse.Namespace:
    def numbers(text: str) -> list[int]:
        return [int(part) for part in text.split(",")]

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--rows", type=numbers, default=[40, 100, 200])
    parser.add_argument("--grimoires", type=numbers, default=[1])
    parser.add_argument("--gains", type=numbers, default=[0], help="points of accuracy")
    parser.add_argument("--readings", type=lambda text: text.split(","), default=["all", "generate"])
    parser.add_argument("--shuffled", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    main()
