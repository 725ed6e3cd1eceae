"""Matched grimoires tried on labelled rows of a task of nonsense."""

from dataclasses import replace

import pytest

from sleicl_chains.errors import InputError
from sleicl_chains.grimoires.match import Match, Why
from sleicl_chains.learning.rerank import Tried, tried, undecided
from tests.support.fake_models import Scorer
from tests.support.learn_task import CLUE, GUIDE, LABELS, TASK, guess, only_with_grimoire, rows

WHY = Why("description", "close")
HELPS = Match(CLUE, 0.3, WHY)
DULL = Match(replace(CLUE, id="dull", simple="Any door will do.", profound="Think well."), 0.9, WHY)


def scorer(answer: object) -> Scorer:
    return Scorer(think=lambda prompt: {answer(prompt): 0.9})  # type: ignore[operator]  # a function, whatever it is


def test_what_helps_on_the_rows_comes_first() -> None:
    weak, seen = scorer(only_with_grimoire), []
    found = tried([DULL, HELPS], TASK, rows(20), weak, progress=lambda *step: seen.append(step))
    assert [(one.match.grimoire.id, one.form) for one in found][0] == ("doors-1", "simple")
    assert {(one.match.grimoire.id, one.form) for one in found[1:]} == {("dull", "simple"), ("dull", "profound")}
    best = found[0]
    assert (best.n, best.right - best.zero_shot, best.decided) == (20, round(best.difference * 20), True)
    assert best.low > 0 and best.p < 0.05 and undecided(found) == ""
    assert (len(seen), seen[0], seen[-1][1:]) == (80, ("zero-shot", 1, 80), (80, 80))
    assert sum(GUIDE in prompt for prompt in weak.asked("score")) >= 20


def test_a_grimoire_of_other_labels_is_tried_in_its_long_form_alone() -> None:
    other = Match(replace(DULL.grimoire, labels=("up", "down")), 0.5, WHY)
    weak = scorer(guess)
    found = tried([other], TASK, rows(6), weak)
    assert [one.form for one in found] == ["profound"]
    assert all(label in weak.asked("score")[0] for label in LABELS), "under the user's task"
    short = Match(replace(CLUE, labels=("up", "down")), 0.5, WHY)
    assert [one.form for one in tried([short], TASK, rows(2), weak)] == ["simple"], "it has no long one"


def test_few_rows_decide_nothing() -> None:
    weak = scorer(guess)
    said = undecided(tried([DULL], TASK, rows(12), weak))
    assert said.startswith("12 rows decide nothing here: no difference below about 0.50 (6 rows) can be shown")
    assert undecided(tried([DULL], TASK, rows(3), weak)).startswith("3 rows decide nothing: even all of them")
    assert undecided([]) == ""
    # All six rows changed for the better, and none for the worse: 2 / 2**6 = .031.
    shown = Tried(DULL, "simple", right=6, zero_shot=0, n=6, difference=1.0, low=1.0, high=1.0, p=2 / 2**6)
    assert shown.decided and not replace(shown, p=2 / 2**5).decided


def test_rows_that_a_grimoire_was_written_from_are_counted() -> None:
    given = rows(6)
    about = replace(CLUE.provenance, examples=(given[0].id, given[3].id))
    (found,) = tried([Match(replace(CLUE, provenance=about), 0.5, WHY)], TASK, given, scorer(guess))
    assert found.seen == 2


def test_rows_and_labels_are_needed() -> None:
    with pytest.raises(InputError, match="found 0 labelled rows and 2 labels"):
        tried([DULL], TASK, [], scorer(guess))
    with pytest.raises(InputError, match="found 1 labelled rows and 0 labels"):
        tried([DULL], TASK.model_copy(update={"labels": ()}), rows(1), scorer(guess))
    with pytest.raises(InputError, match="found the label 'up'"):
        tried([DULL], TASK, [replace(rows(1)[0], answer="up")], scorer(guess))
