"""The labelled rows cut once: those that everything is chosen on, and those set aside for the one test."""

from collections.abc import Sequence
from typing import NamedTuple

from sleicl_chains.errors import InputError
from sleicl_chains.grimoires.grimoire import Grimoire
from sleicl_chains.tasks.labels import fold
from sleicl_chains.tasks.rows import Example
from sleicl_chains.tasks.splits import distinct, shuffled, stratified

CHOOSE_SHARE = 0.6
"""Of the labelled rows; the others confirm."""
FEWEST_ROWS = 40
"""Below this no test is made: on a dozen rows even a large gain cannot be told from chance."""
FEWEST_CONFIRMED = 6
"""Below this even a grimoire that mends every row is not shown to: McNemar's exact test of five gives p = .06."""


class Cut(NamedTuple):
    """The labelled rows in two parts."""

    choose: list[Example]
    """All fitting, racing and choosing happens here."""
    confirm: list[Example]
    """The one test is made here; none where there are too few rows."""

    @property
    def rows(self) -> list[Example]:
        """All labelled rows."""
        return self.choose + self.confirm

    @property
    def untested(self) -> str:
        """Why there is no test; empty if there is one."""
        if self.confirm:
            return ""
        if len(self.choose) < FEWEST_ROWS:
            return f"{len(self.choose)} labelled rows are too few for a verdict ({FEWEST_ROWS} are needed)"
        return f"fewer than {FEWEST_CONFIRMED} labelled rows are left that no grimoire was written from"


def cut(examples: Sequence[Example], seed: int, grimoires: Sequence[Grimoire] = ()) -> Cut:
    """Cut the labelled rows, each text once, in a seeded order of which every beginning has the labels' shares.

    Rows that a grimoire was written from are chosen on: a test on them would flatter it. Few rows are all chosen on.

    Raises:
        InputError: they are too few, or all have the same answer.
    """
    # In this order every beginning has the labels' shares, so the first CHOOSE_SHARE of the rows is a fair sample.
    rows = stratified(distinct(shuffled(examples, seed)), seed)
    answers = len({row.answer for row in rows})
    if answers < 2 or len(rows) < 8:
        raise InputError(
            f"learn: found {len(rows)} labelled rows with {answers} different answers; expected at least 8 rows with "
            f"2 answers, and {FEWEST_ROWS} rows for a verdict"
        )
    if len(rows) < FEWEST_ROWS:
        return Cut(rows, [])
    read = {fold(row.text) for one in grimoires for row in one.provenance.among(examples)}
    count = round(CHOOSE_SHARE * len(rows))
    choose = rows[:count] + [row for row in rows[count:] if fold(row.text) in read]
    confirm = [row for row in rows[count:] if fold(row.text) not in read]
    return Cut(choose, confirm) if len(confirm) >= FEWEST_CONFIRMED else Cut(choose + confirm, [])
