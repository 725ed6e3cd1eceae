"""Judging candidates: the loss that they are compared by, and shares from fits that had not seen the row."""

import math
from typing import Any

import pytest

from sleicl_chains.answering.arms import Arm
from sleicl_chains.answering.fitting import held_out_linear
from sleicl_chains.answering.observer import Observer
from sleicl_chains.learning.judging import Candidate, Judge, Judged, least_losses
from sleicl_chains.learning.survey import Survey
from tests.support.fake_models import Stater
from tests.support.learn_task import LABELS, SPACE, TASK, knows, number, rows

ROWS = rows(40)


def judge(model: Any) -> tuple[Judge, Observer]:
    """Return a judge that has seen all rows under the barest prompt."""
    setup = Observer(model, TASK, Arm(), embeddings=SPACE)
    survey = Survey(setup.evidence, lambda *_: None, planned=len(ROWS))
    survey.ask(setup, ROWS, "score")
    return Judge(TASK, survey, seed=0), setup


def stater() -> Stater:
    """Return a model whose state tells the right door, in the first of five numbers."""
    return Stater(
        think=lambda prompt: {"left": 0.6, "right": 0.4},
        feel=lambda prompt: [
            1.0 if knows(prompt) == "left" else -1.0, *(number(f"{prompt} {at}") / 1000 for at in range(4))
        ],
    )  # fmt: skip


def powers(shares: list[dict[str, float]], power: float) -> list[dict[str, float]]:
    raised = [{label: share**power for label, share in one.items()} for one in shares]
    return [{label: value / sum(one.values()) for label, value in one.items()} for one in raised]


def test_the_loss_by_hand() -> None:
    """One row of a weighs as much as three of b; at temperature 1 nothing can be had that is not there already."""
    shares = [{"a": 0.5, "b": 0.5}] * 4
    assert least_losses(shares, list("abbb")) == pytest.approx([2 * math.log(2), *[2 / 3 * math.log(2)] * 3])
    right = [{"a": 0.8, "b": 0.2}] + [{"a": 0.2, "b": 0.8}] * 3
    loss = -math.log(256 / 257)  # at the boldest, 1/4: .8^4 to .2^4
    assert least_losses(right, list("abbb")) == pytest.approx([2 * loss, *[2 / 3 * loss] * 3])


@pytest.mark.parametrize("power", [1 / 3, 1 / 2, 2.0])
def test_to_be_more_or_less_bold_costs_nothing(power: float) -> None:
    """What is pooled of three kinds of evidence is about a third as bold as one model of them all."""
    draws = [number(f"share {at}") / 1000 for at in range(60)]
    shares = [{"a": 0.1 + 0.8 * draw, "b": 0.9 - 0.8 * draw} for draw in draws]
    answers = ["a" if draw > number(f"noise {at}") / 1000 else "b" for at, draw in enumerate(draws)]
    ours, theirs = (sum(least_losses(one, answers)) / 60 for one in (powers(shares, power), shares))
    assert ours == pytest.approx(theirs, abs=0.005)


@pytest.mark.parametrize("gains, clearly", [([1, 0, 1, 0], True), ([1, 0, 0, 0], False), ([0, 0, 0, 0], False)])
def test_clearly_better_is_by_more_than_a_standard_error_by_hand(gains: list[float], clearly: bool) -> None:
    """Means 1/2 and 1/4; the standard errors of four gains are .289 and just 1/4."""
    setup = Observer(stater(), TASK, Arm(), embeddings=SPACE)

    def judged(losses: list[float]) -> Judged:
        right, nothing = [True] * 4, [0.0] * 4
        return Judged(Candidate(setup, "score", "mean"), ["left"] * 4, nothing, right, losses, None, 0.0)

    other = judged([2.0, 3.0, 4.0, 5.0])
    better = judged([loss - gain for loss, gain in zip(other.losses, gains, strict=True)])
    assert better.clearly_better(other) == clearly and not other.clearly_better(better)


def test_each_kind_of_evidence_is_fitted_once_for_all_readings(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, ...]] = []

    def counted(*given: Any) -> Any:
        asked.append(given[2])
        return held_out_linear(*given)

    monkeypatch.setattr("sleicl_chains.learning.judging.held_out_linear", counted)
    found, setup = judge(stater())
    other = Observer(setup.weak, TASK, Arm(examples="few-shot"), examples=tuple(rows(44)[40:]), embeddings=SPACE)
    found.survey.ask(other, ROWS, "score")
    for one in (setup, other):
        for mode in ("hidden", "blend"):
            found.judge(Candidate(one, mode, "none"), ROWS)
    assert asked == [("state",), ("scores",), ("vector",), ("state",), ("scores",)]


def test_a_blend_is_judged_by_its_parts_pooled() -> None:
    found, setup = judge(stater())
    blend, state = (found.judge(Candidate(setup, mode, "none"), ROWS) for mode in ("blend", "hidden"))
    assert blend.candidate.name == "zero-shot+blend"
    assert sum(state.right) >= 36 and sum(blend.right) >= 34  # the other two kinds know nothing, and cost little
    assert state.loss and blend.loss and blend.loss == pytest.approx(state.loss, abs=0.05)
    assert blend.loss < math.log(len(LABELS)) / 2
