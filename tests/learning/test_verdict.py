"""The verdict: what one comparison of two prompts is called, and what stands beside it."""

from collections.abc import Sequence

import pytest

from sleicl_chains.answering.recipes import Finding
from sleicl_chains.learning.crossfit import Held
from sleicl_chains.learning.verdict import LEVEL, Compared, also_tried, finding_of, rights, verdict_on
from sleicl_chains.statistics import paired_difference, sign_flips
from sleicl_chains.tasks.rows import Example

LABELS = ("a", "b")
PAIR = ("profound+few-shot", "few-shot")
ROWS = [Example(f"case {at}", "a") for at in range(40)]
CLEAR, CLOSE = LEVEL / 2, min(1.0, LEVEL * 1.01)


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
    assert finding_of(p, total, difference) == finding


def test_a_clear_gain_and_the_same_turned_round() -> None:
    ours, theirs = held("+" * 36 + "-" * 4), held("+" * 16 + "-" * 24)
    found, back = verdict_on(PAIR, compared(ours, theirs)), verdict_on(PAIR, compared(theirs, ours))
    assert (found.finding, back.finding) == ("helps", "hurts")
    assert (found.fixed, found.broken, back.fixed, back.broken) == (20, 0, 0, 20)
    assert (found.difference, found.accuracy, found.n, found.pair) == (0.5, (0.9, 0.4), 40, PAIR)
    assert found.low is not None and found.high is not None and 0.3 < found.low < 0.5 < found.high < 0.7
    assert (back.low, back.high) == pytest.approx((-found.high, -found.low), abs=0.03)
    assert found.p == back.p and found.p is not None and found.p < LEVEL


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
