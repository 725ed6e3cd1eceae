"""The survey: rows asked once each, and what is kept of them."""

from dataclasses import replace
from typing import Any

import pytest

from sleicl_chains.answering.arms import Arm
from sleicl_chains.answering.observer import Observer
from sleicl_chains.answering.readings import Mode
from sleicl_chains.errors import PromptTooLong
from sleicl_chains.learning.crossfit import CrossFit
from sleicl_chains.learning.survey import PILOT, Asked, foretold_seconds, fresh_characters
from sleicl_chains.tasks.rows import Example
from tests.support.fake_models import Scorer, question_of
from tests.support.learn_task import CLUE, SPACE, TASK, knows, rows, scorer, writer


def asked(model: Any, n: int, shown: int = 0, form: Any = "", mode: Mode = "score") -> Asked:
    arm = Arm(form, "few-shot" if shown else "")
    observer = Observer(model, TASK, arm, CLUE if form else None, tuple(rows(n + shown)[n:]), embeddings=SPACE)
    return Asked(observer, mode, rows(n))


def test_no_row_is_asked_twice_and_each_is_told_of() -> None:
    told: list[str] = []
    model = scorer(knows)
    prompt = replace(asked(model, 4), note=told.append)
    prompt.ask(2)
    prompt.ask()
    assert [question_of(text) for text in model.asked("score")] == [row.text for row in prompt.rows]
    assert told == ["zero-shot"] * 4
    assert all(one.scores for one in prompt.seen.values()) and list(prompt.seen) == [row.id for row in prompt.rows]


def test_each_prompt_has_evidence_of_its_own() -> None:
    model = scorer(knows)
    plain, with_example = asked(model, 2), asked(model, 2, shown=1)
    plain.ask()
    assert len(plain.seen) == 2 and with_example.seen == {}


def test_what_was_said_is_kept_and_what_cannot_be_read_is_no_answer() -> None:
    model = writer(lambda prompt: "left" if question_of(prompt + "\nai: ") == rows(1)[0].text else "who knows")
    prompt = asked(model, 2, mode="generate")
    prompt.ask()
    assert [prompt.said[row.id] for row in prompt.rows] == ["left", None]
    held = prompt.held_out(CrossFit(TASK, prompt.rows))
    assert [(one.label, one.score) for one in held] == [("left", None), (None, None)]
    assert prompt.too_long == 0 and len(model.asked("reply")) == 2


@pytest.mark.parametrize(("mode", "groups"), [("score", 0), ("blend", 2)])
def test_by_scores_the_prior_alone_is_removed(mode: Mode, groups: int) -> None:
    """A model without a state has two kinds of evidence."""
    assert len(asked(scorer(knows), 1, mode=mode).groups) == groups


def test_the_arm_and_the_grimoire_that_is_shown() -> None:
    shown, plain = asked(scorer(knows), 1, 1, "simple"), asked(scorer(knows), 1, 1)
    assert (shown.arm, shown.grimoire) == ("simple+few-shot", "doors-1")
    assert (plain.arm, plain.grimoire) == ("few-shot", "")


class Narrow(Scorer):
    """Takes no prompt of some cases."""

    long: set[str]

    def score_labels(self, prompt: str, labels: Any) -> Any:
        if question_of(prompt) in self.long:
            raise PromptTooLong("The prompt has 99 tokens; the context holds 9")
        return super().score_labels(prompt, labels)


def narrow(rows: list[Example]) -> Narrow:
    return Narrow(long={row.text for row in rows}, think=scorer(knows).think)


@pytest.mark.parametrize(("long", "fits"), [(0, True), (1, True), (2, False), (3, False), (4, False)])
def test_a_prompt_fits_if_most_of_its_rows_do(long: int, fits: bool) -> None:
    told: list[str] = []
    prompt = replace(asked(narrow(rows(4)[:long]), 4), note=told.append)
    prompt.ask(2)
    prompt.ask()
    assert (prompt.too_long, prompt.fits) == (long, fits)
    assert prompt.complaints == {row.id: "The prompt has 99 tokens; the context holds 9" for row in rows(4)[:long]}
    assert len(told) == 4  # a row that does not fit is not asked about again


def test_what_prompts_share_at_their_beginning_is_read_once() -> None:
    one, many = asked(scorer(knows), 1, shown=12), asked(scorer(knows), 40, shown=12)
    whole = fresh_characters(one)
    assert whole < fresh_characters(many) < 40 * whole / 5
    assert fresh_characters(asked(scorer(knows), 40)) < fresh_characters(many)


def test_the_time_is_foretold_by_a_few_questions_that_are_not_asked_again() -> None:
    model = scorer(knows)
    short, long = asked(model, 12), asked(model, 12, shown=8)
    assert 0 <= foretold_seconds([long, short]) < 5
    assert (len(short.seen), len(long.seen), len(model.calls)) == (PILOT, 1, PILOT + 1)
    for prompt in (short, long):
        prompt.ask()
    assert len(model.calls) == 24


@pytest.mark.parametrize("long", [0, 12], ids=["fits", "does not fit"])
def test_the_time_of_one_prompt_alone_is_foretold(long: int) -> None:
    prompt = asked(narrow(rows(12)[:long]), 12)
    assert foretold_seconds([prompt]) >= 0
