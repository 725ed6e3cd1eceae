"""The strong model's chain: examples in, a profound and a simple grimoire out; "Grimoire is All You Need"."""

import hashlib
import json
from typing import TYPE_CHECKING, Literal, NotRequired, TypedDict

from sleicl_chains.grimoires.grimoire import Grimoire, Provenance, grimoire_id
from sleicl_chains.grimoires.writing.calls import Written, missing_labels, quoted, steps
from sleicl_chains.models.budget import Budget
from sleicl_chains.models.replies import check_reply
from sleicl_chains.tasks.cards import Task
from sleicl_chains.tasks.rows import Example, text_id

if TYPE_CHECKING:  # LangChain's messages take a quarter of a second to load
    from langchain_core.language_models import BaseChatModel
    from langchain_core.runnables import Runnable

    from sleicl_chains.models.journal import Journal


class WriteInput(TypedDict):
    """What a grimoire is written from. The last three are only recorded."""

    task: Task
    examples: list[Example]
    """May be empty: the prompt then works from the description alone (the paper's zero-sample)."""
    sampler: NotRequired[str]
    per_label: NotRequired[int]
    seed: NotRequired[int]


def grimoire_writer(
    strong: "BaseChatModel",
    *,
    strong_name: str | None = None,
    journal: "Journal | None" = None,
    budget: int | None = None,
) -> "Runnable[WriteInput, Grimoire]":
    """Return a chain that has the strong model write a profound grimoire and shorten it to a simple one.

    The method of "Grimoire is All You Need" (arXiv 2401.03385). It costs two strong calls, and a
    third when the profound text does not name every label; a label that is missing even then
    becomes a warning in the provenance. With a journal, a repeated run costs nothing, gives the same
    grimoire and goes on after the last reply that came in.

    Args:
        strong: the model that writes.
        strong_name: recorded as the writer; by default the model's own name.
        journal: keeps every call.
        budget: most tokens that one grimoire may cost, read and written; looked at after each call. Each reply is held
            to what is left of them where the model can be told so.

    Raises:
        BudgetExceeded: (when run) it cost more, or would; what came in is in the journal.
        RejectedReply: (when run) a reply is empty, cut, withheld or unfinished thinking.
    """
    from langchain_core.runnables import RunnableLambda

    from sleicl_chains.models.abilities import name_of

    name = strong_name or name_of(strong)

    def write(given: WriteInput) -> Grimoire:
        return _grimoire(given, name, _written(given, strong, journal, Budget(budget, journal is not None)))

    async def awrite(given: WriteInput) -> Grimoire:
        return _grimoire(given, name, await _awritten(given, strong, journal, Budget(budget, journal is not None)))

    return RunnableLambda(write, afunc=awrite, name="grimoire_writer")


def _written(given: WriteInput, strong: "BaseChatModel", journal: "Journal | None", budget: Budget) -> Written:
    from sleicl_chains.models.asking import ask

    calls = steps(given["task"], given["examples"])
    step = next(calls)
    while not isinstance(step, Written):
        model = budget.held(strong, step, journal)
        with budget.cuts_told():
            reply = ask(model, step, journal, check=check_reply)
        budget.pay(step, reply)
        step = calls.send(reply)
    return step


async def _awritten(given: WriteInput, strong: "BaseChatModel", journal: "Journal | None", budget: Budget) -> Written:
    from langchain_core.runnables.config import run_in_executor

    from sleicl_chains.models.asking import aask

    calls = steps(given["task"], given["examples"])
    step = next(calls)
    while not isinstance(step, Written):
        # In a thread: a model may have to ask its server who it is.
        model = await run_in_executor(None, budget.held, strong, step, journal)
        with budget.cuts_told():
            reply = await aask(model, step, journal, check=check_reply)
        budget.pay(step, reply)
        step = calls.send(reply)
    return step


def _grimoire(given: WriteInput, strong_name: str, written: Written) -> Grimoire:
    task, profound, simple = given["task"], written.profound.text, written.simple.text
    id = grimoire_id(task.name, profound, simple)
    card = (task.name, task.task_type, task.description, task.labels)
    return Grimoire(id, *card, profound, simple, _provenance(given, strong_name, written))


def _provenance(given: WriteInput, strong_name: str, written: Written) -> Provenance:
    shown = [[(message.type, str(message.text)) for message in prompt] for prompt, _ in written.calls]
    return Provenance(
        strong_model=strong_name,
        sampler=given.get("sampler", ""),
        per_label=given.get("per_label"),
        seed=given.get("seed"),
        examples=tuple(example.id for example in given["examples"]),
        text_ids=tuple(text_id(example.text) for example in given["examples"]),
        prompt_sha256=hashlib.sha256(json.dumps(shown).encode()).hexdigest(),
        prompt_tokens=_tokens("input_tokens", written),
        reply_tokens=_tokens("output_tokens", written),
        # Of the call, not of this run: a run that repeats it from the journal gives the same file.
        date=written.calls[0][1].response_metadata["asked_at"][:10],
        warnings=_warnings(given["task"], written),
    )


def _tokens(kind: Literal["input_tokens", "output_tokens"], written: Written) -> int | None:
    """Return the sum over all calls; None when a call's count is not known."""
    used = [reply.usage_metadata for _, reply in written.calls]
    return sum(usage[kind] for usage in used if usage) if all(used) else None


def _warnings(task: Task, written: Written) -> tuple[str, ...]:
    missing = missing_labels(written.profound.text, task.labels)
    missed = [f"the profound text does not name {quoted(missing)}"] if missing else []
    texts = {"profound": written.profound, "simple": written.simple}
    return (*missed, *(f"{name} text: {warning}" for name, text in texts.items() for warning in text.warnings))
