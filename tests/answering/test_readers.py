"""Readers, on numbers that can be checked by hand; the linear one has a file of its own."""

import json
import math
import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import scipy.optimize

from sleicl_chains.answering.calibration import Calibration, fit_calibration
from sleicl_chains.answering.evidence import Observation
from sleicl_chains.answering.fitting import fit_affine
from sleicl_chains.answering.priors import mean_shares, prior_texts, remove_prior
from sleicl_chains.answering.readers import AffineReader, PriorReader, load_reader
from sleicl_chains.errors import InputError
from sleicl_chains.models.abilities import LabelScores
from sleicl_chains.tasks.cards import Task
from sleicl_chains.tasks.rows import Example

AB = ("a", "b")


def scored(**shares: float) -> Observation:
    return Observation(LabelScores(shares, coverage=1.0, prompt_tokens=1, requests=1))


def drawn(n: int, share_of_a: float) -> tuple[list[float], list[str]]:
    """Return true log-odds of "a", spread alike to both sides, and answers that the odds did not have a say in."""
    draw = random.Random(0)
    answers = ["a" if draw.random() < share_of_a else "b" for _ in range(n)]
    return [draw.gauss(1.0 if answer == "a" else -1.0, 1.0) * 2 for answer in answers], answers


def leaning(odds: Sequence[float], lean: float) -> list[Observation]:
    """Return what a model says whose log-odds of "a" are `lean` too high."""
    chances = [1 / (1 + math.exp(-(one + lean))) for one in odds]
    return [scored(a=chance, b=1 - chance) for chance in chances]


# ------------------------------------------------------------------ a prior


def test_a_prior_is_divided_out_by_hand() -> None:
    """.6 / .8 = .75, .3 / .15 = 2 and .1 / .05 = 2 add up to 4.75."""
    reader = PriorReader({"a": 0.8, "b": 0.15, "c": 0.05})
    assert reader.shares(scored(a=0.6, b=0.3, c=0.1)) == pytest.approx({"a": 0.75 / 4.75, "b": 2 / 4.75, "c": 2 / 4.75})


def test_of_87_rows_in_100_the_prior_reads_no_more_than_of_the_others_share() -> None:
    """A model that tells them apart (.9, .1 and .3, .7): over all rows the prior would be .82, over those chosen .69.

    24 of the frequent label and all 13 of the other are read: (24 * .9 + 13 * .3) / 37.
    """
    train = [Example(f"{label} {n}", label) for label, count in (("a", 87), ("b", 13)) for n in range(count)]
    texts = prior_texts(train, Task(name="t", description="d", labels=AB), seed=0)
    prior = mean_shares({"a": 0.9, "b": 0.1} if text.startswith("a") else {"a": 0.3, "b": 0.7} for text in texts)
    assert prior["a"] == pytest.approx((24 * 0.9 + 13 * 0.3) / 37)
    assert remove_prior({"a": 0.3, "b": 0.7}, prior)["b"] > 0.8
    assert remove_prior({"a": 0.9, "b": 0.1}, prior)["a"] > 0.8


# ------------------------------------------------------------------ slopes and offsets


@pytest.mark.parametrize(
    ("slopes", "offsets", "a"),
    [
        ((1.0, 1.0), (0.0, 0.0), 4 / 5),  # nothing changes
        ((2.0, 2.0), (0.0, 0.0), 16 / 17),  # odds of 4 to 1 squared
        ((1.0, 1.0), (0.0, math.log(4)), 1 / 2),  # the offset makes up for them
        ((1.0, 0.0), (0.0, 0.0), 2 / 3),  # log 2 against 0: .8 and .2 are log 2 above and below their mean
    ],
)
def test_affine_shares_by_hand(slopes: tuple[float, float], offsets: tuple[float, float], a: float) -> None:
    assert AffineReader(AB, slopes, offsets).shares(scored(a=0.8, b=0.2)) == pytest.approx({"a": a, "b": 1 - a})


def test_a_share_of_nothing_is_a_small_number() -> None:
    found = AffineReader(AB, (1.0, 1.0), (0.0, 0.0)).shares(scored(a=1.0, b=0.0))
    assert found["a"] == pytest.approx(1) and 0 < found["b"] < 1e-11


def test_the_gradient_is_that_of_the_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    losses: list[Any] = []
    minimize = scipy.optimize.minimize

    def kept(loss: Any, *args: Any, **options: Any) -> Any:
        losses.append(loss)
        return minimize(loss, *args, **options)

    monkeypatch.setattr(scipy.optimize, "minimize", kept)
    odds, answers = drawn(40, 0.3)
    fit_affine(leaning(odds, 1.0), answers, AB)
    assert len(losses) == 3 * 5 + 1  # trusts, folds, and the last fit
    for loss in losses:
        point = np.array([0.7, 1.4, -0.5, 0.9])
        steps = 1e-6 * np.eye(4)
        slope = [(loss(point + step)[0] - loss(point - step)[0]) / 2e-6 for step in steps]
        assert loss(point)[1] == pytest.approx(slope, abs=1e-5)


@pytest.mark.parametrize("lean", [-3.0, 0.0, 1.0, 3.0])
def test_a_fit_takes_a_known_lean_back(lean: float) -> None:
    """Odds that are e^lean too high are put right: what is worth even odds is a toss-up again."""
    odds, answers = drawn(400, 0.5)
    reader = fit_affine(leaning(odds, lean), answers, AB)
    for true in (-2.0, 0.0, 2.0):
        found = reader.shares(leaning([true], lean)[0])["a"]
        assert found == pytest.approx(1 / (1 + math.exp(-true)), abs=0.12)


def test_a_fit_of_one_label_in_87_of_100_rows_does_not_lean_to_it() -> None:
    odds, answers = drawn(400, 0.87)
    reader = fit_affine(leaning(odds, 2.0), answers, AB)
    assert reader.shares(leaning([0.0], 2.0)[0])["a"] == pytest.approx(0.5, abs=0.12)


def test_scores_that_say_nothing_stay_even_however_rare_a_label_is() -> None:
    seen, answers = [scored(a=0.5, b=0.5)] * 40, ["a"] * 35 + ["b"] * 5
    assert fit_affine(seen, answers, AB).shares(seen[0]) == pytest.approx({"a": 0.5, "b": 0.5}, abs=1e-3)


def test_without_folds_a_fit_is_held_most_strongly() -> None:
    """Three rows: next to the prior `mean`, whose offsets are those of the mean shares over labels weighing alike."""
    seen, answers = [scored(a=0.8, b=0.2), scored(a=0.8, b=0.2), scored(a=0.8, b=0.2)], ["a", "b", "b"]
    reader = fit_affine(seen, answers, AB)
    assert reader.shares(seen[0]) == pytest.approx({"a": 0.5, "b": 0.5}, abs=0.05)
    assert reader.slopes == pytest.approx((1, 1), abs=0.3)


# ------------------------------------------------------------------ files


@pytest.mark.parametrize(
    "reader", [PriorReader({"a": 0.8, "b": 0.2}), AffineReader(AB, (1.5, 0.5), (0.25, -0.25))], ids=["prior", "affine"]
)
def test_a_reader_comes_back_from_its_file(reader: PriorReader | AffineReader) -> None:
    again = load_reader(json.loads(json.dumps(reader.to_dict())))
    assert again == reader
    assert again.shares(scored(a=0.3, b=0.7)) == reader.shares(scored(a=0.3, b=0.7))


@pytest.mark.parametrize(
    ("found", "problem"),
    [
        ({}, "unknown kind None"),
        ({"kind": "oracle"}, "unknown kind 'oracle'"),
        ({"kind": ["prior"]}, "unknown kind ['prior']"),
        ({"kind": "prior"}, "prior: Field required"),
        ({"kind": "prior", "prior": {}, "extra": 1}, "extra: Unexpected keyword argument"),
    ],
)
def test_what_is_no_reader_is_refused_in_one_line(found: dict[str, Any], problem: str) -> None:
    with pytest.raises(InputError) as caught:
        load_reader(found)
    assert problem in str(caught.value) and "\n" not in str(caught.value)
    assert str(caught.value).endswith("expected one of prior, affine, linear, blend")


def test_evidence_of_another_mode_is_refused() -> None:
    for reader in (PriorReader({"a": 1.0}), AffineReader(AB, (1.0, 1.0), (0.0, 0.0))):
        with pytest.raises(InputError, match="an observation lacks its scores; it was made for another mode"):
            reader.shares(Observation(state=[1.0]))


# ------------------------------------------------------------------ calibration


def test_calibration_by_hand() -> None:
    """sigmoid(2 * logit(.8)): odds of 4 to 1 squared; sigmoid(logit(.5) + log 3): odds of 3 to 1."""
    assert Calibration(1.0, 0.0).of(0.8) == pytest.approx(0.8)
    assert Calibration(2.0, 0.0).of(0.8) == pytest.approx(16 / 17)
    assert Calibration(1.0, math.log(3)).of(0.5) == pytest.approx(3 / 4)
    assert Calibration(0.0, math.log(3)).of(0.99) == pytest.approx(3 / 4)
    assert 0 < Calibration(1.0, 0.0).of(0.0) < 0.001 and 0.999 < Calibration(1.0, 0.0).of(1.0) < 1


@pytest.mark.parametrize("right", [[True] * 9, [False] * 12, [True] * 12, [True, False, False]])
def test_with_few_rows_or_all_of_a_kind_only_the_rate_counts(right: list[bool]) -> None:
    """Laplace's (right + 1) / (rows + 2), whatever the share."""
    found = fit_calibration([0.5 + 0.04 * n for n in range(len(right))], right)
    assert [found.of(share) for share in (0.3, 0.99)] == pytest.approx([(sum(right) + 1) / (len(right) + 2)] * 2)


def test_a_calibration_is_right_on_average_and_keeps_the_order() -> None:
    """The offset is not held, so that at the optimum the mean probability is the rate of right answers."""
    shares = [0.4 + 0.005 * n for n in range(100)]
    right = [n % 10 < n // 12 for n in range(100)]
    found = fit_calibration(shares, right)
    assert sum(map(found.of, shares)) / 100 == pytest.approx(sum(right) / 100, abs=1e-3)
    assert [found.of(share) for share in shares] == sorted(found.of(share) for share in shares)
    assert found.of(0.5) < 0.35 and found.of(0.85) > 0.6


def test_shares_that_tell_the_wrong_way_count_for_nothing() -> None:
    shares = [0.5 + 0.01 * n for n in range(40)]
    found = fit_calibration(shares, [n < 20 for n in range(40)])
    assert found.slope == 0
    assert found.of(0.9) == pytest.approx(21 / 42)
