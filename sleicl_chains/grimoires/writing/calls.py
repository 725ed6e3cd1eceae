"""The strong model's calls for one grimoire: what it is asked, and what of its replies is taken.

A reply is checked before it is accepted. Nothing is stored that is empty, cut or unfinished; see `replies`.
"""

import json
import re
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sleicl_chains.models.replies import Cleaned, check_text
from sleicl_chains.prompts import fill
from sleicl_chains.tasks.cards import Task
from sleicl_chains.tasks.labels import mentioned
from sleicl_chains.tasks.rows import Example

if TYPE_CHECKING:  # LangChain's messages take a quarter of a second to load
    from langchain_core.messages import AIMessage, BaseMessage

    Call = tuple[list[BaseMessage], AIMessage]

GUIDE_WORDS = 400
"""Of a guide for at most twenty labels."""
_WORDS_PER_LABEL, _LABELS_PER_RULE = 20, 7


@dataclass(frozen=True)
class Written:
    """What all calls together gave."""

    profound: Cleaned
    simple: Cleaned
    calls: "tuple[Call, ...]"
    """Each prompt with its reply, in order."""


def steps(task: Task, examples: Sequence[Example]) -> "Generator[list[BaseMessage] | Written, AIMessage, None]":
    """Yield prompts, take a checked reply for each, and yield what was written at last.

    A generator, so that the synchronous and the asynchronous chain share every line but the call.
    """
    from langchain_core.messages import AIMessage, HumanMessage

    calls: list[Call] = []
    prompt: list[BaseMessage] = [HumanMessage(profound_prompt(task, examples))]
    calls.append((prompt, (yield prompt)))
    profound = check_text(calls[-1][1])
    if missing := missing_labels(profound.text, task.labels):
        again = f"The guide does not name {quoted(missing)}. Write all of it again and name every possible answer."
        prompt = [*prompt, AIMessage(profound.text), HumanMessage(again)]
        calls.append((prompt, (yield prompt)))
        profound = check_text(calls[-1][1])
    prompt = [HumanMessage(simple_prompt(task, profound.text))]
    calls.append((prompt, (yield prompt)))
    yield Written(profound, check_text(calls[-1][1]), tuple(calls))


def profound_prompt(task: Task, examples: Sequence[Example]) -> str:
    """Return the first prompt, as the strong model gets it."""
    rows = "\n".join(map(example_line, examples))
    return fill(
        "write_profound",
        task_type=task.task_type,
        description=task.description,
        labels=quoted(task.labels) or "none are listed; the answer is free text",
        examples=rows,
        fence=_fence("examples", rows),
        words=str(guide_words(task)),
    )


def simple_prompt(task: Task, profound: str) -> str:
    """Return the last prompt, which asks for the profound text in a few rules."""
    rules = max(3, len(task.labels) // _LABELS_PER_RULE)
    fence = _fence("guide", profound)
    return fill("write_simple", profound=profound, fence=fence, rules="three" if rules == 3 else str(rules))


def example_line(row: Example) -> str:
    """Return a row as it stands in the first prompt."""
    return json.dumps({"text": row.text, "answer": row.answer}, ensure_ascii=False)


def guide_words(task: Task) -> int:
    """Return how many words the guide may have: more for more than twenty labels, since it must name them all."""
    return max(GUIDE_WORDS, _WORDS_PER_LABEL * len(task.labels))


def quoted(labels: Sequence[str]) -> str:
    """Return labels as the prompts list them."""
    return ", ".join(f'"{label}"' for label in labels)


def _fence(what: str, text: str) -> str:
    """Return a fence that no line of the text closes: three signs, or one more than the longest that looks like it."""
    alike = re.findall(rf"^[ \t]*(={{3,}})[ \t]*{what}", text, re.MULTILINE | re.IGNORECASE)
    return "=" * max([3, *(len(found) + 1 for found in alike)])


def missing_labels(text: str, labels: Sequence[str]) -> list[str]:
    """Return the labels that `text` does not name, in their order.

    Case and amount of white space do not matter; "positive" is not found inside "very positive".
    """
    named = mentioned(text, labels)
    return [label for label in labels if label not in named]
