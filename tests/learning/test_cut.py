"""The cut: which rows are shown, which stay for the test, and which may do neither."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sleicl_chains.errors import InputError, OptionError
from sleicl_chains.grimoires.grimoire import Grimoire, Provenance
from sleicl_chains.learning.cut import FEWEST_ROWS, FEWEST_TESTED, MOST_SHOWN, Cut, cut
from sleicl_chains.tasks.cards import Task
from sleicl_chains.tasks.labels import fold
from sleicl_chains.tasks.rows import Example, text_id
from tests.support.learn_task import CLUE, TASK, rows

ROWS = rows(100)


@cache
def plain_cut() -> Cut:
    return cut(TASK, ROWS, 0)


def written_from(examples: Sequence[Example], **more: object) -> Grimoire:
    return replace(CLUE, provenance=Provenance(examples=tuple(row.id for row in examples), **more))  # type: ignore[arg-type]


def choices(labels: int) -> Task:
    names = tuple(f"label {at}" for at in range(labels))
    return Task(name="many", task_type="choice", description="Choose.", labels=names)


def of_counts(task: Task, counts: Sequence[int]) -> list[Example]:
    return [
        Example(f"{label} row {at}", label)
        for label, count in zip(task.labels, counts, strict=False)
        for at in range(count)
    ]


def texts(part: Sequence[Example]) -> set[str]:
    return {fold(row.text) for row in part}


def check_parts(parts: Cut, examples: Sequence[Example]) -> None:
    """No row is lost, and no text stands in two parts."""
    found = [fold(row.text) for row in parts.rows]
    assert len(found) == len(set(found)) and set(found) == texts(examples)


@pytest.mark.parametrize(("labels", "each"), [(2, 4), (5, 4), (6, 2), (12, 2)])
def test_four_of_a_label_are_shown_or_two_of_many_labels(labels: int, each: int) -> None:
    task = choices(labels)
    examples = of_counts(task, [20] * labels)
    parts = cut(task, examples, 0)
    assert Counter(row.answer for row in parts.drawn) == dict.fromkeys(task.labels, each)
    assert parts.shown == parts.drawn and parts.read == [] and parts.untested == ""
    check_parts(parts, examples)


@pytest.mark.parametrize(
    "counts",
    [[100 // 77 + (at < 23) for at in range(77)], [1] * 60, [58, 2], [2, 58], [10, 10], [8, 0], [3] * 20, [40, 1, 1]],
    ids=["77 labels", "one row each", "all but two", "two but all", "twenty rows", "one label", "three each", "rare"],
)
def test_whatever_the_labels_three_rows_in_five_stay(counts: list[int]) -> None:
    task = choices(len(counts))
    examples = of_counts(task, counts)
    if sum(map(bool, counts)) < 2:
        with pytest.raises(InputError, match="1 different answers"):
            cut(task, examples, 0)
        return
    parts = cut(task, examples, 0)
    assert len(parts.tested) >= (1 - MOST_SHOWN) * len(examples) and parts.drawn
    check_parts(parts, examples)


def test_of_many_labels_the_rows_shown_are_of_as_many_as_can_be() -> None:
    task = choices(77)
    parts = cut(task, of_counts(task, [2] * 77), 0)
    assert len(parts.drawn) == int(MOST_SHOWN * 154) == len({row.answer for row in parts.drawn})


@settings(max_examples=10, deadline=None)
@given(
    counts=st.lists(st.integers(0, 12), min_size=2, max_size=9),
    shots=st.one_of(st.none(), st.integers(0, 9)),
    writes=st.booleans(),
    order=st.randoms(use_true_random=False),
)
def test_the_cut_of_any_rows_is_whole_and_knows_no_order(
    counts: list[int], shots: int | None, writes: bool, order: "object"
) -> None:
    task = choices(len(counts))
    examples = of_counts(task, counts)
    if sum(map(bool, counts)) < 2 or len(examples) < 8:
        with pytest.raises(InputError, match="expected at least 8 rows"):
            cut(task, examples, 3, shots=shots, writes=writes)
        return
    parts = cut(task, examples, 3, shots=shots, writes=writes)
    check_parts(parts, examples)
    assert len(parts.tested) >= (1 - MOST_SHOWN) * len(examples)
    each = shots or (4 if len(counts) <= 5 else 2)
    assert all(count <= each for count in Counter(row.answer for row in parts.drawn).values())
    assert bool(parts.drawn) == (shots != 0 or writes) and bool(parts.shown) == (shots != 0)
    order.shuffle(examples)  # type: ignore[attr-defined]
    assert cut(task, examples, 3, shots=shots, writes=writes) == parts


def test_of_equal_texts_one_is_kept() -> None:
    twins = [Example(f"  {row.text.upper()} ", row.answer) for row in ROWS[:30]]
    parts = cut(TASK, [*ROWS, *twins], 0)
    assert len(parts.rows) == 100
    check_parts(parts, ROWS)
    assert cut(TASK, [*twins, *ROWS], 0) == parts


def test_every_half_of_the_rows_that_stay_has_the_labels_in_their_shares() -> None:
    """Prompts that are only also tried are asked about the first half."""
    task = choices(2)
    tested = cut(task, of_counts(task, [80, 20]), 0).tested
    half = tested[: len(tested) // 2]
    assert sum(row.answer == "label 1" for row in half) in (7, 8, 9)


def test_a_grimoires_own_rows_are_shown_where_all_are_there() -> None:
    own = [row for label in TASK.labels for row in [row for row in ROWS if row.answer == label][-3:]]
    parts = cut(TASK, ROWS, 0, [written_from(own)])
    assert sorted(row.id for row in parts.drawn) == sorted(row.id for row in own) and parts.read == []
    assert len(parts.tested) == 94
    check_parts(parts, ROWS)


def test_more_rows_of_its_own_than_are_shown_are_set_aside() -> None:
    own = [row for row in ROWS if row.answer == "left"][:10]
    parts = cut(TASK, ROWS, 0, [written_from(own)])
    assert parts.drawn == own[:4] and texts(parts.read) == texts(own[4:])
    assert len(parts.tested) == 90


def test_own_rows_of_which_one_is_missing_are_not_tested_all_the_same() -> None:
    plain = plain_cut()
    own = [*plain.tested[:10], Example("elsewhere", "left")]
    parts = cut(TASK, ROWS, 0, [written_from(own)])
    assert parts.drawn == plain.drawn and parts.tested == plain.tested[10:]
    assert parts.read == plain.tested[:10]


def test_rows_that_any_of_the_grimoires_was_written_from_are_not_tested() -> None:
    plain = plain_cut()
    books = [CLUE, *(written_from([*plain.tested[at : at + 5], Example("elsewhere", "left")]) for at in (0, 5))]
    assert cut(TASK, ROWS, 0, books).tested == plain.tested[10:]


def test_near_copies_of_what_was_written_from_are_not_tested() -> None:
    plain = plain_cut()
    near = tuple(text_id(f"  {row.text.upper()} ") for row in plain.tested[:3])
    book = replace(CLUE, provenance=Provenance(text_ids=near))
    assert cut(TASK, ROWS, 0, [book]).tested == plain.tested[3:]


def test_a_twin_of_a_row_that_was_written_from_is_not_tested() -> None:
    """The grimoire knows its rows by their exact text alone, and of the twins the other may be the one that is kept."""
    plain = plain_cut()
    for row in plain.tested[:4]:
        twin = Example(f"  {row.text.upper()} ", row.answer)
        parts = cut(TASK, [*ROWS, twin], 0, [written_from([twin, Example("elsewhere", "left")])])
        assert fold(row.text) not in texts(parts.tested) and len(parts.rows) == 100


def test_near_copies_of_what_is_shown_are_not_tested() -> None:
    shown = plain_cut().drawn
    turned = [Example(row.text.upper(), "left" if row.answer == "right" else "right") for row in shown]
    parts = cut(TASK, [*ROWS, *turned], 0)
    check_parts(parts, ROWS)


def test_without_shots_all_rows_stay() -> None:
    parts = cut(TASK, ROWS, 0, shots=0)
    assert (parts.drawn, parts.shown, parts.read, len(parts.tested)) == ([], [], [], 100)


def test_a_strong_model_writes_from_the_rows_that_are_shown() -> None:
    assert cut(TASK, ROWS, 0, writes=True) == plain_cut()


def test_where_none_are_shown_the_rows_written_from_leave_the_test_all_the_same() -> None:
    plain, parts = plain_cut(), cut(TASK, ROWS, 0, shots=0, writes=True)
    assert (parts.drawn, parts.tested, parts.shown) == (plain.drawn, plain.tested, [])


def test_an_open_ended_task_is_one_group() -> None:
    task = Task(name="doors", description="Say which door it is.")
    parts = cut(task, [Example(row.text, f"{row.answer} {at}") for at, row in enumerate(ROWS)], 0)
    assert (len(parts.drawn), len(parts.tested)) == (4, 96)


def test_too_few_rows_are_cut_but_not_tested() -> None:
    assert cut(TASK, rows(FEWEST_ROWS), 0).untested == ""
    few = cut(TASK, rows(FEWEST_ROWS - 1), 0)
    assert few.untested == f"{FEWEST_ROWS - 1} labelled rows are too few for a verdict ({FEWEST_ROWS} are needed)"
    tested = plain_cut().tested
    left = cut(TASK, ROWS, 0, [written_from([*tested[FEWEST_TESTED:], Example("elsewhere", "left")])])
    assert len(left.tested) == FEWEST_TESTED and left.untested == ""
    fewer = cut(TASK, ROWS, 0, [written_from([*tested[FEWEST_TESTED - 1 :], Example("elsewhere", "left")])])
    assert fewer.untested == f"fewer than {FEWEST_TESTED} labelled rows are left that no grimoire was written from"


def test_a_grimoire_that_was_written_from_all_rows_leaves_nothing_to_learn_from() -> None:
    with pytest.raises(InputError, match="of 100 labelled rows 1 are left that the grimoires were not written from"):
        cut(TASK, ROWS, 0, [written_from(ROWS[1:])])
    assert len(cut(TASK, ROWS, 0, [written_from(ROWS[2:])]).tested) == 2


@pytest.mark.parametrize(
    ("examples", "found"),
    [
        ([Example(f"case {n}", "left") for n in range(60)], "60 labelled rows with 1 different answers"),
        ([], "0 labelled rows with 0 different answers"),
        (rows(7), "7 labelled rows with 2 different answers"),
        ([*rows(6), Example("Case  0", "left"), Example(" case 1", "left")], "6 labelled rows"),
        ([Example("Case" if at % 2 else "case", ("left", "right")[at % 2]) for at in range(60)], "1 labelled rows"),
    ],
)
def test_rows_that_teach_nothing_are_refused(examples: list[Example], found: str) -> None:
    with pytest.raises(InputError, match=found):
        cut(TASK, examples, 0)


def test_fewer_shots_than_none_are_refused() -> None:
    with pytest.raises(OptionError, match=r"--shots: found -1; expected a number of examples a label, or 0 for none"):
        cut(TASK, ROWS, 0, shots=-1)
