"""The arms without a language model that stand in every table: `majority` and `probe`."""

from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from langchain_core.runnables import Runnable, RunnableLambda

from sleicl_chains.answering.evidence import Observation
from sleicl_chains.answers import Answer
from sleicl_chains.errors import InputError
from sleicl_chains.hashes import short_hash
from sleicl_chains.tasks.cards import Task
from sleicl_chains.tasks.rows import Example
from sleicl_chains.tasks.texts import whole_text

if TYPE_CHECKING:
    from langchain_core.embeddings import Embeddings

    from sleicl_chains.answering.readers import LinearReader


def majority(task: Task, train: Sequence[Example]) -> Runnable[str, Answer]:
    """Return a chain that always answers with the most frequent answer of `train`.

    Ties go to the label that the card names first. No model calls.

    Raises:
        InputError: there are no training rows.
    """
    _need_rows("majority", train)
    counts = Counter(example.answer for example in train)
    order = {label: place for place, label in enumerate(task.labels)}
    top = min(counts, key=lambda answer: (-counts[answer], order.get(answer, 0), answer))
    label = top if task.labels else None
    said = Answer(label=label, text=top, valid=True, arm="majority", mode="none")
    return _named("majority", lambda question: said, top)


def probe(task: Task, train: Sequence[Example], embeddings: "Embeddings") -> Runnable[str, Answer]:
    """Return a linear classifier on embeddings: what a sceptic tries first.

    The linear reader of the modes `hidden`, `fusion` and `blend` (see `fitting.fit_linear`) with nothing but the
    question's embedding to read. Fitted at the first question; no language model. No randomness beyond a fixed
    fold seed.

    Raises:
        InputError: there are no training rows, or the task is open-ended.
    """
    _need_rows("probe", train)
    if not task.labels:
        raise InputError("The arm 'probe' needs a task with labels; leave it out of --arms for an open-ended task")
    # In an order of their own: the folds of the cross-validation follow it.
    fitted = _Probe(task, tuple(sorted(train, key=lambda example: example.id)), embeddings)
    return _named("probe", fitted.answer, fitted.settings)


class _Probe:
    def __init__(self, task: Task, train: tuple[Example, ...], embeddings: "Embeddings") -> None:
        self.task, self.train, self.embeddings = task, train, embeddings

    @property
    def settings(self) -> str:
        from sleicl_chains.models.embedders import fingerprint

        return "".join(["linear", fingerprint(self.embeddings), *sorted(example.id for example in self.train)])

    @cached_property
    def reader(self) -> "LinearReader":
        from sleicl_chains.answering.fitting import fit_linear

        seen = self._seen([example.text for example in self.train])
        return fit_linear(seen, [example.answer for example in self.train], ("vector",), self.task.labels)

    def answer(self, question: str) -> Answer:
        from sleicl_chains.answering.shares import likeliest

        scores = self.reader.shares(self._seen([whole_text(question, "the question")])[0])
        label, share = likeliest(scores)
        return Answer(label, label, valid=True, arm="probe", mode="none", probability=share, scores=scores)

    def _seen(self, texts: Sequence[str]) -> list[Observation]:
        from sleicl_chains.models.embedders import embed

        return [Observation(vector=[float(x) for x in vector]) for vector in embed(self.embeddings, texts)]


def _need_rows(arm: str, train: Sequence[Example]) -> None:
    if not train:
        raise InputError(f"The arm {arm!r} learns from training rows; give some with --train")


def _named(arm: str, answer: Any, settings: str) -> Runnable[str, Answer]:
    digest = short_hash(settings)
    chain: Runnable[str, Answer] = RunnableLambda(answer, name=arm)
    return chain.with_config(run_name=arm, metadata={"arm": arm, "mode": "none", "prior": "none", "settings": digest})
