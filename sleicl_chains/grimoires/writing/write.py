"""The strong model's chain: examples in, a profound and a simple grimoire out; "Grimoire is All You Need".

A reply is checked before it is accepted. Nothing is stored that is empty, cut or unfinished; see `replies`.
"""

import hashlib
import json
import re
from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING, Literal, NotRequired, TypedDict

from sleicl_chains.errors import InputError
from sleicl_chains.grimoires.grimoire import Grimoire, Provenance, grimoire_id
from sleicl_chains.models.budget import Budget
from sleicl_chains.models.replies import Cleaned, check_reply, check_text
from sleicl_chains.models.tokens import estimate_tokens
from sleicl_chains.prompts import fill
from sleicl_chains.tasks.cards import Task
from sleicl_chains.tasks.labels import mentioned
from sleicl_chains.tasks.rows import Example, text_id

if TYPE_CHECKING:  # LangChain's messages take a quarter of a second to load
    from langchain_core.language_models import BaseChatModel
    from langchain_core.messages import AIMessage, BaseMessage
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
    from langchain_core.runnables.config import run_in_executor

    from sleicl_chains.models.abilities import name_of
    from sleicl_chains.models.asking import aask, ask

    name = strong_name or name_of(strong)

    def write(given: WriteInput) -> Grimoire:
        steps, spending = _steps(given, name), Budget(budget, journal is not None)
        step = next(steps)
        while not isinstance(step, Grimoire):
            model = spending.held(strong, step, journal)
            with spending.cuts_told():
                reply = ask(model, step, journal, check=check_reply)
            spending.pay(step, reply)
            step = steps.send(reply)
        return step

    async def awrite(given: WriteInput) -> Grimoire:
        steps, spending = _steps(given, name), Budget(budget, journal is not None)
        step = next(steps)
        while not isinstance(step, Grimoire):
            # In a thread: a model may have to ask its server who it is.
            model = await run_in_executor(None, spending.held, strong, step, journal)
            with spending.cuts_told():
                reply = await aask(model, step, journal, check=check_reply)
            spending.pay(step, reply)
            step = steps.send(reply)
        return step

    return RunnableLambda(write, afunc=awrite, name="grimoire_writer")


def _steps(given: WriteInput, strong_name: str) -> "Generator[list[BaseMessage] | Grimoire, AIMessage, None]":
    """Yield prompts, take a checked reply for each, and yield the grimoire at last.

    Written this way so that the synchronous and the asynchronous chain share every line but the call.
    """
    from langchain_core.messages import AIMessage, HumanMessage

    task = given["task"]
    calls: list[tuple[list[BaseMessage], AIMessage]] = []
    prompt: list[BaseMessage] = [HumanMessage(profound_prompt(task, given["examples"]))]
    calls.append((prompt, (yield prompt)))
    profound = check_text(calls[-1][1])
    if missing := missing_labels(profound.text, task.labels):
        again = f"The guide does not name {_quoted(missing)}. Write all of it again and name every possible answer."
        prompt = [*prompt, AIMessage(profound.text), HumanMessage(again)]
        calls.append((prompt, (yield prompt)))
        profound = check_text(calls[-1][1])
    prompt = [HumanMessage(_simple_prompt(task, profound.text))]
    calls.append((prompt, (yield prompt)))
    simple = check_text(calls[-1][1])

    still = missing_labels(profound.text, task.labels)
    missed = [f"the profound text does not name {_quoted(still)}"] if still else []
    warnings = (*missed, *_about("profound", profound), *_about("simple", simple))
    id = grimoire_id(task.name, profound.text, simple.text)
    card = (task.name, task.task_type, task.description, task.labels)
    yield Grimoire(id, *card, profound.text, simple.text, _provenance(given, strong_name, calls, warnings))


def _about(name: str, found: Cleaned) -> list[str]:
    return [f"{name} text: {warning}" for warning in found.warnings]


def _simple_prompt(task: Task, profound: str) -> str:
    rules = max(3, len(task.labels) // _LABELS_PER_RULE)
    fence = _fence("guide", profound)
    return fill("write_simple", profound=profound, fence=fence, rules="three" if rules == 3 else str(rules))


def profound_prompt(task: Task, examples: Sequence[Example]) -> str:
    """Return the first prompt, as the strong model gets it."""
    rows = "\n".join(map(_line, examples))
    return fill(
        "write_profound",
        task_type=task.task_type,
        description=task.description,
        labels=_quoted(task.labels) or "none are listed; the answer is free text",
        examples=rows,
        fence=_fence("examples", rows),
        words=str(_words(task)),
    )


def _line(row: Example) -> str:
    return json.dumps({"text": row.text, "answer": row.answer}, ensure_ascii=False)


_WORDS, _WORDS_PER_LABEL, _LABELS_PER_RULE = 400, 20, 7


def _words(task: Task) -> int:
    """Return how long the guide may be: more where there are more than twenty labels, since it must name them all."""
    return max(_WORDS, _WORDS_PER_LABEL * len(task.labels))


def _fence(what: str, text: str) -> str:
    """Return a fence that no line of the text closes: three signs, or one more than the longest that looks like it."""
    alike = re.findall(rf"^[ \t]*(={{3,}})[ \t]*{what}", text, re.MULTILINE | re.IGNORECASE)
    return "=" * max([3, *(len(found) + 1 for found in alike)])


# ------------------------------------------------------------------ what it costs

_GUIDE_TOKENS = 1500
"""Of a guide of 400 words and a little thinking. A model that thinks long writes ten times as much."""


def examples_tokens(rows: Sequence[Example]) -> int:
    """Return about how many tokens rows are in the first prompt."""
    return sum(estimate_tokens(_line(row)) for row in rows)


def writing_tokens(task: Task, examples: int) -> int:
    """Return about how many tokens a grimoire costs, read and written, in three calls. No model call.

    Args:
        task: its card stands in the prompt, and the more labels it has the longer the guide is.
        examples: the tokens of the examples that are shown, as `examples_tokens` counts them.
    """
    guide = _GUIDE_TOKENS * _words(task) // _WORDS
    first = estimate_tokens(profound_prompt(task, [])) + examples
    again = first + guide + estimate_tokens(_quoted(task.labels))
    return first + guide + again + guide + estimate_tokens(_simple_prompt(task, "")) + guide + guide // 3


def check_budget(tokens: int, budget: int | None) -> None:
    """Refuse a budget before anything is asked.

    Raises:
        InputError: the estimate is above it.
    """
    if budget is not None and tokens > budget:
        raise InputError(f"The grimoire would cost about {tokens} strong tokens; the budget is {budget}")


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


def missing_labels(text: str, labels: Sequence[str]) -> list[str]:
    """Return the labels that `text` does not name, in their order.

    Case and amount of white space do not matter; "positive" is not found inside "very positive".
    """
    named = mentioned(text, labels)
    return [label for label in labels if label not in named]
