"""Handing uncertain questions to a strong model: the work of cloud and device together that the paper names as its use.

The weak model answers what it is sure of, at no cost; the strong one is paid for the rest.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from langchain_core.language_models import BaseChatModel
from langchain_core.runnables import Runnable, RunnableBinding, RunnableLambda, RunnableSerializable

from sleicl_chains.answering.arms import Arm
from sleicl_chains.answering.chains import chain_of
from sleicl_chains.answering.metadata import metadata_of
from sleicl_chains.answering.observer import Observer
from sleicl_chains.answering.steps import Solver
from sleicl_chains.answers import NO_STRONG_ANSWER, Answer
from sleicl_chains.errors import OptionError, RejectedReply
from sleicl_chains.hashes import short_hash
from sleicl_chains.models.journal import Journal
from sleicl_chains.tasks.cards import Task


def deferring(
    chain: Runnable[str, Answer], strong: BaseChatModel, task: Task, *, below: float, journal: Journal | None = None
) -> RunnableSerializable[str, Answer]:
    """Return a chain that asks the strong model again wherever the weak one is not sure.

    A question goes on if its answer is not valid, has no probability, or one below `below`. It costs one
    strong call, whose tokens stand in `Answer.usage` as `strong_prompt_tokens` and `strong_reply_tokens`. Where the
    strong reply names no label or is refused, as an empty or a cut one is, the weak answer stays, with a note; it is
    not `deferred`, but what the strong call cost stands in its usage, as far as that is known. The strong model is
    asked again the next time.

    Raises:
        OptionError: `below` is no probability.
    """
    if not 0 <= below <= 1:
        raise OptionError(f"defer_below: found {below:g}; expected a probability from 0 to 1")
    second = chain_of(Solver(Observer(strong, task, Arm(), journal=journal), "generate", whole=True))
    pair = Deferring(chain, second, below)
    metadata = dict(metadata_of(chain))
    other = metadata_of(second)["settings"]
    parts = f"{metadata.get('settings')} {other} {below}"
    metadata["settings"] = short_hash(parts)
    name = str(metadata.get("arm") or "deferring")
    asked = RunnableLambda(pair.answer, afunc=pair.aanswer, name=name)
    return RunnableBinding(bound=asked, config={"run_name": name, "metadata": metadata})


@dataclass(frozen=True)
class Deferring:
    """A weak chain, and the strong one that is asked where it is not sure."""

    weak: Runnable[str, Answer]
    strong: Runnable[str, Answer]
    below: float

    def answer(self, question: str) -> Answer:
        """Answer one question."""
        try:
            first = self.weak.invoke(question)
        except RejectedReply as problem:
            first = _refused(problem)
        if self._is_sure(first):
            return first
        try:
            return _merged(first, self.strong.invoke(question))
        except RejectedReply as problem:
            return _kept(first, problem)

    async def aanswer(self, question: str) -> Answer:
        """Do the same without blocking."""
        try:
            first = await self.weak.ainvoke(question)
        except RejectedReply as problem:
            first = _refused(problem)
        if self._is_sure(first):
            return first
        try:
            return _merged(first, await self.strong.ainvoke(question))
        except RejectedReply as problem:
            return _kept(first, problem)

    def _is_sure(self, answer: Answer) -> bool:
        return answer.valid and answer.probability is not None and answer.probability >= self.below


def _refused(problem: RejectedReply) -> Answer:
    """Return what stands for a weak reply that was refused: no answer, so the question goes on."""
    read = problem.answer
    found = read if isinstance(read, Answer) else Answer(label=None, text="", valid=False, usage=problem.usage)
    return replace(found, note=str(problem))


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
