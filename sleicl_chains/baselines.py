"""The arms without a language model that stand in every table: `majority` and `probe`."""

from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from langchain_core.runnables import Runnable, RunnableLambda

from sleicl_chains.answers import Answer
from sleicl_chains.errors import InputError
from sleicl_chains.tasks import Example, Task

if TYPE_CHECKING:
    from langchain_core.embeddings import Embeddings


BASELINES = ("majority", "probe")


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

    Multinomial logistic regression on unit vectors, its strength chosen among five by stratified
    cross-validation where every label has at least two rows. Fitted at the first question; no
    language model. No randomness beyond a fixed fold seed.

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
        from sleicl_chains.embedders import fingerprint

        return "".join([fingerprint(self.embeddings), *sorted(example.id for example in self.train)])

    @cached_property
    def model(self) -> Any:
        from sklearn.linear_model import LogisticRegression
        from sklearn.model_selection import GridSearchCV, StratifiedKFold

        from sleicl_chains.embedders import embed

        vectors = embed(self.embeddings, [example.text for example in self.train])
        answers = [example.answer for example in self.train]
        regression = LogisticRegression(C=10.0, max_iter=2000)
        folds = min(5, min(Counter(answers).values()))
        if len(set(answers)) > 1 and folds > 1:
            splits = StratifiedKFold(folds, shuffle=True, random_state=0)
            regression = GridSearchCV(regression, {"C": [0.1, 1.0, 10.0, 100.0, 1000.0]}, cv=splits)
        return regression.fit(vectors, answers) if len(set(answers)) > 1 else None

    def answer(self, question: str) -> Answer:
        from sleicl_chains.embedders import embed

        if self.model is None:
            shares = {self.train[0].answer: 1.0}
        else:
            found = self.model.predict_proba(embed(self.embeddings, [question]))[0]
            shares = dict(zip(map(str, self.model.classes_), map(float, found), strict=True))
        scores = {label: shares.get(label, 0.0) for label in self.task.labels}
        label = max(scores, key=lambda name: scores[name])
        return Answer(label, label, valid=True, arm="probe", mode="none", probability=scores[label], scores=scores)


def _need_rows(arm: str, train: Sequence[Example]) -> None:
    if not train:
        raise InputError(f"The arm {arm!r} learns from training rows; give some with --train")


def _named(arm: str, answer: Any, settings: str) -> Runnable[str, Answer]:
    digest = sha256(settings.encode()).hexdigest()[:16]
    chain: Runnable[str, Answer] = RunnableLambda(answer, name=arm)
    return chain.with_config(run_name=arm, metadata={"arm": arm, "mode": "none", "prior": "none", "settings": digest})
