"""The plan: which pair is named, what else is asked, and what is said of it beforehand."""

from collections.abc import Sequence
from functools import cache

import pytest

from sleicl_chains.answering.arms import Form
from sleicl_chains.grimoires.grimoire import Grimoire, Provenance
from sleicl_chains.learning.cut import Cut, cut
from sleicl_chains.learning.plan import Plan, forms_of
from tests.support.learn_task import CLUE, LABELS, TASK, rows

BOTH: list[Form] = ["profound", "simple"]
SIMPLE: list[Form] = ["simple"]
PROFOUND: list[Form] = ["profound"]


@cache
def parts(n: int = 100, shots: int | None = None, writes: bool = False) -> Cut:
    return cut(TASK, rows(n), 0, shots=shots, writes=writes)


def names(plan: Plan) -> dict[str, object]:
    return {
        "pair": (plan.pair and plan.pair.name, plan.baseline.name),
        "cheaper": [arm.name for arm in plan.cheaper],
        "others": [(arm.name, at) for arm, at in plan.others],
    }


@pytest.mark.parametrize(
    ("forms", "shots", "pair", "cheaper", "others"),
    [
        (
            [BOTH], None, ("profound+few-shot", "few-shot"), ["zero-shot", "profound"],
            [("simple+few-shot", 0), ("simple", 0)],
        ),
        ([SIMPLE], None, ("simple+few-shot", "few-shot"), ["zero-shot", "simple"], []),
        ([PROFOUND], None, ("profound+few-shot", "few-shot"), ["zero-shot", "profound"], []),
        ([BOTH], 0, ("profound", "zero-shot"), [], [("simple", 0)]),
        ([SIMPLE], 0, ("simple", "zero-shot"), [], []),
        ([], None, (None, "few-shot"), ["zero-shot"], []),
        ([], 0, (None, "zero-shot"), [], []),
        (
            [SIMPLE, BOTH, PROFOUND], None, ("simple+few-shot", "few-shot"), ["zero-shot", "simple"],
            [("profound+few-shot", 1), ("simple+few-shot", 1), ("profound+few-shot", 2)],
        ),
        ([BOTH, SIMPLE], 0, ("profound", "zero-shot"), [], [("simple", 0), ("simple", 1)]),
    ],
)  # fmt: skip
def test_the_pair_its_cheaper_neighbours_and_what_is_also_tried(
    forms: Sequence[Sequence[Form]], shots: int | None, pair: object, cheaper: object, others: object
) -> None:
    found = names(Plan.of(parts(shots=shots), forms))
    assert found == {"pair": pair, "cheaper": cheaper, "others": others}


def test_the_nearest_rows_are_shown_only_where_it_is_thorough() -> None:
    assert names(Plan.of(parts(), [SIMPLE], thorough=True))["others"] == [("knn", 0)]
    assert names(Plan.of(parts(shots=0), [], thorough=True))["others"] == [("knn", 0)]


def test_where_nothing_is_tested_nothing_else_is_tried() -> None:
    assert names(Plan.of(parts(39), [BOTH, SIMPLE], thorough=True)) == {
        "pair": ("profound+few-shot", "few-shot"), "cheaper": ["zero-shot", "profound"], "others": [],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("forms", "options", "questions"),
    [
        ([BOTH], {}, 4 * 92 + 2 * 46),
        ([SIMPLE], {}, 4 * 92),
        ([SIMPLE], {"thorough": True}, 4 * 92 + 46),
        ([], {}, 2 * 92),
        ([SIMPLE, BOTH], {}, 4 * 92 + 2 * 46),
    ],
)
def test_questions_by_hand(forms: Sequence[Sequence[Form]], options: dict[str, bool], questions: int) -> None:
    assert Plan.of(parts(), forms, **options).questions(92) == questions


def test_of_an_odd_number_of_rows_the_smaller_half() -> None:
    assert Plan.of(parts(), [BOTH]).questions(33) == 4 * 33 + 2 * 16


def test_it_is_said_in_words() -> None:
    assert Plan.of(parts(), [BOTH]).lines(parts(), "blend", "doors-1") == [
        "Plan: profound+few-shot (doors-1) against few-shot, read by blend, on 92 of 100 labelled rows (8 are shown as "
        "examples).",
        "Also tried: zero-shot, profound, simple+few-shot, simple. 460 questions to the weak model, up to 1380 calls.",
    ]
    alone = parts(shots=0)
    assert Plan.of(alone, [SIMPLE]).lines(alone, "score", "doors-1") == [
        "Plan: simple (doors-1) against zero-shot, read by score, on 100 of 100 labelled rows.",
        "200 questions to the weak model, up to 200 calls.",
    ]
    written = parts(shots=0, writes=True)
    assert Plan.of(written, [BOTH]).lines(written, "generate", "to be written")[0] == (
        "Plan: profound (to be written) against zero-shot, read by generate, on 92 of 100 labelled rows (8 are written "
        "from)."
    )
    assert Plan.of(parts(), []).lines(parts(), "score", "to be written")[0] == (
        "Plan: no test, since no grimoire was given, read by score, on 92 of 100 labelled rows (8 are shown as "
        "examples)."
    )
    few = parts(20)
    assert Plan.of(few, [BOTH]).lines(few, "score", "doors-1") == [
        "Plan: no test, since 20 labelled rows are too few for a verdict (40 are needed); one prompt is taken by what "
        "is known of other tasks."
    ]


def test_the_fullest_form_of_a_grimoire_comes_first() -> None:
    assert forms_of(CLUE) == SIMPLE
    assert forms_of(Grimoire("doors-2", "doors", "", "", LABELS, "Long.", "Short.", Provenance())) == BOTH
    assert forms_of(Grimoire("doors-3", "doors", "", "", LABELS, "Long.", "", Provenance())) == PROFOUND
