"""Uncertain questions handed to a strong model, which a server on loopback plays."""

from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableLambda

from sleicl_chains.answering.deferring import deferring
from sleicl_chains.answering.solver import solver
from sleicl_chains.answers import Answer
from sleicl_chains.errors import InputError, OptionError, RejectedReply
from sleicl_chains.evaluation.answered import AnsweredRow
from sleicl_chains.evaluation.evaluate import evaluate
from sleicl_chains.models.journal import Journal
from sleicl_chains.tasks.cards import Task
from sleicl_chains.tasks.rows import Example
from tests.support.fake_models import Scorer, Writer, question_of
from tests.support.openai_server import OpenAIServer


def weak() -> Scorer:
    """Is sure of "I won!" (.9) and of nothing else (.6)."""
    return Scorer(
        think=lambda prompt: {"happy": 9, "sad": 1} if question_of(prompt) == "I won!" else {"sad": 6, "happy": 4}
    )


def chain(task: Task, server: OpenAIServer, below: float = 0.7, **options: Any) -> Any:
    return solver(weak(), task, prior="none", defer_below=below, to=server.model(), **options)


def settings_of(chain: Any) -> str:
    return str(chain.config["metadata"]["settings"])


def test_a_sure_answer_stays_and_costs_nothing(task: Task) -> None:
    with OpenAIServer([]) as server:
        said = chain(task, server).invoke("I won!")
        assert server.requests == []
    assert (said.label, said.deferred, said.probability, said.note) == ("happy", False, pytest.approx(0.9), "")
    assert set(said.usage) == {"prompt_tokens", "reply_tokens"}


def test_an_unsure_one_is_asked_of_the_strong_model(task: Task) -> None:
    with OpenAIServer(["The mood is happy."]) as server:
        said = chain(task, server).invoke("It rains.")
        assert len(server.requests) == 1 and server.prompt(0) == "It rains."
        assert "happy, sad" in server.requests[0]["messages"][0]["content"]
    assert (said.label, said.text, said.valid, said.deferred) == ("happy", "The mood is happy.", True, True)
    assert (said.probability, said.scores, said.note) == (None, {}, "")
    alone = solver(weak(), task, prior="none").invoke("It rains.")
    assert said.usage == dict(alone.usage) | {"strong_prompt_tokens": 100, "strong_reply_tokens": 10}
    assert said.seconds > 0
    assert said.to_dict()["deferred"] is True and alone.to_dict()["deferred"] is False


def test_the_threshold_itself_is_sure_enough(task: Task) -> None:
    exact = weak().score_labels("human: It rains.\nai: ", task.labels).probabilities["sad"]
    with OpenAIServer(["happy"]) as server:
        assert not chain(task, server, below=exact).invoke("It rains.").deferred
        assert chain(task, server, below=exact + 1e-9).invoke("It rains.").deferred
        assert len(server.requests) == 1


@pytest.mark.parametrize("reply", ["I cannot say.", "happy or sad?"])
def test_a_strong_reply_without_a_label_leaves_the_weak_answer(task: Task, reply: str) -> None:
    with OpenAIServer([reply]) as server:
        said = chain(task, server).invoke("It rains.")
    assert (said.label, said.valid, said.probability) == ("sad", True, pytest.approx(0.6))
    assert (said.deferred, said.note) == (False, "the strong model gave no answer")
    assert said.usage["strong_prompt_tokens"] == 100


def test_a_table_counts_as_deferred_what_the_strong_model_answered(task: Task, examples: list[Example]) -> None:
    """Of four unsure answers, all of coverage .5, the strong model gives none, or two."""
    none = ["I cannot say."] * 2
    for replies, deferred in ((none + none, 0), (["happy", "sad", *none], 0.5)):
        with OpenAIServer(replies) as server:
            (arm,) = evaluate([chain(task, server)], examples, task=task).arms
        assert (arm.coverage, arm.deferred, arm.failed) == (0.5, deferred, 0)
        assert (arm.strong_prompt_tokens_total, arm.strong_reply_tokens_total) == (400, 40)
        assert arm.asked_strong and arm.calibration_error is not None


def test_rows_of_an_earlier_version_call_no_weak_answer_deferred() -> None:
    old = {"arm": "a", "row": "1", "gold": "sad", "prediction": "sad", "valid": True, "coverage": 0.9}
    for note in ("the strong model gave no answer", "the strong model gave no answer: it is empty"):
        assert not AnsweredRow.from_dict({**old, "deferred": True, "note": note}).deferred
    assert AnsweredRow.from_dict({**old, "deferred": True, "note": ""}).deferred


@pytest.mark.parametrize("reply", ["sad", "no idea"])
def test_answers_without_a_probability_always_go_on(task: Task, reply: str) -> None:
    """Generated ones, valid or not; what was said of the weak model's is not said of the strong one's."""
    with OpenAIServer(["happy"]) as server:
        model = Writer(reply=lambda prompt: reply)
        said = solver(model, task, defer_below=0.0, to=server.model()).invoke("It rains.")
    assert (said.label, said.valid, said.deferred, said.note) == ("happy", True, True, "")


def test_what_was_out_of_sight_of_the_weak_model_is_no_note_on_the_strong_answer(task: Task) -> None:
    unsure = Answer("sad", "sad", True, probability=0.5, unseen=("happy",), coverage=0.1, note="a guess")
    with OpenAIServer(["happy"]) as server:
        said = deferring(RunnableLambda(lambda _: unsure), server.model(), task, below=0.6).invoke("It rains.")
    assert (said.label, said.unseen, said.coverage, said.note) == ("happy", (), None, "")


async def test_every_way_to_ask_gives_the_same(task: Task) -> None:
    questions = ["I won!", "It rains.", "I won!"]
    with OpenAIServer(["happy"] * 4) as server:
        strong = server.model()
        asked = solver(weak(), task, prior="none", defer_below=0.7, to=strong)
        runs = [
            asked.batch(questions),
            await asked.abatch(questions),
            [await asked.ainvoke(question) for question in questions],
            [said for question in questions for said in asked.stream(question)],
        ]
        assert len(server.requests) == 4
        await strong.root_async_client.close()
    for run in runs:
        assert [(said.label, said.deferred) for said in run] == [("happy", False), ("happy", True), ("happy", False)]


def test_an_open_ended_answer_goes_on_as_well(task: Task) -> None:
    open_task = task.model_copy(update={"labels": ()})
    with OpenAIServer(["Forty-two"]) as server:
        said = solver(Writer(), open_task, defer_below=0.5, to=server.model()).invoke("What is it?")
    assert (said.answer, said.label, said.deferred) == ("Forty-two", None, True)


def test_a_question_asked_again_is_not_paid_again(task: Task, tmp_path: Path) -> None:
    with OpenAIServer(["happy"]) as server, Journal(tmp_path / "journal.sqlite") as journal:
        first = chain(task, server, journal=journal).invoke("It rains.")
        assert chain(task, server, journal=journal).invoke("It rains.") == first
        assert len(server.requests) == 1


def test_the_settings_tell_thresholds_and_models_apart(task: Task) -> None:
    """So that no run folder mixes them."""
    with OpenAIServer([]) as server:
        plain = solver(weak(), task, prior="none")
        others = [
            chain(task, server),
            chain(task, server, below=0.8),
            solver(weak(), task, prior="none", defer_below=0.7, to=server.model(model="strong-2")),
            solver(weak(), task, prior="content-free", defer_below=0.7, to=server.model()),
        ]
        assert len({settings_of(one) for one in [plain, *others]}) == 5
        assert settings_of(chain(task, server)) == settings_of(others[0])
    about = {key: others[0].config["metadata"][key] for key in ("arm", "mode", "prior")}
    assert about == {"arm": "zero-shot", "mode": "score", "prior": "none"}


@pytest.mark.parametrize("below", [-0.1, 1.1, float("nan")])
def test_a_threshold_is_a_probability(task: Task, below: float) -> None:
    with OpenAIServer([]) as server, pytest.raises(OptionError, match="expected a probability from 0 to 1"):
        chain(task, server, below=below)


@pytest.mark.parametrize("options", [{"defer_below": 0.5}, {"to": Writer()}])
def test_a_threshold_and_a_model_belong_together(task: Task, options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="defer_below and to belong together"):
        solver(weak(), task, **options)


def test_where_the_strong_reply_is_refused_the_weak_answer_stays(task: Task) -> None:
    def refuse(_: object) -> AIMessage:
        problem = RejectedReply("the reply is empty")
        problem.usage = {"prompt_tokens": 70}
        raise problem

    strong = Writer()
    object.__setattr__(strong, "_generate", lambda *args, **kwargs: refuse(args))
    unsure = Answer("sad", "sad", True, probability=0.5)
    said = deferring(RunnableLambda(lambda _: unsure), strong, task, below=0.6).invoke("It rains.")
    assert (said.label, said.valid, said.deferred) == ("sad", True, False)
    assert said.usage == {"strong_prompt_tokens": 70}
    assert said.note == "the strong model gave no answer: the reply is empty"
