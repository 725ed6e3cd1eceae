"""`reading`: can this model follow a written guide? A test that needs no data of the user.

Guides with made-up conventions ("Vopi is for messages about the printers") and short questions that are answered by
one of four codes. Who has not read the guide can only guess, one in four. The questions are in `guides.toml`.
"""

import tomllib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files

from langchain_core.language_models import BaseChatModel
from langchain_core.runnables import Runnable

from sleicl_chains.answering.arms import ArmName
from sleicl_chains.answering.readings import Mode
from sleicl_chains.answering.solver import solver
from sleicl_chains.answers import Answer
from sleicl_chains.errors import OptionError, RejectedReply
from sleicl_chains.evaluation.progress import Progress
from sleicl_chains.files import Home
from sleicl_chains.grimoires.grimoire import Grimoire, Provenance, grimoire_id
from sleicl_chains.hashes import short_hash
from sleicl_chains.models.abilities import scoring_problem
from sleicl_chains.models.journal import Journal
from sleicl_chains.models.reading import Kind, Reading, keep_reading, known_reading
from sleicl_chains.statistics import paired_difference, wilson
from sleicl_chains.tasks.cards import Task
from sleicl_chains.tasks.rows import Example

PLAIN = "plain"
"""The kind of guide that the score and the verdict are of."""
REWORDED = "in other words"
"""Plain guides again, asked in other words than the guide's."""


def reading(
    model: BaseChatModel,
    *,
    home: Home | None = None,
    codes: int = 0,
    again: bool = False,
    journal: Journal | None = None,
    progress: Progress | None = None,
) -> Reading:
    """Return how well a model follows guides: what is known of its weights, or measured now and kept.

    Measuring costs about 390 short weak calls, once a model. No randomness with a model that gives label
    probabilities; one that gives none answers in words, as it does.

    Args:
        model: any chat model.
        home: where it is kept, by the digest of the weights if probabilities are exact.
        codes: which of the two sets of codes the guides speak of; only what the first set gives is kept.
        again: measure even what is known.
        journal: keeps every call, so that a test that was stopped goes on.
        progress: called after every answer.

    Raises:
        OptionError: there is no such set of codes.
        PromptTooLong: a guide does not fit the context that the model was opened with.
        SleiclError: the model cannot be asked. A rejected reply counts as wrong.
    """
    if codes not in (0, 1):
        raise OptionError(f"codes: found {codes}; expected 0 or 1")
    home = home or Home.at()
    if not (again or codes) and (known := known_reading(model, home, test=questions_version())):
        return known
    found = _measured(model, codes, journal, progress or (lambda *_: None))
    if not codes:
        with suppress(OSError):  # a home that cannot be written to only forgets
            keep_reading(model, found, home)
    return found


@dataclass(frozen=True)
class Guide:
    """One guide of the test, with its questions."""

    kind: str
    topic: str
    text: str
    codes: tuple[tuple[str, ...], ...]
    """Sets of codes, each in the order of the numbers in the text."""
    questions: tuple[tuple[int, str], ...]
    """The number of the right code, and the message."""
    reworded: tuple[tuple[int, str], ...] = ()
    """More of them, in other words than the guide's."""

    @property
    def in_other_words(self) -> "Guide":
        """The guide with those questions, as a kind of its own."""
        return replace(self, kind=REWORDED, questions=self.reworded, reworded=())

    def rows(self, codes: int) -> list[Example]:
        """Return the questions with the right codes of one set."""
        return [Example(text=text, answer=self.codes[codes][right]) for right, text in self.questions]

    def chain(self, model: BaseChatModel, arm: ArmName, codes: int, journal: Journal | None) -> Runnable[str, Answer]:
        """Return what answers one question, with the guide (`profound`) or without (`zero-shot`)."""
        task = Task(
            name="reading",
            task_type="message coding",
            description=f"Mark each of the {self.topic} with the house's code for it.",
            labels=self.codes[codes],
        )
        text = self.text.format(*self.codes[codes])
        guide = Grimoire(
            id=grimoire_id(task.name, text, ""), task=task.name, task_type=task.task_type,
            description=task.description, labels=task.labels, profound=text, simple="", provenance=Provenance(),
        )  # fmt: skip
        return solver(model, task, arm=arm, grimoire=guide, mode=_mode(model), prior="none", journal=journal)


@cache
def guides() -> tuple[Guide, ...]:
    """Return the guides of the test."""
    found = tomllib.loads(_text())["guides"]
    return tuple(
        Guide(
            one["kind"],
            one["topic"],
            one["text"].strip(),
            tuple(map(tuple, one["codes"])),
            *(tuple((right, text) for right, text in one.get(key, ())) for key in ("questions", "reworded")),
        )
        for one in found
    )


def questions_version() -> str:
    """Return what tells this version of the questions from others."""
    return short_hash(_text())


def _text() -> str:
    return (files("sleicl_chains.evaluation") / "guides.toml").read_text(encoding="utf-8")


def _mode(model: BaseChatModel) -> Mode:
    return "generate" if scoring_problem(model) else "score"


def _measured(model: BaseChatModel, codes: int, journal: Journal | None, progress: Progress) -> Reading:
    """Ask everything, the guides first and the plain ones then without their text; count what is right."""
    plain = [guide for guide in guides() if guide.kind == PLAIN]
    told = [*guides(), *(guide.in_other_words for guide in plain if guide.reworded)]
    asked: list[tuple[Guide, ArmName]] = [(guide, "profound") for guide in told]
    asked += [(guide, "zero-shot") for guide in plain]
    total, done = sum(len(guide.questions) for guide, _ in asked), 0
    right: dict[tuple[str, ArmName], list[bool]] = {}
    for guide, arm in asked:
        chain = guide.chain(model, arm, codes, journal)
        for hit in _hits(chain, guide.rows(codes)):
            right.setdefault((guide.kind, arm), []).append(hit)
            done += 1
            progress("with the guide" if arm == "profound" else "without", done, total)
    return _reading(right, chance=1 / len(plain[0].codes[codes]), mode=_mode(model))


def _hits(chain: Runnable[str, Answer], rows: Sequence[Example]) -> Iterator[bool]:
    """Say of each row whether it is answered rightly."""
    for row in rows:
        try:
            yield chain.invoke(row.text).label == row.answer
        except RejectedReply:  # no answer is a wrong one
            yield False


def _reading(right: dict[tuple[str, ArmName], list[bool]], *, chance: float, mode: str) -> Reading:
    told, alone = right[PLAIN, "profound"], right[PLAIN, "zero-shot"]
    low, high = wilson(sum(told), len(told))
    difference, difference_low, difference_high = paired_difference(told, alone)
    others = {kind: hits for (kind, arm), hits in right.items() if arm == "profound" and kind != PLAIN}
    return Reading(
        score=sum(told) / len(told), low=low, high=high, chance=chance, n=len(told),
        zero_shot=sum(alone) / len(alone),
        difference=difference, difference_low=difference_low, difference_high=difference_high,
        mode=mode, test=questions_version(),
        kinds={kind: Kind(sum(hits) / len(hits), len(hits)) for kind, hits in others.items()},
    )  # fmt: skip
