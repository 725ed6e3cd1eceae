"""The plan: which pair is compared, on which rows, and what else is asked; told before any model is."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

from sleicl_chains.answering.arms import Arm, Examples, Form
from sleicl_chains.answering.readings import Mode
from sleicl_chains.grimoires.grimoire import Grimoire
from sleicl_chains.learning.cut import Cut

CALLS: dict[Mode, int] = {"blend": 3}
"""Requests to the weak model a question, where it is not one."""


@dataclass(frozen=True)
class Plan:
    """The prompts, each with the grimoire that it shows; nothing is asked by it."""

    baseline: Arm
    """The pair's prompt without a grimoire."""
    pair: Arm | None
    """The same with the first grimoire; None without any."""
    cheaper: tuple[Arm, ...]
    """The pair without examples: asked about all rows, since the recipe may take them."""
    others: tuple[tuple[Arm, int], ...]
    """Also tried, on half of the rows: what is shown, and the place of the grimoire among those given."""

    @classmethod
    def of(cls, parts: Cut, forms: Sequence[Sequence[Form]], thorough: bool = False) -> "Plan":
        """Return the plan for grimoires of these forms, each with its fullest first.

        The pair is `profound+few-shot` against `few-shot`, with `simple` where the first grimoire has no profound text;
        without examples it is `profound` against `zero-shot`.
        """
        examples: Examples = "few-shot" if parts.shown else ""
        alone = [Arm(), *(Arm(each[0]) for each in forms[:1])]
        first, *more = forms or [()]
        others = [(Arm(form, kind), 0) for form in first[1:] for kind in dict.fromkeys([examples, ""])]
        others += [(Arm(form, examples), at) for at, each in enumerate(more, 1) for form in each]
        others += [(Arm(examples="knn"), 0)] if thorough else []
        return cls(
            Arm(examples=examples), Arm(first[0], examples) if first else None,
            tuple(alone) if parts.shown else (), () if parts.untested else tuple(others),
        )  # fmt: skip

    def lines(self, parts: Cut, mode: Mode, grimoire: str) -> list[str]:
        """Say it in words: the pair, the rows, and the calls.

        Args:
            parts: the rows.
            mode: how answers are read.
            grimoire: the name of the first one.
        """
        if parts.untested:
            return [f"Plan: no test, since {parts.untested}; one prompt is taken by what is known of other tasks."]
        n, pair = len(parts.tested), self.pair
        away = (
            [f"{len(parts.drawn)} are {'shown as examples' if parts.shows else 'written from'}"] if parts.drawn else []
        )
        away += [f"{len(parts.read)} were written from"] if parts.read else []
        rows = f"{n} of {len(parts.rows)} labelled rows" + (f" ({', '.join(away)})" if away else "")
        what = (
            f"{pair.name} ({grimoire}) against {self.baseline.name}" if pair else "no test, since no grimoire was given"
        )
        asked = self.questions(n)
        also = dict.fromkeys([*(arm.name for arm in self.cheaper), *(arm.name for arm, _ in self.others)])
        tried = f"Also tried: {', '.join(also)}. " if also else ""
        return [
            f"Plan: {what}, read by {mode}, on {rows}.",
            f"{tried}{asked} questions to the weak model, up to {asked * CALLS.get(mode, 1)} calls.",
        ]

    def questions(self, rows: int) -> int:
        """Return how many questions are asked about so many rows; calls that choose a cue are not counted."""
        whole = 1 + bool(self.pair) + len(self.cheaper)
        return whole * rows + len(self.others) * (rows // 2)


def forms_of(grimoire: Grimoire) -> list[Form]:
    """Return the texts that a grimoire has, the fullest first."""
    return [form for form in reversed(get_args(Form)) if form and getattr(grimoire, form)]
