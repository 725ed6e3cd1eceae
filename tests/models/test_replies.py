"""Replies that are no answer: refused, kept as refused, and asked for again; by the command line and a real server."""

import json
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import AIMessage

from sleicl_chains.answering.solver import solver
from sleicl_chains.answering.steps import Solver
from sleicl_chains.answers import Answer
from sleicl_chains.errors import RejectedReply
from sleicl_chains.files import Home
from sleicl_chains.models.asking import ask
from sleicl_chains.models.journal import Journal
from sleicl_chains.models.replies import check_label
from sleicl_chains.tasks.cards import Task
from tests.support.command import Desk, sleicl
from tests.support.fake_models import Writer
from tests.support.openai_server import OpenAIServer, Reply

CUT = "length"
WITHHELD = "content_filter"


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-none")


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk.at(tmp_path / "desk")


def asking(desk: Desk, server: OpenAIServer, *more: object) -> list[object]:
    return ["ask", "Where is it?", "--task", desk.card, "--weak", "openai:m", "--base-url", server.base_url, *more]


REFUSED = [
    (Reply(""), "the reply is empty; ask in other words"),
    (Reply(" \n"), "the reply is empty; ask in other words"),
    (Reply("billing", finish_reason=WITHHELD), "the reply was withheld (finish_reason 'content_filter')"),
    (Reply("", finish_reason=WITHHELD), "the reply was withheld (finish_reason 'content_filter')"),
    (Reply("I think that", finish_reason=CUT), "the reply was cut (finish_reason 'length') before it named a label"),
    (Reply("", finish_reason=CUT), "the reply was cut (finish_reason 'length') before it named a label"),
    (Reply("<think>billing or"), "the reply only thought and gave no answer; allow more tokens"),
    (Reply("<think>billing</think>"), "the reply only thought and gave no answer; allow more tokens"),
]


@pytest.mark.parametrize("mode", ["generate", "schema"])
@pytest.mark.parametrize(("reply", "complaint"), REFUSED)
def test_a_refused_reply_is_asked_again_and_its_successor_kept(
    desk: Desk, reply: Reply, complaint: str, mode: str
) -> None:
    good = '{"label": "technical"}' if mode == "schema" else "technical"
    with OpenAIServer([reply, reply, good]) as server:
        command = asking(desk, server, "--mode", mode)
        for _ in range(2):
            done = sleicl(*command)
            assert (done.status, done.out) == (1, "") and complaint in done.err
        for _ in range(2):
            assert sleicl(*command).out == "technical\n"
        assert len(server.requests) == 3


def test_a_cut_reply_counts_where_it_names_one_label(desk: Desk) -> None:
    with OpenAIServer([Reply("technical, because the message", finish_reason=CUT)]) as server:
        assert sleicl(*asking(desk, server)).out == "technical\n"


@pytest.mark.parametrize(
    ("text", "label", "counts"),
    [
        ("It is hate", "hate", False),
        ("It is hate.", "hate", True),
        ("It is hate speech", "hate speech", True),
        ("It is Hate ", "hate", False),
    ],
)
def test_a_cut_label_that_begins_another_does_not_count(text: str, label: str, counts: bool) -> None:
    message = AIMessage(text, response_metadata={"finish_reason": "length"})
    if counts:
        check_label(message, label, ("hate", "hate speech"))
        return
    with pytest.raises(RejectedReply, match="was cut .* after 'hate', where another label may go on"):
        check_label(message, label, ("hate", "hate speech"))


@pytest.mark.parametrize(
    ("message", "complaint"),
    [
        (AIMessage("", additional_kwargs={"refusal": "I can't help with that."}), "withheld (refusal \"I can't help"),
        (AIMessage("glad", response_metadata={"finish_reason": "SAFETY"}), "withheld (finish_reason 'safety')"),
        (AIMessage("gl", response_metadata={"finish_reason": "error"}), "broke off (finish_reason 'error')"),
    ],
)
def test_every_providers_word_is_known(message: AIMessage, complaint: str) -> None:
    with pytest.raises(RejectedReply) as found:
        check_label(message, "glad", ("glad", "sad"))
    assert complaint in str(found.value)


def test_a_refused_reply_is_a_failed_row_of_a_table(desk: Desk, home: Home) -> None:
    with OpenAIServer([Reply(""), Reply("hm", finish_reason=CUT), *["billing"] * 6]) as server:
        source = ["--task", desk.card, "--rows", desk.test, "--weak", "openai:m", "--base-url", server.base_url]
        table = sleicl("evaluate", *source, "--arms", "zero-shot", "--json").json()
    (arm,) = table["arms"]
    assert (table["n"], arm["valid"]) == (8, 0.75) and arm["accuracy"] <= 0.75
    said = [json.loads(line) for line in next(home.runs.glob("*/rows.jsonl")).read_text("utf-8").splitlines()]
    notes = sorted(row["note"] for row in said if row["prediction"] is None)
    kept = sorted((row["reply"], row["mode"], row["usage"]["reply_tokens"]) for row in said if not row["prediction"])
    assert kept == [("", "generate", 10), ("hm", "generate", 10)]
    assert [note.split(" (")[0] for note in notes] == [
        "failed: the reply is empty; ask in other words, or take a larger model", "failed: the reply was cut",
    ]  # fmt: skip


def test_what_an_old_journal_accepted_is_checked_again(desk: Desk, home: Home) -> None:
    """Before there was a check it kept every reply."""
    with OpenAIServer([Reply(""), "technical"]) as server:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Solver, "check_answer", lambda self, reply: None)
            assert sleicl(*asking(desk, server)).status == 1  # no answer, but kept as one
        assert sleicl(*asking(desk, server)).out == "technical\n"
        assert sleicl(*asking(desk, server)).out == "technical\n"
        assert len(server.requests) == 2
    with Journal(home.journal) as journal:
        assert len(journal) == 2


async def test_a_recalled_reply_is_checked_without_blocking_too(task: Task, tmp_path: Path) -> None:
    said = iter(["", "happy"])
    model = Writer(reply=lambda prompt: next(said))
    with Journal(tmp_path / "journal.sqlite") as journal:
        chain = solver(model, task, mode="generate", journal=journal)
        ask(model, [], None)  # takes the empty one
        assert (await chain.ainvoke("I won!")).label == "happy"
        assert (await chain.ainvoke("I won!")).label == "happy"


# ------------------------------------------------------------------ open-ended


OPEN = Task(name="facts", task_type="facts", description="Answer.")


@pytest.mark.parametrize(
    "reply",
    [Reply(""), Reply("All", finish_reason=WITHHELD), Reply("<think>All"), Reply("<think>x", finish_reason=CUT)],
)
def test_an_open_ended_reply_that_says_nothing_is_refused(reply: Reply, tmp_path: Path) -> None:
    with OpenAIServer([reply, "Green."]) as server, Journal(tmp_path / "journal.sqlite") as journal:
        chain = solver(server.model(), OPEN, journal=journal)
        with pytest.raises(RejectedReply):
            chain.invoke("What colour is grass?")
        assert chain.invoke("What colour is grass?").answer == "Green."


def test_a_cut_open_ended_answer_is_an_answer_with_a_note(tmp_path: Path) -> None:
    with OpenAIServer([Reply("Grass is", finish_reason=CUT)]) as server, Journal(tmp_path / "j.sqlite") as journal:
        said = solver(server.model(), OPEN, journal=journal).invoke("What colour is grass?")
        assert solver(server.model(), OPEN, journal=journal).invoke("What colour is grass?") == said
    assert (said.valid, said.answer, said.note) == (True, "Grass is", "the reply was cut at its length limit")


@pytest.mark.parametrize(("reply", "why"), [(Reply("Forty", finish_reason=CUT), "was cut"), (Reply(""), "is empty")])
def test_a_cut_strong_answer_does_not_take_the_place_of_a_whole_weak_one(
    reply: Reply, why: str, tmp_path: Path
) -> None:
    with OpenAIServer([reply, "Forty-two."]) as server, Journal(tmp_path / "journal.sqlite") as journal:
        options: dict[str, Any] = {"defer_below": 0.5, "to": server.model(), "journal": journal}
        chain = solver(Writer(reply=lambda prompt: "None."), OPEN, **options)
        first: Answer = chain.invoke("How many?")
        assert first.answer == "None." and f"the strong model gave no answer: the reply {why}" in first.note
        assert [chain.invoke("How many?").answer for _ in range(2)] == ["Forty-two."] * 2
        assert len(server.requests) == 2
