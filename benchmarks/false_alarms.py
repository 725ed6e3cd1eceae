"""How often the gate says "helps" where there is nothing to find, and how often it finds what is there.

    python benchmarks/false_alarms.py [--runs 200] [--rows 40,100,200] [--gains 0] [--readings all]

No language model is asked. A made-up one draws label scores and states around each row's right answer, with noise that
hangs on the whole prompt: all prompts are equally good by construction, and no two agree on their mistakes. `--gains`
makes prompts with a grimoire better by about so much accuracy. `--shuffled` takes all signal away, as shuffling the
labels does. Each run draws new rows and goes through `learn` itself, from the cut to the verdict. Prints rates with
Wilson intervals and appends them to `results/false_alarms.jsonl`.
"""

import argparse
import hashlib
import json
import re
import time
from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.embeddings import Embeddings
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult

from sleicl_chains.answers import LabelScores, State
from sleicl_chains.gate import LEVEL
from sleicl_chains.grimoires import Grimoire, Provenance
from sleicl_chains.learning import learn
from sleicl_chains.statistics import wilson
from sleicl_chains.tasks import Example, Task

LABELS = ("north", "east", "south")
RULES = "Rules of the made-up task."
SIGNAL = 1.0
"""Distance of the right answer's evidence from the others', in standard deviations of the noise."""
WIDTH = 24
"""Numbers in a made-up state."""
RESULTS = Path(__file__).parent / "results" / "false_alarms.jsonl"


class Speaker(BaseChatModel):
    """A made-up model that only talks; it is right by chance, more often where its evidence is clear."""

    gold: dict[str, str]
    signal: float
    bonus: float
    draw: int

    def evidence(self, prompt: str, width: int) -> tuple[np.random.Generator, int, float]:
        """Return the noise of a prompt, the place of its right answer, and how far that stands out."""
        question = re.findall(r"case \d+", prompt)[-1]
        digest = hashlib.sha256(f"{self.draw}:{width}:{prompt}".encode()).digest()
        signal = self.signal + (self.bonus if RULES in prompt else 0.0)
        return np.random.default_rng(int.from_bytes(digest[:8], "big")), LABELS.index(self.gold[question]), signal

    def logits(self, prompt: str) -> "np.ndarray[Any, np.dtype[np.float64]]":
        """Return a score for each label."""
        noise, place, signal = self.evidence(prompt, len(LABELS))
        found = noise.normal(size=len(LABELS))
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
        noise, place, signal = self.evidence(prompt, WIDTH)
        found = noise.normal(size=WIDTH)
        found[place * 2 : place * 2 + 2] += signal
        return State([float(value) for value in found], len(prompt) // 4)


class Space(Embeddings):
    """Embeddings that tell nothing."""

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Return noise fixed by each text."""
        return [self.embed_query(text) for text in texts]

    def embed_query(self, text: str) -> list[float]:
        """Return noise fixed by the text."""
        digest = hashlib.sha256(text.encode()).digest()
        return [float(value) for value in np.random.default_rng(int.from_bytes(digest[:8], "big")).normal(size=8)]


def text_of(messages: Sequence[BaseMessage]) -> str:
    """Return the messages as one text."""
    return "\n".join(message.text for message in messages)


class Run:
    """One made-up task and model."""

    def __init__(self, kind: type[Speaker], rows: int, bonus: float, signal: float, draw: int) -> None:
        self.kind, self.rows, self.bonus, self.signal, self.draw = kind, rows, bonus, signal, draw

    @cached_property
    def examples(self) -> list[Example]:
        """Rows whose texts tell nothing but their number."""
        answers = np.random.default_rng(self.draw).choice(LABELS, size=self.rows)
        return [Example(f"case {number}", str(answer)) for number, answer in enumerate(answers)]

    def verdict(self) -> str:
        """Learn, and return the finding."""
        task = Task(name="made-up", task_type="classification", description="Say where each case lies.", labels=LABELS)
        card = (task.name, task.task_type, task.description, task.labels)
        rules = Grimoire("made-up-1", *card, f"{RULES} In full.", f"{RULES} In short.", Provenance())
        weak = self.kind(
            gold={row.text: row.answer for row in self.examples}, signal=self.signal, bonus=self.bonus, draw=self.draw
        )
        found = learn(task, self.examples, weak=weak, grimoires=[rules], seed=self.draw, space=Space())
        return found.verdict.finding


def main() -> None:
    """Count verdicts under every setting."""
    options = _options()
    kinds: dict[str, type[Speaker]] = {"all": Scorer, "generate": Speaker}
    print(f"{options.runs} runs each; level {LEVEL} both sides together; signal {0 if options.shuffled else SIGNAL}")
    for reading, rows, gain in product(options.readings, options.rows, options.gains):
        started = time.monotonic()
        signal = 0.0 if options.shuffled else SIGNAL
        # Near the middle of the curve a tenth of a standard deviation is worth about two points of accuracy.
        runs = [Run(kinds[reading], rows, gain / 20, signal, draw) for draw in range(options.runs)]
        found = Counter(run.verdict() for run in runs)
        record = {
            "readings": reading, "rows": rows, "gain": gain, "shuffled": options.shuffled, "runs": options.runs,
            **{name: found[name] for name in ("helps", "no difference shown", "hurts")},
        }  # fmt: skip
        low, high = wilson(found["helps"], options.runs)
        print(
            f"{reading}, {rows} rows, gain {gain}: helps {found['helps'] / options.runs:.3f} [{low:.3f}, {high:.3f}], "
            f"hurts {found['hurts'] / options.runs:.3f}; {time.monotonic() - started:.0f} s", flush=True,
        )  # fmt: skip
        with RESULTS.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")


def _options() -> argparse.Namespace:
    def numbers(text: str) -> list[int]:
        return [int(part) for part in text.split(",")]

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--rows", type=numbers, default=[40, 100, 200])
    parser.add_argument("--gains", type=numbers, default=[0], help="points of accuracy, about")
    parser.add_argument("--readings", type=lambda text: text.split(","), default=["all", "generate"])
    parser.add_argument("--shuffled", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    main()
