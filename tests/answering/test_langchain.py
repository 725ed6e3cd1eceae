"""What LangChain sees of a solver: each model call as a child run, copies that work, and streams."""

import asyncio
import copy
import pickle
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from langchain_core.callbacks import get_usage_metadata_callback
from langchain_core.language_models import FakeListChatModel
from langchain_core.rate_limiters import InMemoryRateLimiter
from langchain_core.tracers.run_collector import RunCollectorCallbackHandler

from sleicl_chains import Journal, embedder, solver
from sleicl_chains.answering.recipes import Recipe, Shown, Verdict, told_by
from sleicl_chains.answers import Answer
from sleicl_chains.errors import PromptTooLong, RejectedReply
from sleicl_chains.models.embedders import fingerprint
from sleicl_chains.models.llamacpp.model import EmbeddedModel
from sleicl_chains.tasks.cards import Task
from sleicl_chains.tasks.rows import Example

QUESTION = "My cat is in high spirits."
MODES = ("generate", "score", "hidden", "blend")
STRONG = FakeListChatModel(responses=["sad"])
OPEN = Task(name="talk", task_type="question answering", description="Say one sentence about the text.")


def chain_of(mode: str, weak: EmbeddedModel, task: Task, examples: list[Example], **more: Any) -> Any:
    fitted: dict[str, Any] = {"train": examples, "embeddings": embedder()} if mode in ("hidden", "blend") else {}
    return solver(weak, task, mode=mode, **fitted, **more)  # type: ignore[call-overload]


def untimed(answer: Answer) -> Answer:
    return replace(answer, seconds=0.0)


@pytest.mark.parametrize("mode", MODES)
def test_each_model_call_is_a_child_run(mode: str, weak: EmbeddedModel, task: Task, examples: list[Example]) -> None:
    seen = weak.model_copy(update={"tags": ["weak"], "metadata": {"where": "here"}})
    chain, runs = chain_of(mode, seen, task, examples), RunCollectorCallbackHandler()
    chain.invoke("A first question, at which the reader is fitted.")
    config = {"callbacks": [runs], "tags": ["mine"], "metadata": {"user": "me"}}
    with get_usage_metadata_callback() as usage:
        answer = chain.invoke(QUESTION, config)
    (run,) = runs.traced_runs
    assert {child.run_type for child in run.child_runs} == {"llm"}
    assert len(run.child_runs) == {"generate": 1, "score": 1, "hidden": 1, "blend": 2}[mode]
    child = run.child_runs[0]
    assert {"mine", "weak"} <= set(child.tags or ()) and child.end_time
    metadata = (child.extra or {})["metadata"]
    assert (metadata["user"], metadata["where"]) == ("me", "here")
    found = usage.usage_metadata[weak.model_name]
    assert found["input_tokens"] == answer.usage["prompt_tokens"] > 0


@pytest.mark.parametrize("mode", MODES)
def test_the_same_without_blocking(mode: str, weak: EmbeddedModel, task: Task, examples: list[Example]) -> None:
    chain, runs = chain_of(mode, weak, task, examples), RunCollectorCallbackHandler()

    async def ask() -> Answer:
        await chain.ainvoke("A first question.")
        found: Answer = await chain.ainvoke(QUESTION, {"callbacks": [runs]})
        return found

    assert untimed(asyncio.run(ask())) == untimed(chain.invoke(QUESTION))
    assert [child.run_type for child in runs.traced_runs[0].child_runs][0] == "llm"


def test_what_the_journal_answers_is_no_run(weak: EmbeddedModel, task: Task, tmp_path: Path) -> None:
    chain = solver(weak, task, prior="none", journal=Journal(tmp_path / "journal.sqlite"))
    chain.invoke(QUESTION)
    runs = RunCollectorCallbackHandler()
    chain.invoke(QUESTION, {"callbacks": [runs]})
    assert runs.traced_runs[0].child_runs == []


def test_an_error_ends_its_run(weak: EmbeddedModel, task: Task) -> None:
    runs = RunCollectorCallbackHandler()
    with pytest.raises(PromptTooLong):
        solver(weak, task, prior="none").invoke("word " * 3000, {"callbacks": [runs]})
    (child,) = runs.traced_runs[0].child_runs
    assert "tokens" in (child.error or "")


@pytest.mark.parametrize("mode", ("generate", "score", "hidden"))
def test_a_rate_limiter_is_waited_for(mode: str, weak: EmbeddedModel, task: Task, examples: list[Example]) -> None:
    slow = weak.model_copy(update={"rate_limiter": InMemoryRateLimiter(requests_per_second=4, max_bucket_size=1)})
    chain = chain_of(mode, slow, task, examples, prior="none")
    started = time.monotonic()
    for question in (QUESTION, "Another one.", "And one more."):
        with suppress(RejectedReply):  # a chatty reply; it was waited for all the same
            chain.invoke(question)
    assert time.monotonic() - started > 0.3


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("copied", (copy.deepcopy, lambda chain: pickle.loads(pickle.dumps(chain))))
def test_chains_can_be_copied_before_and_after_they_were_asked(
    mode: str, copied: Any, weak: EmbeddedModel, task: Task, examples: list[Example], tmp_path: Path
) -> None:
    chain = chain_of(mode, weak, task, examples, journal=Journal(tmp_path / "journal.sqlite"))
    before = copied(chain)
    answer = chain.invoke(QUESTION)
    assert before.invoke(QUESTION) == answer == copied(chain).invoke(QUESTION)


def shown_by(kind: str, weak: EmbeddedModel, task: Task, examples: list[Example], journal: Journal) -> Any:
    """Return a chain that shows the nearest rows, does as a recipe says, or defers."""
    if kind == "knn":
        return solver(weak, task, arm="knn", train=examples, embeddings=embedder(), journal=journal)
    if kind == "deferring":
        return solver(weak, task, arm="knn", train=examples, journal=journal, defer_below=1, to=STRONG)
    nearest = kind == "recipe of knn"
    about: dict[str, Any] = {"embeddings": "wordllama", "embeddings_fingerprint": fingerprint(embedder())}
    found = Recipe(
        task=task, weak="embedded:smollm2", model=told_by(weak), arm="knn" if nearest else "few-shot", mode="score",
        prior="content-free", cue="Answer:", examples=[Shown.of(row.text, row.answer) for row in examples],
        reader={"kind": "prior", "prior": {"happy": 0.9, "sad": 0.1}}, calibration=(2.0, 0.5), rows=4, seed=0,
        verdict=Verdict(finding="no difference shown"), **(about if nearest else {}),
    )  # fmt: skip
    return solver(found, model=weak, journal=journal)


@pytest.mark.parametrize("kind", ("knn", "recipe", "recipe of knn", "deferring"))
@pytest.mark.parametrize("copied", (copy.deepcopy, lambda chain: pickle.loads(pickle.dumps(chain))))
def test_so_can_those_that_show_rows_recipes_and_those_that_defer(
    kind: str, copied: Any, weak: EmbeddedModel, task: Task, examples: list[Example], tmp_path: Path
) -> None:
    chain = shown_by(kind, weak, task, examples, Journal(tmp_path / "journal.sqlite"))
    before = copied(chain)
    assert before.config == chain.config  # its name and settings too
    answer = chain.invoke(QUESTION)
    assert answer.valid and answer.deferred == (kind == "deferring")
    assert before.invoke(QUESTION) == answer == copied(chain).invoke(QUESTION)


def test_open_ended_text_streams_as_it_comes(weak: EmbeddedModel, tmp_path: Path) -> None:
    chain = solver(weak, OPEN, journal=Journal(tmp_path / "journal.sqlite"))
    pieces = list(chain.stream(QUESTION))
    assert len(pieces) > 3 and all(piece.text for piece in pieces[:-1])
    whole = pieces[0]
    for piece in pieces[1:]:
        whole += piece
    assert whole == chain.invoke(QUESTION) and whole.valid  # recalled: it was kept
    (again,) = chain.stream(QUESTION)
    assert again == whole

    async def gather() -> list[Answer]:
        return [piece async for piece in solver(weak, OPEN).astream(QUESTION)]

    assert "".join(piece.text for piece in asyncio.run(gather())) == whole.text


def test_a_stream_that_is_left_is_not_kept(weak: EmbeddedModel, tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.sqlite")
    pieces = solver(weak, OPEN, journal=journal).stream(QUESTION)
    next(pieces)
    pieces.close()  # type: ignore[attr-defined]
    assert len(journal) == 0
    assert solver(weak, OPEN, journal=journal).invoke(QUESTION).valid


def test_thinking_is_not_streamed() -> None:
    model = FakeListChatModel(responses=["<think>It is a cat, 1 < 2.</think>\nCats purr; 1 < 2 holds."])
    pieces = list(solver(model, OPEN).stream(QUESTION))
    assert "".join(piece.text for piece in pieces) == "Cats purr; 1 < 2 holds."
    assert len(pieces) > 5


def test_a_label_is_one_piece(weak: EmbeddedModel, task: Task) -> None:
    chain = solver(weak, task, prior="none")
    assert list(map(untimed, chain.stream(QUESTION))) == [untimed(chain.invoke(QUESTION))]
