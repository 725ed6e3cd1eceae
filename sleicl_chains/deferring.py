"""Handing uncertain questions to a strong model: the work of cloud and device together that the paper names as its use.

The weak model answers what it is sure of, at no cost; the strong one is paid for the rest.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import replace

from langchain_core.language_models import BaseChatModel
from langchain_core.runnables import Runnable, RunnableLambda

from sleicl_chains.answers import NO_STRONG_ANSWER, Answer
from sleicl_chains.errors import OptionError, RejectedReply
from sleicl_chains.journal import Journal
from sleicl_chains.observer import Observer
from sleicl_chains.solving import Solver, chain_of
from sleicl_chains.tasks import Task


def deferring(
    chain: Runnable[str, Answer], strong: BaseChatModel, task: Task, *, below: float, journal: Journal | None = None
) -> Runnable[str, Answer]:
    """Return a chain that asks the strong model again wherever the weak one is not sure.

    A question goes on if its answer is not valid, has no probability, or one below `below`. It costs one
    strong call, whose tokens stand in `Answer.usage` as `strong_prompt_tokens` and `strong_reply_tokens`. Where the
    strong reply names no label or is refused, as an empty one is, the weak answer stays, with a note; it is not
    `deferred`, but what the strong call cost stands in its usage, as far as that is known.

    Raises:
        OptionError: `below` is no probability.
    """
    if not 0 <= below <= 1:
        raise OptionError(f"defer_below: found {below:g}; expected a probability from 0 to 1")
    second = chain_of(Solver(Observer(strong, task, "zero-shot", journal=journal), "generate", "none"))

    def answer(question: str) -> Answer:
        first = chain.invoke(question)
        if _is_sure(first, below):
            return first
        try:
            return _merged(first, second.invoke(question))
        except RejectedReply as problem:
            return _kept(first, problem)

    async def aanswer(question: str) -> Answer:
        first = await chain.ainvoke(question)
        if _is_sure(first, below):
            return first
        try:
            return _merged(first, await second.ainvoke(question))
        except RejectedReply as problem:
            return _kept(first, problem)

    metadata = dict((getattr(chain, "config", None) or {}).get("metadata") or {})
    other = (getattr(second, "config", None) or {})["metadata"]["settings"]
    parts = f"{metadata.get('settings')} {other} {below}"
    metadata["settings"] = hashlib.sha256(parts.encode()).hexdigest()[:16]
    name = str(metadata.get("arm") or "deferring")
    return RunnableLambda(answer, afunc=aanswer, name=name).with_config(run_name=name, metadata=metadata)


def _is_sure(answer: Answer, below: float) -> bool:
    return answer.valid and answer.probability is not None and answer.probability >= below


def _kept(weak: Answer, problem: RejectedReply) -> Answer:
    """Return the weak answer where the strong reply was refused."""
    return replace(weak, usage=_both(weak, problem.usage), note=f"{NO_STRONG_ANSWER}: {problem}")


def _merged(weak: Answer, strong: Answer) -> Answer:
    """Return the strong answer with what both cost; its probability is not known."""
    usage, seconds = _both(weak, strong.usage), weak.seconds + strong.seconds
    if not strong.valid:
        return replace(weak, usage=usage, seconds=seconds, note=NO_STRONG_ANSWER)
    return replace(
        weak, label=strong.label, text=strong.text, valid=True, probability=None, scores={}, coverage=None, unseen=(),
        usage=usage, seconds=seconds, note=strong.note, deferred=True,
    )  # fmt: skip


def _both(weak: Answer, strong: Mapping[str, int]) -> dict[str, int]:
    return dict(weak.usage) | {f"strong_{key}": count for key, count in strong.items()}
