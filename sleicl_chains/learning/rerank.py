"""Matched grimoires tried on a handful of the user's labelled rows: which of them helps his weak model there."""

from collections.abc import Sequence
from dataclasses import dataclass

from langchain_core.language_models import BaseChatModel
from langchain_core.runnables import Runnable

from sleicl_chains.answering.arms import Arm, Form
from sleicl_chains.answering.solver import solver
from sleicl_chains.answers import Answer
from sleicl_chains.errors import InputError, PromptTooLong, RejectedReply
from sleicl_chains.evaluation.progress import Progress
from sleicl_chains.grimoires.grimoire import Grimoire
from sleicl_chains.grimoires.index import folded
from sleicl_chains.grimoires.match import Match
from sleicl_chains.models.journal import Journal
from sleicl_chains.statistics import mcnemar, paired_difference
from sleicl_chains.tasks.cards import Task
from sleicl_chains.tasks.rows import Example, check_answers

LEVEL = 0.05
"""Of the test of one candidate against zero-shot; several are tried, so that the best of many is sooner luck."""
_FORMS: tuple[Form, ...] = ("profound", "simple")
_FEWEST = 6
"""Fewest rows that must change, all of them for the better, before McNemar's exact test is below it: 2 / 2**6."""


@dataclass(frozen=True)
class Tried:
    """One form of a matched grimoire against zero-shot, on the same rows."""

    match: Match
    form: Form
    right: int
    zero_shot: int
    """Rows right without a grimoire."""
    n: int
    difference: float
    """In accuracy, with its 95% interval by the paired bootstrap."""
    low: float
    high: float
    p: float
    """Of McNemar's exact test."""
    seen: int = 0
    """Rows that the grimoire was written from, as far as is known: its figure is too good by them."""

    @property
    def decided(self) -> bool:
        """Whether the rows show a difference at all."""
        return self.p < LEVEL and not self.low <= 0 <= self.high


def tried(
    matches: Sequence[Match],
    task: Task,
    rows: Sequence[Example],
    weak: BaseChatModel,
    *,
    journal: Journal | None = None,
    progress: Progress | None = None,
) -> list[Tried]:
    """Return the candidates by what they change on labelled rows, the best first; of equal ones the better match.

    Each grimoire is tried in both forms, one whose labels differ from the task's in its profound form alone. Costs one
    weak request a row for zero-shot and for each candidate, and three for the prior of each.

    Args:
        matches: what `GrimoireStore.match` found.
        task: the user's; its labels are the answers, whatever the grimoires' are.
        rows: with answers; no prior is taken from them.
        weak: the model that will answer.
        journal: keeps every call.
        progress: called after every answer.

    Raises:
        InputError: there are no rows, the task has no labels, or an answer is none of them.
        ModelError: the model failed. A prompt that is too long and a rejected reply count as wrong.
    """
    if not rows or not task.labels:
        raise InputError(
            f"match: found {len(rows)} labelled rows and {len(task.labels)} labels; trying needs some of each"
        )
    check_answers(rows, task)
    candidates = [(match, form) for match in matches for form in _forms(match.grimoire, task)]
    chains = [solver(weak, task, journal=journal)]
    chains += [solver(weak, task, arm=Arm(form), grimoire=one.grimoire, journal=journal) for one, form in candidates]
    total, done, rights = len(rows) * len(chains), 0, []
    for name, chain in zip(["zero-shot", *(form for _, form in candidates)], chains, strict=True):
        right = []
        for row in rows:
            right.append(_is_right(chain, row))
            done += 1
            if progress:
                progress(name, done, total)
        rights.append(right)
    baseline, *others = rights
    found = [_tried(one, form, right, baseline, rows) for (one, form), right in zip(candidates, others, strict=True)]
    return sorted(found, key=lambda one: -one.difference)


def _forms(grimoire: Grimoire, task: Task) -> list[Form]:
    """Return the forms to try; of a guide for other labels the long one alone, which says more than which is which."""
    there: list[Form] = [form for form in _FORMS if getattr(grimoire, form)]
    return there if folded(grimoire.labels) == folded(task.labels) else there[:1]


def _is_right(chain: Runnable[str, Answer], row: Example) -> bool:
    try:
        return chain.invoke(row.text).label == row.answer
    except (PromptTooLong, RejectedReply):
        return False


def _tried(match: Match, form: Form, right: Sequence[bool], baseline: Sequence[bool], rows: Sequence[Example]) -> Tried:
    difference, low, high = paired_difference(right, baseline)
    p = mcnemar(right, baseline)
    seen = len(match.grimoire.provenance.among(rows))
    return Tried(match, form, sum(right), sum(baseline), len(rows), difference, low, high, p, seen)


def undecided(found: Sequence[Tried]) -> str:
    """Return what a reader should know where the rows decide nothing; empty where they do."""
    if not found or any(one.decided for one in found):
        return ""
    n = found[0].n
    if n < _FEWEST:
        return f"{n} rows decide nothing: even all of them changed for the better would not; give {_FEWEST} or more"
    return (
        f"{n} rows decide nothing here: no difference below about {_FEWEST / n:.2f} ({_FEWEST} rows) can be "
        "shown by them; the order is a guess"
    )
