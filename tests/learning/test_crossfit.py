"""Cross-fitting: no answer has a say in what is made of its own row, and what is made of it is what it should be."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sleicl_chains.answering.calibration import best_temperature, tempered
from sleicl_chains.answering.evidence import Observation
from sleicl_chains.answering.fitting import fit_linear_held_out
from sleicl_chains.answering.priors import mean_shares, remove_prior
from sleicl_chains.answering.readers import BlendReader
from sleicl_chains.answering.shares import likeliest, pooled
from sleicl_chains.learning.crossfit import BLEND_ROWS, CrossFit, Groups, Held, folds, plain_reading, quadratic_score
from sleicl_chains.models.abilities import LabelScores
from sleicl_chains.tasks.cards import Task
from sleicl_chains.tasks.rows import Example
from tests.support.fake_models import Scorer, Stater, Writer
from tests.support.learn_task import LABELS, TASK, door, number, rows

BLEND: Groups = [("scores",), ("state",), ("vector",)]
SCORE: Groups = ()
ROWS = rows(40)
EITHER = pytest.mark.parametrize("groups", [BLEND, SCORE], ids=["blend", "score"])


@pytest.fixture(autouse=True)
def two_strengths(monkeypatch: pytest.MonkeyPatch) -> None:
    """Faster, and still a choice."""
    monkeypatch.setattr("sleicl_chains.answering.fitting.STRENGTHS", (3.0, 30.0))


def draw(text: str) -> float:
    """Return a number from -1 to 1 that is the same for a text everywhere."""
    return number(text) / 500 - 1


def seen_of(row: Example, unseen: Sequence[str] = ()) -> Observation:
    """Return evidence that tells the right door a little, by the text alone, whatever answer stands beside it."""
    lean = (1 if door(row.text) == "left" else -1) * 0.4 + draw("scores" + row.text)
    left = 1 / (1 + math.exp(-lean - 0.5))
    scores = LabelScores({"left": left, "right": 1 - left}, 0.5, 9, 1, tuple(unseen))
    state = [lean + draw(f"state{at}{row.text}") for at in range(3)]
    return Observation(scores, state, [draw(f"vector{at}{row.text}") for at in range(4)])


SEEN = [seen_of(row) for row in ROWS]


def turned(row: Example) -> Example:
    return Example(row.text, LABELS[1 - LABELS.index(row.answer)])


def hold(monkeypatch: pytest.MonkeyPatch, examples: Sequence[Example] = ROWS) -> list[list[int]]:
    """Keep the folds of these rows: they have the labels in equal shares, so an answer decides on its companions."""
    found = folds(examples)
    monkeypatch.setattr("sleicl_chains.learning.crossfit.folds", lambda _: found)
    return found


def made(held: Held) -> tuple[Any, ...]:
    """Return all that is made of a row but the score, which compares it with the answer."""
    return held.label, held.share, held.chance


@EITHER
def test_an_answer_has_no_say_in_what_is_made_of_its_row(groups: Groups, monkeypatch: pytest.MonkeyPatch) -> None:
    places = hold(monkeypatch)
    straight = CrossFit(TASK, ROWS).held_out(SEEN, groups)
    fold, at = places[1], places[1][3]
    mixed = [turned(row) if here == at else row for here, row in enumerate(ROWS)]
    found = CrossFit(TASK, mixed).held_out(SEEN, groups)
    assert [made(found[here]) for here in fold] == [made(straight[here]) for here in fold]
    assert found[at].score != straight[at].score
    # It has one in what is made of the others, else this would say nothing.
    assert [made(one) for one in found] != [made(one) for one in straight]


@EITHER
def test_a_whole_folds_answers_have_no_say_in_it(groups: Groups, monkeypatch: pytest.MonkeyPatch) -> None:
    fold = hold(monkeypatch)[2]
    straight = CrossFit(TASK, ROWS).held_out(SEEN, groups)
    mixed = [turned(row) if at in fold else row for at, row in enumerate(ROWS)]
    found = CrossFit(TASK, mixed).held_out(SEEN, groups)
    assert [made(found[at]) for at in fold] == [made(straight[at]) for at in fold]


@EITHER
def test_nor_has_its_evidence_in_what_is_made_of_its_fold(groups: Groups) -> None:
    """Priors and temperatures come from the other folds too."""
    fold = folds(ROWS)[1]
    straight = CrossFit(TASK, ROWS).held_out(SEEN, groups)
    strange = [seen_of(Example("strange", "left")) if at == fold[0] else one for at, one in enumerate(SEEN)]
    found = CrossFit(TASK, ROWS).held_out(strange, groups)
    assert [found[at] for at in fold[1:]] == [straight[at] for at in fold[1:]]
    assert found != straight


def by_hand(row: Example, table: Sequence[dict[str, float]], gold: list[str], whole: dict[str, float]) -> Held:
    """Return what is made of a row whose shares are known, at the temperature of the others."""
    temperature = best_temperature(
        np.array([[one[label] for label in LABELS] for one in table]), np.array([LABELS.index(one) for one in gold])
    )
    calm = dict(zip(LABELS, tempered(np.array([[whole[label] for label in LABELS]]), temperature)[0], strict=True))
    label, share = likeliest(whole)
    return Held(label, share, calm[label], quadratic_score(calm, row.answer))


def same(found: Held, hand: Held) -> bool:
    return found.label == hand.label and found[1:] == pytest.approx(hand[1:], abs=1e-9)


def test_a_blend_held_out_is_one_fitted_by_hand_on_the_other_folds() -> None:
    found = CrossFit(TASK, ROWS).held_out(SEEN, BLEND)
    for fold in folds(ROWS)[:2]:
        others = [at for at in range(len(ROWS)) if at not in fold]
        seen, gold = [SEEN[at] for at in others], [ROWS[at].answer for at in others]
        parts = [fit_linear_held_out(seen, gold, group, LABELS) for group in BLEND]
        inner = [pooled([shares[at] for _, shares in parts]) for at in range(len(others))]
        reader = BlendReader(tuple(part for part, _ in parts))
        assert all(same(found[at], by_hand(ROWS[at], inner, gold, reader.shares(SEEN[at]))) for at in fold)


def test_scores_held_out_are_less_the_prior_of_the_other_folds() -> None:
    found = CrossFit(TASK, ROWS).held_out(SEEN, SCORE)
    for fold in folds(ROWS):
        others = [at for at in range(len(ROWS)) if at not in fold]
        plain = {at: one.scores.probabilities for at, one in enumerate(SEEN) if one.scores}
        prior = mean_shares(plain[at] for at in others)  # 32 texts, and up to 48 are read
        shares = {at: remove_prior(plain[at], prior) for at in plain}
        table, gold = [shares[at] for at in others], [ROWS[at].answer for at in others]
        assert all(same(found[at], by_hand(ROWS[at], table, gold, shares[at])) for at in fold)


def test_the_prior_reads_as_many_texts_of_each_label() -> None:
    """A frequent label is not taken for the model's preference."""
    examples = [
        *[row for row in rows(300) if row.answer == "left"][:100],
        *[r for r in ROWS if r.answer == "right"][:8],
    ]
    flat = {"left": Observation(LabelScores({"left": 0.8, "right": 0.2}, 0.5, 9, 1)),
            "right": Observation(LabelScores({"left": 0.4, "right": 0.6}, 0.5, 9, 1))}  # fmt: skip
    reader, _ = CrossFit(TASK, examples).fit([(flat[row.answer], row) for row in examples], SCORE)
    prior = reader.to_dict()["prior"]
    assert prior["left"] == pytest.approx((24 * 0.8 + 8 * 0.4) / 32)  # 48 texts, half of them for either label


def test_a_fit_on_the_embedding_alone_is_made_once_for_all_prompts(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, ...]] = []

    def counted(*given: Any) -> Any:
        asked.append(given[2])
        return fit_linear_held_out(*given)

    monkeypatch.setattr("sleicl_chains.learning.crossfit.fit_linear_held_out", counted)
    crossfit = CrossFit(TASK, ROWS)
    first, again = crossfit.held_out(SEEN, BLEND), crossfit.held_out(SEEN, BLEND)
    assert first == again and len(asked) == 5 * (3 + 2) and asked.count(("vector",)) == 5


@EITHER
def test_a_row_that_does_not_fit_counts_as_wrong_and_is_not_fitted_on(groups: Groups) -> None:
    missing = folds(ROWS)[3][0]
    seen = [None if at == missing else one for at, one in enumerate(SEEN)]
    found = CrossFit(TASK, ROWS).held_out(seen, groups)
    assert found[missing] == Held(None, 0.0, 0.0, 0.0)
    assert all(one.label for at, one in enumerate(found) if at != missing)


@EITHER
def test_one_fold_of_rows_longer_than_the_context(groups: Groups) -> None:
    fold = folds(ROWS)[0]
    found = CrossFit(TASK, ROWS).held_out([None if at in fold else one for at, one in enumerate(SEEN)], groups)
    assert [at for at, one in enumerate(found) if one.label is None] == fold


def test_where_no_label_is_in_sight_there_is_no_answer() -> None:
    """As in a solver; a reader of more than the scores has an answer all the same."""
    seen = [seen_of(row, LABELS if at == 5 else ("left",) if at == 6 else ()) for at, row in enumerate(ROWS)]
    found = CrossFit(TASK, ROWS).held_out(seen, SCORE)
    assert [at for at, one in enumerate(found) if one.label is None] == [5]
    assert CrossFit(TASK, ROWS).held_out(seen, BLEND)[5].label in LABELS


@pytest.mark.parametrize("n", [5, 8, 40, 101])
def test_folds_are_whole_by_folded_text_and_the_same_in_any_order(n: int) -> None:
    examples = rows(n)
    found = folds(examples)
    assert sorted(at for part in found for at in part) == list(range(n)) and len(found) == 5
    assert max(map(len, found)) - min(map(len, found)) <= 1
    as_texts = {frozenset(examples[at].text for at in part) for part in found}
    back = examples[::-1]
    assert {frozenset(back[at].text for at in part) for part in folds(back)} == as_texts
    loud = [Example(f"  {row.text.upper()} ", row.answer) for row in examples]
    assert folds(loud) == found
    for label in LABELS:
        counts = [sum(examples[at].answer == label for at in part) for part in found]
        assert max(counts) - min(counts) <= 1


def test_in_any_order_the_same_is_made_of_a_rows_scores() -> None:
    """Fitted readers cut their rows once more, in their order; `learn` has brought them into one of its own."""
    straight = CrossFit(TASK, ROWS).held_out(SEEN, SCORE)
    back = CrossFit(TASK, ROWS[::-1]).held_out(SEEN[::-1], SCORE)[::-1]
    assert all(same(one, other) for one, other in zip(straight, back, strict=True))


LABELS_77 = tuple(f"label {at}" for at in range(77))


@EITHER
@pytest.mark.parametrize(
    "answers",
    [
        [LABELS_77[at % 77] for at in range(60)],
        [LABELS_77[at % 30] for at in range(60)],
        ["label 0"] * 30,
        ["label 0"] * 29 + ["label 1"],
        ["label 0"] * 28 + ["label 1"] * 2,
        [*["label 0"] * 26, *[f"label {at}" for at in range(1, 5)]],
        ["label 0", "label 1", "label 0", "label 2", "label 1"],
    ],
    ids=["one row each", "two rows each", "one label", "all but one", "all but two", "four single ones", "five rows"],
)
def test_labels_with_hardly_a_row(groups: Groups, answers: list[str]) -> None:
    """A label that the other folds lack is never answered by a fitted reader; nothing breaks."""
    task = Task(name="many", task_type="choice", description="Choose.", labels=LABELS_77)
    examples = [Example(f"case {at}", answer) for at, answer in enumerate(answers)]

    def seen_as(row: Example) -> Observation:
        masses = {label: 1.5 + draw(row.text + label) for label in LABELS_77}
        total = sum(masses.values())
        scores = LabelScores({label: mass / total for label, mass in masses.items()}, 0.5, 9, 1)
        return Observation(
            scores, [draw(f"{at}{row.text}") for at in range(3)], [draw(f"v{at}{row.text}") for at in (0, 1)]
        )

    crossfit = CrossFit(task, examples)
    found = crossfit.held_out([seen_as(row) for row in examples], groups)
    assert all(one.label in LABELS_77 and one.chance and 0 < one.chance <= 1 for one in found)
    if groups:
        for part in folds(examples):
            others = {row.answer for at, row in enumerate(examples) if at not in part}
            assert {found[at].label for at in part} <= others


def test_the_quadratic_score_by_hand() -> None:
    shares = {"a": 0.5, "b": 0.3, "c": 0.2}
    assert quadratic_score(shares, "a") == pytest.approx(1.0 - 0.38)
    assert quadratic_score(shares, "c") == pytest.approx(0.4 - 0.38)
    assert quadratic_score({"a": 1.0, "b": 0.0}, "a") == 1 and quadratic_score({"a": 1.0, "b": 0.0}, "b") == -1
    assert quadratic_score({"a": 0.5, "b": 0.5}, "a") == quadratic_score({"a": 0.5, "b": 0.5}, "b") == 0.5


def _shares(masses: list[float]) -> dict[str, float]:
    return {str(at): mass / sum(masses) for at, mass in enumerate(masses)}


_MASSES = st.integers(2, 5).flatmap(
    lambda size: st.tuples(*[st.lists(st.floats(0.001, 1), min_size=size, max_size=size)] * 2)
)


@given(_MASSES)
@settings(max_examples=200, deadline=None)
def test_the_quadratic_score_is_expected_highest_at_the_true_probabilities(
    pair: tuple[list[float], list[float]],
) -> None:
    """It falls short there by the squared distance of the two."""
    true, told = map(_shares, pair)

    def expected(shares: dict[str, float]) -> float:
        return math.fsum(true[answer] * quadratic_score(shares, answer) for answer in true)

    short = math.fsum((true[label] - told[label]) ** 2 for label in true)
    assert expected(true) - expected(told) == pytest.approx(short, abs=1e-9)
    assert all(-1 <= quadratic_score(told, answer) <= 1 for answer in told)


@pytest.mark.parametrize(
    ("make", "n", "reading"),
    [
        (Stater, BLEND_ROWS, ("blend", "none")),
        (Stater, BLEND_ROWS - 1, ("score", "mean")),
        (Scorer, 400, ("score", "mean")),
        (Writer, 400, ("generate", "none")),
    ],
)
def test_the_plain_reading(make: Any, n: int, reading: tuple[str, str]) -> None:
    assert plain_reading(make(), TASK, n) == reading
    assert plain_reading(make(), Task(name="doors", description="Say which door it is."), n) == ("generate", "none")
