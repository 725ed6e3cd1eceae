"""The linear reader: regularised logistic regression on one or several blocks of evidence."""

import json
import math
import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from sleicl_chains.answering.evidence import Observation, features
from sleicl_chains.answering.fitting import fit_linear, fit_linear_held_out, fit_reader
from sleicl_chains.answering.readers import BlendReader, LinearReader, Reader, load_reader
from sleicl_chains.errors import InputError
from sleicl_chains.models.abilities import LabelScores

AB, ABC = ("a", "b"), ("a", "b", "c")


def state(*values: float) -> Observation:
    return Observation(state=values)


def clouds(
    counts: dict[str, int], size: int, *, width: float = 1.0, seed: int = 0
) -> tuple[list[Observation], list[str]]:
    """Return states around a middle of each label, which is 2 on an axis of its own, and their labels."""
    draw = random.Random(seed)
    answers = [label for label, count in counts.items() for _ in range(count)]
    axes = {label: axis for axis, label in enumerate(counts)}
    middles = {label: [2.0 * (place == axis) for place in range(size)] for label, axis in axes.items()}
    return [state(*(draw.gauss(value, width) for value in middles[answer])) for answer in answers], answers


def answered(reader: Reader, seen: Sequence[Observation]) -> list[str]:
    return [max(shares, key=lambda label: shares[label]) for shares in map(reader.shares, seen)]


# ------------------------------------------------------------------ shares


def test_shares_of_two_labels_by_hand() -> None:
    """State 3, less the mean 1, over the scale 2 is 1: logits 1 and -1."""
    reader = LinearReader(AB, ("state",), (1.0,), (2.0,), ((1.0,), (-1.0,)), (0.0, 0.0), AB)
    assert reader.shares(state(3.0))["a"] == pytest.approx(1 / (1 + math.exp(-2)))
    assert reader.shares(state(1.0)) == pytest.approx({"a": 0.5, "b": 0.5})


def test_shares_of_three_labels_by_hand() -> None:
    """State (log 2, log 4): logits log 2, log 4 and the offset log 8, so 2, 4 and 8 of 14; no row had label d."""
    reader = LinearReader(
        ABC, ("state",), (0.0, 0.0), (1.0, 1.0), ((1.0, 0.0), (0.0, 1.0), (0.0, 0.0)), (0.0, 0.0, math.log(8)),
        ("d", "c", "b", "a"),
    )  # fmt: skip
    found = reader.shares(state(math.log(2), math.log(4)))
    assert found == pytest.approx({"d": 0, "a": 2 / 14, "b": 4 / 14, "c": 8 / 14})
    assert list(found) == ["d", "c", "b", "a"]


def test_evidence_is_laid_side_by_side_and_scores_as_logarithms_less_their_mean() -> None:
    scores = LabelScores({"b": 0.2, "a": 0.8}, coverage=1.0, prompt_tokens=1, requests=1)
    seen = Observation(scores, state=[1.0, 2.0], vector=[3.0])
    assert features([seen], ("vector", "scores", "state"), AB)[0] == pytest.approx([3, math.log(2), -math.log(2), 1, 2])


@pytest.mark.parametrize("block", ["scores", "state", "vector"])
def test_missing_evidence_is_refused(block: Any) -> None:
    with pytest.raises(InputError, match=f"an observation lacks its {block}; it was made for another mode"):
        features([Observation()], (block,), AB)


# ------------------------------------------------------------------ fits


@pytest.mark.parametrize("labels", [AB, ABC])
def test_a_fit_tells_new_rows_apart(labels: tuple[str, ...]) -> None:
    reader = fit_linear(*clouds(dict.fromkeys(labels, 20), 4, width=0.5), ("state",), labels)
    seen, answers = clouds(dict.fromkeys(labels, 30), 4, width=0.5, seed=1)
    assert sum(map(str.__eq__, answered(reader, seen), answers)) >= 0.95 * len(answers)


@pytest.mark.parametrize("answers", ["aab", "abbb", "aabc", "abbbc"])
def test_with_more_features_than_rows_the_fit_is_that_of_scikit_learn(answers: str) -> None:
    """Too few rows for folds: the strength is 3. Each feature is standardised and divided by the root of their number.

    scikit-learn is given all 40 features here, the reader uses the space that the rows span.
    """
    draw = np.random.default_rng(0)
    rows = draw.normal(size=(len(answers), 40))
    reader = fit_linear([state(*row) for row in rows], list(answers), ("state",), ABC)
    scaled = (rows - rows.mean(axis=0)) / rows.std(axis=0) / math.sqrt(40)
    plain = LogisticRegression(C=3.0, class_weight="balanced", max_iter=5000, tol=1e-8).fit(scaled, list(answers))
    new = draw.normal(size=(5, 40))
    wanted = plain.predict_proba((new - rows.mean(axis=0)) / rows.std(axis=0) / math.sqrt(40))
    for row, shares in zip(new, wanted, strict=True):
        found = reader.shares(state(*row))
        assert [found[label] for label in plain.classes_] == pytest.approx(shares, abs=2e-3)


def test_a_thousand_features_that_know_little_each_are_enough_for_forty_rows() -> None:
    draw = np.random.default_rng(0)

    def rows(answers: str) -> list[Observation]:
        return [state(*draw.normal(0.2 if answer == "a" else -0.2, size=1000)) for answer in answers]

    reader = fit_linear(rows("ab" * 20), list("ab" * 20), ("state",), AB)
    assert sum(map(str.__eq__, answered(reader, rows("ab" * 40)), "ab" * 40)) >= 76


def test_a_label_without_training_rows_gets_nothing() -> None:
    reader = fit_linear(*clouds({"a": 10, "c": 10}, 3), ("state",), ABC)
    assert reader.labels == ("a", "c")
    for seen in clouds({"a": 3, "b": 3, "c": 3}, 3)[0]:
        shares = reader.shares(seen)
        assert shares["b"] == 0 and sum(shares.values()) == pytest.approx(1)


def test_rows_of_a_single_label_always_get_it() -> None:
    reader = fit_linear([state(1.0), state(2.0)], ["b", "b"], ("state",), AB)
    assert reader.shares(state(-9.0)) == {"a": 0.0, "b": 1.0}


def test_a_label_with_a_single_row_is_fitted_too() -> None:
    seen, answers = clouds({"a": 12, "b": 12, "c": 1}, 3, width=0.2)
    assert answered(fit_linear(seen, answers, ("state",), ABC), [state(0.0, 0.0, 2.0)]) == ["c"]


def test_of_87_rows_in_100_the_middle_is_still_a_toss_up() -> None:
    """Halfway between two clouds; weighing each row alike, the frequent label would have far more than .7 there."""
    found = fit_linear(*clouds({"a": 174, "b": 26}, 2), ("state",), AB).shares(state(1.0, 1.0))
    assert found["a"] == pytest.approx(0.5, abs=0.12)


def test_features_that_never_change_do_no_harm() -> None:
    rows = [state(1.0, value, 5.0) for value in (-1.0, -2.0, -1.5, 1.0, 2.0, 1.5)]
    reader = fit_linear(rows, list("aaabbb"), ("state",), AB)
    assert answered(reader, [state(1.0, -1.0, 5.0), state(1.0, 1.0, 5.0)]) == ["a", "b"]
    even = fit_linear([state(1.0)] * 6, list("aaabbb"), ("state",), AB)
    assert even.shares(state(1.0)) == pytest.approx({"a": 0.5, "b": 0.5}, abs=1e-3)


def test_a_block_of_two_numbers_is_not_drowned_by_one_of_two_hundred() -> None:
    """The scores alone tell the labels apart; the vectors are noise."""
    draw = random.Random(0)

    def row(answer: str) -> Observation:
        share = min(0.95, max(0.05, draw.gauss(0.8 if answer == "a" else 0.2, 0.1)))
        scores = LabelScores({"a": share, "b": 1 - share}, coverage=1.0, prompt_tokens=1, requests=1)
        return Observation(scores, vector=[draw.gauss(0, 10) for _ in range(200)])

    answers = list("ab" * 30)
    reader = fit_linear([row(answer) for answer in answers], answers, ("scores", "vector"), AB)
    new = list("ab" * 50)
    assert sum(map(str.__eq__, answered(reader, [row(answer) for answer in new]), new)) >= 85


def test_a_fit_is_the_same_every_time() -> None:
    seen, answers = clouds({"a": 15, "b": 9, "c": 7}, 50)
    assert fit_linear(seen, answers, ("state",), ABC) == fit_linear(seen, answers, ("state",), ABC)


# ------------------------------------------------------------------ blends


def test_a_blend_by_hand() -> None:
    """One part says 9 to 1 for a, the other 4 to 1 for b: their geometric mean is 3 to 2."""
    sure = LinearReader(AB, ("state",), (0.0,), (1.0,), ((0.0,), (0.0,)), (math.log(9), 0.0), AB)
    other = LinearReader(AB, ("vector",), (0.0,), (1.0,), ((0.0,), (0.0,)), (0.0, math.log(4)), AB)
    seen = Observation(state=[5.0], vector=[7.0])
    assert BlendReader((sure, other)).shares(seen) == pytest.approx({"a": 0.6, "b": 0.4})
    assert BlendReader((sure, sure)).shares(seen) == pytest.approx(sure.shares(seen))


def told_twice(count: int, seed: int) -> tuple[list[Observation], list[str]]:
    """Return rows whose state and whose vector each tell half of what there is to know of the label."""
    draw = random.Random(seed)
    answers = list("ab" * (count // 2))

    def part(answer: str) -> list[float]:
        return [draw.gauss(1.0 if answer == "a" else -1.0, 1.5), *(draw.gauss(0, 1) for _ in range(20))]

    return [Observation(state=part(answer), vector=part(answer)) for answer in answers], answers


def test_a_blend_knows_what_its_parts_know_together() -> None:
    (seen, answers), (new, golds) = told_twice(100, seed=0), told_twice(400, seed=1)

    def right(reader: Reader) -> int:
        return sum(map(str.__eq__, answered(reader, new), golds))

    alone = [right(fit_linear(seen, answers, (block,), AB)) for block in ("state", "vector")]
    assert right(fit_reader("blend", seen, answers, [("state",), ("vector",)], AB)) > max(alone)


# ------------------------------------------------------------------ files


@pytest.mark.parametrize("labels", [AB, ABC])
def test_a_reader_comes_back_from_its_file(labels: tuple[str, ...]) -> None:
    """To six digits."""
    seen, answers = clouds(dict.fromkeys(labels, 12), 30)
    reader = fit_linear(seen, answers, ("state",), (*labels, "never seen"))
    again = load_reader(json.loads(json.dumps(reader.to_dict())))
    for one in seen:
        assert again.shares(one) == pytest.approx(reader.shares(one), abs=1e-5)
    assert again.to_dict() == reader.to_dict()


def test_many_labels_are_no_regression() -> None:
    """scikit-learn warns at every fit where labels are more than half as many as rows; here that is an error."""
    seen, answers = clouds({f"label {number}": 1 + number % 2 for number in range(30)}, 30, width=0.1)
    labels = tuple(dict.fromkeys(answers))
    reader = fit_linear(seen, answers, ("state",), labels)
    assert answered(reader, seen) == answers
    assert len(fit_linear_held_out(seen, answers, ("state",), labels)[1]) == len(seen)


def test_a_feature_that_hardly_varies_decides_nothing() -> None:
    """Beside a feature of size 1, one of spread 2e-9 is what rounding leaves; standardised, it gave probability 1."""
    rows, answers = clouds({"a": 12, "b": 12}, 2, width=2.0)
    tiny = [state(*seen.state, 0.5 + 4e-9 * (answer == "a")) for seen, answer in zip(rows, answers, strict=True)]
    plain = [state(*seen.state, 0.5) for seen in rows]
    wanted, found = (fit_linear(seen, answers, ("state",), AB) for seen in (plain, tiny))
    new = state(0.3, 0.2, 0.6)
    assert found.shares(new) == pytest.approx(wanted.shares(new), abs=1e-6)
    assert max(found.shares(new).values()) < 0.9
