"""The verdict: what one comparison of two prompts is called, and what stands beside it."""

from collections.abc import Sequence

import numpy as np
import pytest

from sleicl_chains.answering.recipes import Finding
from sleicl_chains.learning.crossfit import Held
from sleicl_chains.learning.verdict import (
    LEVELS,
    Compared,
    also_tried,
    finding_of,
    rights,
    smallest_shown,
    verdict_on,
)
from sleicl_chains.statistics import paired_difference, sign_flips
from sleicl_chains.tasks.rows import Example

LABELS = ("a", "b")
PAIR = ("profound+few-shot", "few-shot")
ROWS = [Example(f"case {at}", "a") for at in range(40)]
LEVEL = 0.02
"""For what is said of any level; the two that are set are never named here as numbers."""
CLEAR, CLOSE = LEVEL / 2, LEVEL * 1.01


def held(right: str, scores: Sequence[float] | None = None) -> list[Held]:
    """Return what was made of rows: a plus is right, a minus wrong, a dot no answer."""
    said = {"+": "a", "-": "b", ".": None}
    marks = scores or [{"+": 0.5, "-": -0.5, ".": 0.0}[mark] for mark in right]
    return [Held(said[mark], 0.7, 0.7, score) for mark, score in zip(right, marks, strict=True)]


def words(right: str) -> list[Held]:
    """Return the same where answers are generated."""
    return [Held(one.label, 1.0) for one in held(right)]


def compared(ours: Sequence[Held], theirs: Sequence[Held]) -> Compared:
    return Compared(ours, theirs, ROWS[: len(ours)], LABELS)


def test_scores_are_told_as_a_difference_in_accuracy() -> None:
    """A point of accuracy raised the mean score by 1.2 points."""
    assert compared(held("++", [0.6, -0.3]), held("++", [0.0, 0.3])).scored == pytest.approx([0.5, -0.5])
    assert compared(words("++"), words("+-")).scored == []


@pytest.mark.parametrize(
    ("p", "total", "difference", "finding"),
    [
        (CLEAR, 3.0, 0.1, "helps"),
        (CLEAR, -3.0, -0.1, "hurts"),
        (CLOSE, 3.0, 0.1, "no difference shown"),
        (LEVEL, 3.0, 0.1, "no difference shown"),
        (CLOSE, -3.0, -0.1, "no difference shown"),
        (CLEAR, 3.0, -0.01, "no difference shown"),  # surer, but less often right
        (CLEAR, -3.0, 0.01, "no difference shown"),
        (CLEAR, 3.0, 0.0, "helps"),  # surer, and as often right
        (CLEAR, -3.0, 0.0, "hurts"),
    ],
)
def test_the_finding_by_test_and_accuracy(p: float, total: float, difference: float, finding: Finding) -> None:
    assert finding_of(p, LEVEL, total, difference) == finding


def test_a_clear_gain_and_the_same_turned_round() -> None:
    ours, theirs = held("+" * 36 + "-" * 4), held("+" * 16 + "-" * 24)
    found, back = verdict_on(PAIR, compared(ours, theirs)), verdict_on(PAIR, compared(theirs, ours))
    assert (found.finding, back.finding) == ("helps", "hurts")
    assert (found.fixed, found.broken, back.fixed, back.broken) == (20, 0, 0, 20)
    assert (found.difference, found.accuracy, found.n, found.pair) == (0.5, (0.9, 0.4), 40, PAIR)
    assert found.low is not None and found.high is not None and 0.3 < found.low < 0.5 < found.high < 0.7
    assert (back.low, back.high) == pytest.approx((-found.high, -found.low), abs=0.03)
    assert found.p == back.p and found.p is not None and found.p < LEVELS["score"]


def test_equal_prompts_show_nothing() -> None:
    same = held("+-." * 10)
    found = verdict_on(PAIR, compared(same, same))
    assert (found.finding, found.p, found.difference, found.low, found.high) == ("no difference shown", 1, 0, 0, 0)
    assert (found.fixed, found.broken, found.accuracy) == (0, 0, (1 / 3, 1 / 3))


def test_the_test_is_on_the_score_where_there_is_one() -> None:
    """Forty answers equally right, all a little surer: right and wrong alone show nothing."""
    ours, theirs = held("+-" * 20, [0.6, -0.3] * 20), held("+-" * 20, [0.5, -0.4] * 20)
    found = verdict_on(PAIR, compared(ours, theirs))
    assert (found.finding, found.tested, found.difference) == ("helps", "score", 0.0)
    (p,) = sign_flips([[0.1] * 40])
    assert found.p == pytest.approx(p)
    said = verdict_on(PAIR, compared(words("+-" * 20), words("+-" * 20)))
    assert (said.finding, said.tested, said.p) == ("no difference shown", "right", 1.0)


def test_accuracy_against_the_score_shows_nothing() -> None:
    ours = held("+" * 20 + "-" * 20, [0.9] * 20 + [-0.1] * 20)
    theirs = held("+" * 21 + "-" * 19, [0.1] * 21 + [-0.9] * 19)
    found = verdict_on(PAIR, compared(ours, theirs))
    assert found.p is not None and found.p < LEVEL and found.difference == -1 / 40
    assert found.finding == "no difference shown"


def test_words_are_tested_by_right_and_wrong() -> None:
    ours, theirs = words("+" * 36 + "-..-"), words("+" * 16 + "." * 24)
    found = compared(ours, theirs)
    assert found.tests == "right" and found.steps.tolist() == found.gains.tolist() == [0] * 16 + [1] * 20 + [0] * 4
    verdict = verdict_on(PAIR, found)
    assert (verdict.finding, verdict.tested, verdict.fixed, verdict.broken) == ("helps", "right", 20, 0)


def test_a_side_without_scores_makes_it_right_and_wrong() -> None:
    assert compared(held("++"), words("+-")).tests == "right"
    assert compared(held("++"), held("+.")).tests == "score"


def test_difference_and_interval_are_of_accuracy_whatever_is_tested() -> None:
    ours, theirs = held("++-+" * 10, [0.1] * 40), held("+-++" * 10, [0.0] * 40)
    found = verdict_on(PAIR, compared(ours, theirs))
    right = [[mark == "+" for mark in marks * 10] for marks in ("++-+", "+-++")]
    assert (found.difference, found.low, found.high) == paired_difference(*right)
    assert (found.fixed, found.broken) == (10, 10)


def test_an_open_answer_is_right_whatever_its_case_and_full_stop() -> None:
    rows = [Example("one", "Left door"), Example("two", "Right door")]
    said = [Held("left  door.", 1.0), Held(None, 1.0)]
    assert rights(said, rows, ()).tolist() == [True, False]
    assert rights(said, rows, ("Left door", "Right door")).tolist() == [False, False]


def test_what_was_also_tried_has_one_p_for_all_together() -> None:
    base = held("+" * 16 + "-" * 24)
    whole, half = compared(held("+" * 30 + "-" * 10), base), compared(held("+" * 14 + "-" * 6), base[:20])
    found = also_tried([("zero-shot", "", whole), ("simple", "doors-1", half), ("profound", "doors-1", whole)], 40)
    assert [(one.arm, one.grimoire, one.n) for one in found] == [
        ("zero-shot", "", 40), ("simple", "doors-1", 20), ("profound", "doors-1", 40),
    ]  # fmt: skip
    assert [one.difference for one in found] == [14 / 40, -2 / 20, 14 / 40]
    padded = [whole.steps.tolist(), half.steps.tolist() + [0.0] * 20, whole.steps.tolist()]
    assert [one.p for one in found] == sign_flips(padded) and found[0].p == found[2].p
    alone = verdict_on(PAIR, whole)
    assert alone.p is not None and found[0].p >= alone.p


def test_nothing_else_tried_is_no_test() -> None:
    assert also_tried([], 40) == []


def test_each_kind_of_test_has_its_level() -> None:
    scored, said = compared(held("+"), held("-")), compared(words("+"), words("-"))
    assert (scored.level, said.level) == (LEVELS["score"], LEVELS["right"])
    assert all(0 < level <= 0.05 for level in LEVELS.values())


def mixed(n: int, apart: int) -> Compared:
    """Return two prompts that are each right alone on as many of n rows, in words."""
    ours, theirs = "+" * apart + "-" * apart, "-" * apart + "+" * apart
    rest = "+" * (n - 2 * apart)
    rows = [Example(f"case {at}", "a") for at in range(n)]
    return Compared(words(ours + rest), words(theirs + rest), rows, LABELS)


def test_more_rows_show_a_smaller_difference_and_more_disagreement_a_larger() -> None:
    few, many, apart = (smallest_shown(mixed(*size)) for size in ((50, 5), (400, 40), (400, 100)))
    assert few and many and apart and 0 < many < few < 0.5 and many < apart < 0.3
    assert (100 * few) % 1 == pytest.approx(0, abs=1e-9) or (100 * few) % 1 == pytest.approx(1, abs=1e-9)


def test_so_few_rows_show_nothing() -> None:
    """With four rows the least p of all flips is 2 in 16."""
    assert smallest_shown(mixed(4, 2)) is None


def test_what_is_said_to_be_shown_is_found_about_four_times_in_five() -> None:
    """100 rows, of which 10 are otherwise right under either prompt, and as many more fixed as was said."""
    rng, found, size = np.random.default_rng(1), 0, smallest_shown(mixed(100, 5))
    assert size
    for _ in range(200):
        steps = rng.choice([-1.0, 1.0, 0.0], 100, p=[0.05, 0.05, 0.9])
        steps = np.where(rng.random(100) < size, np.minimum(np.maximum(steps, 0) + 1, 1), steps)
        found += sign_flips([steps.tolist()], flips=1_000)[0] < LEVELS["right"]
    assert 0.7 < found / 200 < 0.93


def test_it_stands_in_the_verdict_and_is_the_same_again() -> None:
    one = mixed(60, 6)
    assert verdict_on(PAIR, one).smallest_shown == smallest_shown(one) == smallest_shown(one)
