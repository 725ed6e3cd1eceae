"""The labelled rows cut once: the few that are shown as examples, and those that stay for the test."""

from collections.abc import Sequence
from typing import NamedTuple

from sleicl_chains.errors import InputError, OptionError
from sleicl_chains.grimoires.grimoire import Grimoire
from sleicl_chains.grimoires.samplers import FEW_SHOT_PER_LABEL, own_examples, typical_examples
from sleicl_chains.tasks.cards import Task
from sleicl_chains.tasks.labels import fold
from sleicl_chains.tasks.rows import Example
from sleicl_chains.tasks.splits import distinct, shuffled, stratified

FEWEST_ROWS = 40
"""Below this no test is made: on two dozen rows even a large gain cannot be told from chance."""
FEWEST_TESTED = 20
"""Rows that must stay for a test."""
MOST_SHOWN = 0.4
"""Of the rows; the others stay for the test."""
MANY_LABELS = 5
"""Above this two rows a label are shown, not four."""


class Cut(NamedTuple):
    """The labelled rows in parts that share no text."""

    drawn: list[Example]
    """A few of each label, for few-shot prompts; a grimoire that is written here is written from them."""
    tested: list[Example]
    """Fitting and the test are done on these, crosswise."""
    read: list[Example]
    """Other rows that a grimoire was written from."""
    shows: bool = True
    """Whether few-shot prompts show what was drawn."""

    @property
    def shown(self) -> list[Example]:
        """The examples of few-shot prompts."""
        return self.drawn if self.shows else []

    @property
    def rows(self) -> list[Example]:
        """All labelled rows."""
        return self.drawn + self.tested + self.read

    @property
    def untested(self) -> str:
        """Why there is no test; empty if there is one."""
        if len(self.rows) < FEWEST_ROWS:
            return f"{len(self.rows)} labelled rows are too few for a verdict ({FEWEST_ROWS} are needed)"
        if len(self.tested) < FEWEST_TESTED:
            return f"fewer than {FEWEST_TESTED} labelled rows are left that no grimoire was written from"
        return ""


def cut(
    task: Task, examples: Sequence[Example], seed: int, grimoires: Sequence[Grimoire] = (),
    *, shots: int | None = None, writes: bool = False,
) -> Cut:  # fmt: skip
    """Cut the labelled rows, each text once.

    Shown are the rows that a grimoire was written from, if they are all there, else k-means ones; of either at most
    `shots` a label, and so few that `1 - MOST_SHOWN` of the rows stay. Random by `seed` alone.

    Args:
        task: has the labels.
        examples: labelled rows, in any order.
        seed: of the k-means and of the order.
        grimoires: rows that they were written from, near-copies too, do not stay.
        shots: examples a label; by default 4, or 2 where there are more than five labels. 0 shows none.
        writes: whether a grimoire will be written from the rows that are shown; where none are, rows are read for it.

    Raises:
        InputError: the rows are too few, all have the same answer, or grimoires were written from all of them.
        OptionError: `shots` is negative.
    """
    rows = stratified(distinct(shuffled(examples, seed)), seed)
    answers = len({row.answer for row in rows})
    if answers < 2 or len(rows) < 8:
        raise InputError(
            f"learn: found {len(rows)} labelled rows with {answers} different answers; expected at least 8 rows with "
            f"2 answers, and {FEWEST_ROWS} rows for a verdict"
        )
    if shots is not None and shots < 0:
        raise OptionError(f"--shots: found {shots}; expected a number of examples a label, or 0 for none")
    drawn = [] if shots == 0 and not writes else _drawn(task, rows, seed, grimoires, shots or per_label(task))
    taken = {fold(row.text) for row in drawn}
    read = {fold(row.text) for one in grimoires for row in one.provenance.among(examples)} - taken
    tested = [row for row in rows if fold(row.text) not in taken | read]
    if len(tested) < 2:  # a reader that has not seen a row was fitted on another
        raise InputError(
            f"learn: of {len(rows)} labelled rows {len(tested)} are left that the grimoires were not written from; "
            f"expected 2 or more, and {FEWEST_TESTED} for a verdict"
        )
    return Cut(drawn, tested, [row for row in rows if fold(row.text) in read], shows=shots != 0)


def per_label(task: Task) -> int:
    """Return how many rows of each label are shown if nobody says otherwise."""
    return 2 if len(task.labels) > MANY_LABELS else FEW_SHOT_PER_LABEL


def _drawn(task: Task, rows: Sequence[Example], seed: int, grimoires: Sequence[Grimoire], each: int) -> list[Example]:
    """Return a few rows, the labels by turns: a grimoire's own, which cost no more rows, else k-means ones."""
    found = own_examples(grimoires, rows) or typical_examples(task, rows, seed=seed, per_label=each)
    kept: dict[str, list[Example]] = {}
    for row in found:
        kept.setdefault(row.answer if task.labels else "", []).append(row)
    few = [row for row in found if row in kept[row.answer if task.labels else ""][:each]]
    return few[: int(MOST_SHOWN * len(rows))]
