"""The survey: in which order rows are asked, and what is kept of them."""

from typing import Any

import pytest

from sleicl_chains.answering.arms import Arm
from sleicl_chains.answering.observer import Observer
from sleicl_chains.errors import PromptTooLong
from sleicl_chains.learning.survey import Survey, fresh_characters, in_order
from sleicl_chains.tasks.rows import Example
from tests.support.fake_models import Scorer, question_of
from tests.support.learn_task import TASK, knows, rows, scorer, writer


def prompt(model: Any, shown: list[Example]) -> Observer:
    return Observer(model, TASK, Arm(examples="few-shot" if shown else ""), examples=tuple(shown))


def survey(told: list[tuple[str, int, int]] | None = None) -> Survey:
    note = (told if told is not None else []).append
    return Survey(("scores",), lambda *step: note(step), planned=3)


def test_rows_that_are_examples_come_last_from_the_last_one_back() -> None:
    examples = rows(6)
    shown = [examples[4], examples[0], examples[2]]
    ordered = in_order(prompt(scorer(knows), shown), examples)
    assert ordered == [examples[1], examples[3], examples[5], examples[2], examples[0], examples[4]]


def test_in_that_order_there_is_less_to_read_anew() -> None:
    examples = rows(40)
    setup = prompt(scorer(knows), examples[:12])
    texts = ["\n".join(turn.text for turn in setup.messages(row.text, setup.cue)) for row in in_order(setup, examples)]
    read = fresh_characters(setup, examples)
    assert len(texts[0]) < read < 0.3 * sum(map(len, texts))
    assert fresh_characters(setup, examples[12:]) < read / 2  # most of it is for rows that are asked without themselves
    assert fresh_characters(setup, examples[12:13]) == len(texts[0])


def test_no_row_is_asked_twice_and_progress_counts_each() -> None:
    told: list[tuple[str, int, int]] = []
    model, examples, found = scorer(knows), rows(4), survey(told)
    setup = prompt(model, [])
    found.ask(setup, examples[:2], "score")
    found.ask(setup, examples, "score")
    assert [question_of(text) for text in model.asked("score")] == [row.text for row in examples]
    assert told == [("zero-shot", 1, 3), ("zero-shot", 2, 3), ("zero-shot", 3, 3), ("zero-shot", 4, 4)]
    assert all(found.of(setup, row).scores for row in examples)


def test_each_prompt_has_evidence_of_its_own() -> None:
    model, examples, found = scorer(knows), rows(2), survey()
    plain, with_example = prompt(model, []), prompt(model, rows(3)[2:])
    found.ask(plain, examples, "score")
    with pytest.raises(KeyError):
        found.of(with_example, examples[0])


def test_what_was_said_is_kept_and_what_cannot_be_read_is_no_answer() -> None:
    examples, found = rows(2), survey()
    model = writer(lambda prompt: "left" if question_of(prompt + "\nai: ") == examples[0].text else "who knows")
    setup = prompt(model, [])
    found.ask(setup, examples, "generate")
    assert [found.said(setup, row) for row in examples] == ["left", None]
    assert all(found.fits(setup, row) for row in examples)


class Narrow(Scorer):
    """Takes no prompt of the second case."""

    def score_labels(self, prompt: str, labels: Any) -> Any:
        if rows(2)[1].text in prompt:
            raise PromptTooLong("The prompt has 99 tokens; the context holds 9")
        return super().score_labels(prompt, labels)


def test_a_row_that_does_not_fit_is_remembered_with_the_complaint() -> None:
    examples, found = rows(2), survey()
    setup = prompt(Narrow(think=scorer(knows).think), [])
    found.ask(setup, examples, "score")
    assert [found.fits(setup, row) for row in examples] == [True, False]
    assert found.complaint(setup, examples[1]) == "The prompt has 99 tokens; the context holds 9"
