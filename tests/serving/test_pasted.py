"""Rows that somebody pastes: how they are read, asked and counted."""

import pytest
from langchain_core.runnables import RunnableLambda

from sleicl_chains.answers import Answer
from sleicl_chains.errors import InputError, RejectedReply, ServerDown
from sleicl_chains.serving.pasted import BYTES, ROWS, Row, Tried, pasted_rows, summary, tried
from sleicl_chains.tasks.cards import Task


@pytest.mark.parametrize(
    "text",
    [
        "text,answer\nI laughed,happy\n\"Rain, again\",\nHe left,sad\n",
        "answer;text\nhappy;I laughed\n;Rain, again\nsad;He left\n",
        '{"text": "I laughed", "answer": "happy"}\n{"text": "Rain, again"}\n{"text": "He left", "answer": "sad"}',
    ],
)  # fmt: skip
def test_tables_and_json_lines_have_answers(text: str, task: Task) -> None:
    assert pasted_rows(text, task) == [Row("I laughed", "happy"), Row("Rain, again"), Row("He left", "sad")]


def test_anything_else_is_one_text_a_line(task: Task) -> None:
    assert pasted_rows("I laughed, and\n\n  Rain \r\nthe text,\n", task) == [
        Row("I laughed, and"), Row("Rain"), Row("the text,"),
    ]  # fmt: skip


def test_the_answers_of_an_open_ended_task_are_left_out() -> None:
    task = Task(name="plain", description="Rewrite it plainly.")
    assert pasted_rows("text,answer\nHereby,Now\n", task) == [Row("Hereby")]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (" \n", "found none"),
        ("x\n" * (ROWS + 1), f"found {ROWS + 1}; at most {ROWS}"),
        ("é" * (BYTES // 2 + 1), f"found {BYTES + 2:,} bytes"),
        ("text,answer\nfine,glad\n", "found the label 'glad'"),
        ("text,answer\na,b,sad\n", "line 2: found 3 cells"),
        ("text,answer\n,sad\n", "line 2: found nothing in 'text'"),
        ("half \ud800", "half of a surrogate pair"),
    ],
)
def test_what_cannot_be_tried_is_told(text: str, complaint: str, task: Task) -> None:
    with pytest.raises(InputError, match=complaint):
        pasted_rows(text, task)


def _answer(question: str) -> Answer:
    if question == "cut":
        raise RejectedReply("the reply was cut")
    if question == "down":
        raise ServerDown("nothing answers")
    if question == "odd":
        return Answer(None, "who knows", valid=False)
    return Answer("happy", "happy", valid=True, probability=0.75)


def test_a_row_without_an_answer_says_why() -> None:
    results = list(tried(RunnableLambda(_answer), [Row("a", "happy"), Row("odd", "sad"), Row("cut")]))
    assert results == [
        Tried(Row("a", "happy"), "happy", 0.75, valid=True),
        Tried(Row("odd", "sad"), note="said 'who knows'"),
        Tried(Row("cut"), note="the reply was cut"),
    ]
    assert [one.right for one in results] == [True, False, None]


def test_what_was_answered_before_the_server_went_stays() -> None:
    answers = tried(RunnableLambda(_answer), [Row("a"), Row("down"), Row("b")])
    assert next(answers).answer == "happy"
    with pytest.raises(ServerDown):
        next(answers)


def test_a_summary_has_the_interval_of_the_rows_with_answers() -> None:
    right = Tried(Row("a", "happy"), "happy", valid=True)
    wrong = Tried(Row("a", "sad"), "happy", valid=True)
    silent = Tried(Row("a"))
    # Wilson, 3 of 4: (3 + 1.92) / (4 + 3.84) +- 1.96 / 7.84 * sqrt(4 * .75 * .25 + .96) = .628 +- .327
    assert summary([right, right, wrong, right, silent]) == (
        "3 of 4 right: 75% (95% interval 30% to 95%); 1 without a valid answer"
    )
    assert summary([Tried(Row("a"), "happy", valid=True)]) == ""
