"""The strong model's chain: examples in, a profound and a simple grimoire out; "Grimoire is All You Need".

A reply is checked before it is accepted. Nothing is stored that is empty, cut or unfinished.
"""

import hashlib
import json
from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING, Literal, NotRequired, TypedDict

from sleicl_chains.errors import RejectedReply
from sleicl_chains.grimoires import SURROGATE, Grimoire, Provenance, grimoire_id
from sleicl_chains.labels import mentioned
from sleicl_chains.prompts import fill
from sleicl_chains.tasks import Example, Task, text_id
from sleicl_chains.thinking import finished_thinking, unclosed

if TYPE_CHECKING:  # LangChain's messages take a quarter of a second to load
    from langchain_core.language_models import BaseChatModel
    from langchain_core.messages import AIMessage, BaseMessage
    from langchain_core.runnables import Runnable

    from sleicl_chains.journal import Journal


class WriteInput(TypedDict):
    """What a grimoire is written from. The last three are only recorded."""

    task: Task
    examples: list[Example]
    """May be empty: the prompt then works from the description alone (the paper's zero-sample)."""
    sampler: NotRequired[str]
    per_label: NotRequired[int]
    seed: NotRequired[int]


def grimoire_writer(
    strong: "BaseChatModel", *, strong_name: str | None = None, journal: "Journal | None" = None
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

    Raises:
        RejectedReply: (when run) a reply is empty, cut, withheld or unfinished thinking.
    """
    from langchain_core.runnables import RunnableLambda

    from sleicl_chains.journal import aask, ask

    name = strong_name or _model_name(strong)

    def write(given: WriteInput) -> Grimoire:
        steps = _steps(given, name)
        step = next(steps)
        while not isinstance(step, Grimoire):
            step = steps.send(ask(strong, step, journal, check=check_reply))
        return step

    async def awrite(given: WriteInput) -> Grimoire:
        steps = _steps(given, name)
        step = next(steps)
        while not isinstance(step, Grimoire):
            step = steps.send(await aask(strong, step, journal, check=check_reply))
        return step

    return RunnableLambda(write, afunc=awrite, name="grimoire_writer")


def _model_name(strong: "BaseChatModel") -> str:
    names = (getattr(strong, "model_name", None), getattr(strong, "model", None))
    return next((name for name in names if name and isinstance(name, str)), type(strong).__name__)


def _steps(given: WriteInput, strong_name: str) -> "Generator[list[BaseMessage] | Grimoire, AIMessage, None]":
    """Yield prompts, take a checked reply for each, and yield the grimoire at last.

    Written this way so that the synchronous and the asynchronous chain share every line but the call.
    """
    from langchain_core.messages import AIMessage, HumanMessage

    task = given["task"]
    calls: list[tuple[list[BaseMessage], AIMessage]] = []
    prompt: list[BaseMessage] = [HumanMessage(_profound_prompt(task, given["examples"]))]
    calls.append((prompt, (yield prompt)))
    profound = check_reply(calls[-1][1])
    if missing := missing_labels(profound, task.labels):
        again = f"The guide does not name {_quoted(missing)}. Write all of it again and name every possible answer."
        prompt = [*prompt, AIMessage(profound), HumanMessage(again)]
        calls.append((prompt, (yield prompt)))
        profound = check_reply(calls[-1][1])
    prompt = [HumanMessage(fill("write_simple", profound=profound))]
    calls.append((prompt, (yield prompt)))
    simple = check_reply(calls[-1][1])

    still = missing_labels(profound, task.labels)
    warnings = (f"the profound text does not name {_quoted(still)}",) if still else ()
    id = grimoire_id(task.name, profound, simple)
    card = (task.name, task.task_type, task.description, task.labels)
    yield Grimoire(id, *card, profound, simple, _provenance(given, strong_name, calls, warnings))


def _profound_prompt(task: Task, examples: Sequence[Example]) -> str:
    rows = [json.dumps({"text": row.text, "answer": row.answer}, ensure_ascii=False) for row in examples]
    return fill(
        "write_profound",
        task_type=task.task_type,
        description=task.description,
        labels=_quoted(task.labels) or "none are listed; the answer is free text",
        examples="\n".join(rows),
    )


def _quoted(labels: Sequence[str]) -> str:
    return ", ".join(f'"{label}"' for label in labels)


def _provenance(
    given: WriteInput,
    strong_name: str,
    calls: "Sequence[tuple[list[BaseMessage], AIMessage]]",
    warnings: tuple[str, ...],
) -> Provenance:
    shown = [[(message.type, str(message.text)) for message in prompt] for prompt, _ in calls]
    return Provenance(
        strong_model=strong_name,
        sampler=given.get("sampler", ""),
        per_label=given.get("per_label"),
        seed=given.get("seed"),
        examples=tuple(example.id for example in given["examples"]),
        text_ids=tuple(text_id(example.text) for example in given["examples"]),
        prompt_sha256=hashlib.sha256(json.dumps(shown).encode()).hexdigest(),
        prompt_tokens=_tokens("input_tokens", [reply for _, reply in calls]),
        reply_tokens=_tokens("output_tokens", [reply for _, reply in calls]),
        # Of the call, not of this run: a run that repeats it from the journal gives the same file.
        date=calls[0][1].response_metadata["asked_at"][:10],
        warnings=warnings,
    )


def _tokens(kind: Literal["input_tokens", "output_tokens"], replies: "Sequence[AIMessage]") -> int | None:
    """Return the sum over all calls; None when a call's count is not known."""
    used = [reply.usage_metadata for reply in replies]
    return sum(usage[kind] for usage in used if usage) if all(used) else None


# ------------------------------------------------------------------ checking replies

_REASON_KEYS = ("finish_reason", "done_reason", "stop_reason", "status")
_CUT = {"length", "max_tokens", "max_output_tokens", "model_length", "model_context_window_exceeded", "incomplete"}
_MORE = "allow it more tokens (--option max_tokens=16000)"
_WITHHELD = {"content_filter", "safety", "refusal"}


def check_reply(message: "AIMessage") -> str:
    """Return the reply's text without its thinking.

    Raises:
        RejectedReply: the text is empty, was cut or withheld, or ends inside a thinking block.
    """
    reasons = {key: str(message.response_metadata.get(key) or "").lower() for key in _REASON_KEYS}
    for key, reason in reasons.items():
        if reason in _CUT:
            raise RejectedReply(f"the strong model's reply was cut ({key} {reason!r}); {_MORE}")
        if reason in _WITHHELD:
            raise RejectedReply(f"the strong model's reply was withheld ({key} {reason!r}); try other examples")
    text = finished_thinking(message.text)
    if tag := unclosed(text):
        raise RejectedReply(f"the strong model's reply has an unclosed {tag}; {_MORE}")
    if not text:
        raise RejectedReply("the strong model's reply is empty; expected a text")
    if SURROGATE.search(text):
        raise RejectedReply("the strong model's reply holds half of a surrogate pair; expected valid Unicode")
    return text


def missing_labels(text: str, labels: Sequence[str]) -> list[str]:
    """Return the labels that `text` does not name, in their order.

    Case and amount of white space do not matter; "positive" is not found inside "very positive".
    """
    named = mentioned(text, labels)
    return [label for label in labels if label not in named]
