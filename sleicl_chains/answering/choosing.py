"""Which of several grimoires stands before a question: the two rankings of the paper (arXiv 2401.03385).

Similarity takes the grimoire whose text is nearest to the question. The classifier has seen which grimoires the weak
model was right with, on labelled rows, and takes the one that it will most likely be right with.
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, Protocol, get_args

import numpy as np
from langchain_core.embeddings import Embeddings
from langchain_core.runnables import Runnable, RunnableBinding, RunnableLambda, RunnableSerializable
from langchain_core.runnables.config import run_in_executor

from sleicl_chains.answering.fitting import on_one_thread
from sleicl_chains.answering.metadata import metadata_of
from sleicl_chains.answering.steps import checked_question
from sleicl_chains.answers import Answer
from sleicl_chains.errors import InputError, OptionError, RejectedReply
from sleicl_chains.hashes import short_hash
from sleicl_chains.models.embedders import embed, fingerprint
from sleicl_chains.tasks.rows import Example

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from sklearn.linear_model import LogisticRegression

Choose = Literal["similar", "classifier"]
STRENGTHS = (0.01, 0.1, 1.0, 10.0)
"""Inverse regularisation strengths that the classifier tries."""
FOLDS = 5

Chain = Runnable[str, Answer]


class Chooser(Protocol):
    """Says which grimoire, by place, and what decides that."""

    def __call__(self, question: str) -> int:
        """Return the place of the grimoire for a question."""

    @property
    def settings(self) -> str:
        """All that its choices follow from."""


@dataclass(frozen=True)
class BySimilarity:
    """Takes the grimoire whose text has the highest cosine with the question; of equal ones the first."""

    texts: tuple[str, ...]
    embeddings: Embeddings

    def __call__(self, question: str) -> int:
        """Return the place; costs one embedding."""
        return int(np.argmax(self.vectors @ embed(self.embeddings, [question], as_queries=True)[0]))

    @cached_property
    def vectors(self) -> "NDArray[np.float32]":
        """(n_grimoires, n_dims), rows of unit length."""
        return embed(self.embeddings, self.texts)

    @cached_property
    def apart(self) -> "NDArray[np.float32]":
        """How each differs from the mean of all, of unit length: grimoires of one task are otherwise much alike."""
        apart: NDArray[np.float32] = self.vectors - self.vectors.mean(axis=0)
        apart /= np.linalg.norm(apart, axis=1, keepdims=True).clip(1e-6)
        return apart

    @property
    def settings(self) -> str:
        """The texts and the embeddings."""
        return short_hash("similar", fingerprint(self.embeddings), *self.texts)


class ByClassifier:
    """Takes the grimoire with which the weak model will most likely be right, as a logistic regression has it.

    The regression reads the question's vector, how the grimoire's differs from the mean of all, and the product of the
    two, number by number. It is fitted at the first question on every pair of a labelled row and a grimoire, its
    strength chosen by five folds in which all pairs of a row lie together. Where the model was nearly always right, or
    wrong, nothing can be fitted: then it takes the grimoire that was right most often.

    Args:
        chains: the weak model with each grimoire, in order; fitting asks each of them about each row.
        rows: labelled rows, which must not be those that are answered later.
        similar: the grimoires' texts and the embeddings.
    """

    def __init__(self, chains: Sequence[Chain], rows: Sequence[Example], similar: BySimilarity) -> None:
        self._chains, self._rows, self._similar = tuple(chains), tuple(rows), similar
        self._lock = threading.Lock()
        self._model: LogisticRegression | int | None = None
        """The regression, or the one place where none could be fitted."""

    def __call__(self, question: str) -> int:
        """Return the place; costs one embedding."""
        model = self._fitted()
        if isinstance(model, int):
            return model
        vectors = embed(self._similar.embeddings, [question], as_queries=True)
        return int(np.argmax(model.decision_function(self._pairs(vectors))))

    @property
    def settings(self) -> str:
        """The texts, the embeddings and the rows."""
        return short_hash("classifier", self._similar.settings, *(row.id for row in self._rows))

    def _fitted(self) -> "LogisticRegression | int":
        with self._lock:
            if self._model is None:
                self._model = fit(self._pairs(self._questions()), self._outcomes())
            return self._model

    def _questions(self) -> "NDArray[np.float32]":
        return embed(self._similar.embeddings, [row.text for row in self._rows], as_queries=True)

    def _outcomes(self) -> "NDArray[np.bool_]":
        """(n_rows, n_grimoires): whether the weak model was right. Grimoire by grimoire: the prompt's front stays."""
        right = [[_is_right(chain, row) for row in self._rows] for chain in self._chains]
        return np.array(right).T

    def _pairs(self, questions: "NDArray[np.float32]") -> "NDArray[np.float32]":
        """(n_questions * n_grimoires, 3 * n_dims), the pairs of a question one after the other."""
        apart = self._similar.apart
        asked = np.repeat(questions, len(apart), axis=0)
        shown = np.tile(apart, (len(questions), 1))
        # The product of two unit vectors has a length of about 1 / sqrt(n_dims).
        return np.hstack([asked, shown, asked * shown * np.sqrt(asked.shape[1])])

    def __getstate__(self) -> dict[str, Any]:
        """Leave the lock out: chains are pickled and deep-copied."""
        return {name: value for name, value in self.__dict__.items() if name != "_lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ |= state | {"_lock": threading.Lock()}


@on_one_thread()
def fit(pairs: "NDArray[np.float32]", right: "NDArray[np.bool_]") -> "LogisticRegression | int":
    """Return a logistic regression of being right, or the place of the best column where there is too little to fit.

    Args:
        pairs: (n_rows * n_grimoires, n_features), the pairs of a row one after the other.
        right: (n_rows, n_grimoires).
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV, StratifiedGroupKFold

    # Each fold needs rows of both kinds to learn from and to be judged by.
    if min(right.any(axis=1).sum(), (~right).any(axis=1).sum()) < 2 * FOLDS:
        return int(right.sum(axis=0).argmax())
    rows = np.repeat(np.arange(len(right)), right.shape[1])
    cut = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=0).split(pairs, right.ravel(), rows)
    grid = {"C": STRENGTHS}
    search = GridSearchCV(LogisticRegression(max_iter=2000), grid, scoring="neg_log_loss", cv=list(cut))
    fitted: LogisticRegression = search.fit(pairs, right.ravel()).best_estimator_
    return fitted


def _is_right(chain: Chain, row: Example) -> bool:
    try:
        return chain.invoke(row.text).answer == row.answer
    except RejectedReply:
        return False


def chooser(
    choose: Choose, texts: Sequence[str], chains: Sequence[Chain], rows: Sequence[Example], embeddings: Embeddings
) -> Chooser:
    """Return what chooses among chains, each of which shows one of the texts.

    Raises:
        OptionError: there is no chooser of that name.
        InputError: the classifier has no labelled rows.
    """
    if choose not in get_args(Choose):
        raise OptionError(f"choose: found {choose!r}; expected {' or '.join(get_args(Choose))}")
    similar = BySimilarity(tuple(texts), embeddings)
    if choose == "similar":
        return similar
    if not rows:
        raise InputError("choose='classifier' learns from labelled rows; none were given (`train`)")
    return ByClassifier(chains, rows, similar)


@dataclass(frozen=True)
class Choosing:
    """Chains that each show a grimoire, and what chooses one of them for each question."""

    chains: tuple[Chain, ...]
    chooser: Chooser

    def answer(self, question: str) -> Answer:
        """Answer one question; `Answer.grimoire` tells which was shown."""
        return self.chains[self.chooser(checked_question(question))].invoke(question)

    async def aanswer(self, question: str) -> Answer:
        """Do the same without blocking."""
        place = await run_in_executor(None, self.chooser, checked_question(question))
        return await self.chains[place].ainvoke(question)


def choosing(chains: Sequence[Chain], choose: Chooser, *, name: str) -> RunnableSerializable[str, Answer]:
    """Return a chain that answers each question with the one that is chosen for it."""
    pair = Choosing(tuple(chains), choose)
    abouts = [metadata_of(chain) for chain in chains]
    digest = short_hash(choose.settings, *(str(about.get("settings")) for about in abouts))
    metadata = {**abouts[0], "arm": name, "settings": digest}
    asked = RunnableLambda(pair.answer, afunc=pair.aanswer, name=name)
    return RunnableBinding(bound=asked, config={"run_name": name, "metadata": metadata})
