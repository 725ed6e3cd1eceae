"""Fitting readers and calibrations on labelled rows: small linear models, their strength chosen by cross-validation."""

import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from sleicl_chains.answering.evidence import Observation, features
from sleicl_chains.answering.readers import AffineReader, BlendReader, LinearReader, Reader
from sleicl_chains.answering.readings import Block, Mode
from sleicl_chains.answering.shares import LEAST, log_softmax, softmax
from sleicl_chains.tasks.splits import balance, folds

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

STRENGTHS = (0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
"""Inverse regularisation strengths of the linear model, for blocks of total variance 1 each."""
TRUSTS = (0.01, 0.1, 1.0)
"""How strongly an affine correction is held to that of the prior `mean`."""
_CONSTANT = 1e-6
"""Spread of a feature, as a share of the largest value of its block, up to which it counts as constant."""


@contextmanager
def on_one_thread() -> Iterator[None]:
    """Keep linear algebra on one thread.

    In matrices of a hundred rows several threads do little but wait for each other: beside other work on two cores a
    fit took 16 times as long. And on one thread sums are formed in one order, however many cores there are.
    """
    import sklearn.linear_model  # noqa: F401  # first: only libraries that are loaded are held
    from sklearn import config_context
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # it has no types

    # The parameters of hundreds of small fits are the same; to check each anew is a seventh of their time.
    with threadpool_limits(1), config_context(skip_parameter_validation=True), warnings.catch_warnings():
        # Rows of many labels look to scikit-learn like a regression, and it says so at every fit.
        warnings.filterwarnings("ignore", "The number of unique classes is greater than", UserWarning)
        yield


@on_one_thread()
def fit_affine(seen: Sequence[Observation], answers: Sequence[str], labels: Sequence[str]) -> AffineReader:
    """Fit a slope and an offset for each label on labelled rows (arXiv 2505.23783), all labels weighing alike.

    The loss is the cross-entropy plus trust * (sum of squared steps away from slope 1 and the offset of the prior
    `mean`); the trust is chosen by cross-validation. No randomness beyond a fixed fold seed.
    """
    logs = features(seen, ("scores",), labels)
    gold = np.array([list(labels).index(answer) for answer in answers])
    weight = balance(answers)
    losses = dict.fromkeys(TRUSTS, 0.0)
    for train, held in folds(answers):
        for trust in losses:
            slopes, offsets = _affine(logs[train], gold[train], weight[train], trust)
            chances = log_softmax(logs[held] * slopes + offsets)
            losses[trust] -= float((weight[held] * chances[np.arange(len(held)), gold[held]]).sum())
    best = min(reversed(TRUSTS), key=lambda trust: losses[trust])  # without folds the strongest
    slopes, offsets = _affine(logs, gold, weight, best)
    return AffineReader(tuple(labels), tuple(map(float, slopes)), tuple(map(float, offsets)))


def _affine(logs: "Array", gold: "NDArray[np.int_]", weight: "Array", trust: float) -> tuple["Array", "Array"]:
    from scipy.optimize import minimize

    n, k = logs.shape
    # Where it starts and is held to: slope 1, and as offset minus the logarithm of the mean share of each label, which
    # is division by the prior `mean` (batch calibration, arXiv 2309.17249, equation 3).
    chances = np.exp(log_softmax(logs))
    offset = -np.log(np.maximum((weight[:, None] * chances).sum(0) / weight.sum(), LEAST))
    hit = np.zeros((n, k))
    hit[np.arange(n), gold] = 1.0

    def loss(point: "Array") -> tuple[float, "Array"]:
        slopes, offsets = point[:k], point[k:]
        # Weighted cross-entropy of softmax(slope * log p + offset), plus trust * |step|^2.
        log_chances = log_softmax(logs * slopes + offsets)
        step = np.concatenate([slopes - 1.0, offsets - offset])
        # Its gradient: for each row and label the share, less 1 at the right one; for slopes that times log p.
        gap = weight[:, None] * (np.exp(log_chances) - hit) / weight.sum()
        slope_gap, offset_gap = (gap * logs).sum(0), gap.sum(0)
        value = -float((weight[:, None] * hit * log_chances).sum()) / weight.sum() + trust * float(step @ step)
        return value, np.concatenate([slope_gap, offset_gap]) + 2 * trust * step

    start = np.concatenate([np.ones(k), offset])
    found = minimize(loss, start, jac=True, method="L-BFGS-B").x
    return found[:k], found[k:]


def fit_linear(
    seen: Sequence[Observation], answers: Sequence[str], blocks: Sequence[Block], labels: Sequence[str]
) -> LinearReader:
    """Fit a logistic regression on blocks of evidence, all labels weighing alike; see `fit_linear_held_out`."""
    return fit_linear_held_out(seen, answers, blocks, labels)[0]


@on_one_thread()
def fit_linear_held_out(
    seen: Sequence[Observation], answers: Sequence[str], blocks: Sequence[Block], labels: Sequence[str]
) -> tuple[LinearReader, list[dict[str, float]]]:
    """Fit a logistic regression on blocks of evidence, and say what each row gets from a fit that had not seen it.

    Each feature is standardised and each block scaled to a total variance of 1, so that a block of six
    numbers is not drowned by one of a thousand. The strength of the L2 penalty is chosen by cross-validated
    log-loss. With more features than rows the fit is made in the space that the rows span, which gives the same
    model. No randomness beyond a fixed fold seed.

    Returns:
        The reader, and for each row its shares from the folds without it, at the strength that the reader has. One
        cross-validation serves both, which flatters these shares by the best of six strengths.
    """
    rows, mean, scale = _standardised(seen, blocks, labels)
    known = _known(labels, answers)
    if len(known) == 1:
        weights, offsets, logs = np.zeros((1, rows.shape[1])), np.zeros(1), np.zeros((len(rows), 1))
    else:
        small, axes = _spanned(rows)
        strength, logs = _held_out(small, answers, known)
        weights, offsets = _weights(_logistic(small, np.array(answers), strength), known)
        weights = weights @ axes
    reader = LinearReader(
        known, tuple(blocks), _floats(mean), _floats(scale), tuple(map(_floats, weights)), _floats(offsets),
        tuple(labels),
    )  # fmt: skip
    return reader, [dict.fromkeys(labels, 0.0) | softmax(known, row) for row in logs]


def fit_reader(
    mode: Mode, seen: Sequence[Observation], answers: Sequence[str], groups: Sequence[Sequence[Block]],
    labels: Sequence[str],
) -> Reader:  # fmt: skip
    """Fit what a mode reads answers with, on labelled rows.

    For `score` that is the affine correction, else a linear reader of each group of evidence, each with a strength of
    its own; several are blended.
    """
    if mode == "score":
        return fit_affine(seen, answers, labels)
    parts = tuple(fit_linear(seen, answers, group, labels) for group in groups)
    return parts[0] if len(parts) == 1 else BlendReader(parts)


def _known(labels: Sequence[str], answers: Sequence[str]) -> tuple[str, ...]:
    return tuple(label for label in labels if label in set(answers))


def _standardised(
    seen: Sequence[Observation], blocks: Sequence[Block], labels: Sequence[str]
) -> tuple["Array", "Array", "Array"]:
    """Return the features less their mean and divided by their scale, that mean, and that scale."""
    raw = features(seen, blocks, labels)
    mean, spread = raw.mean(axis=0), raw.std(axis=0)
    sizes = [len(features(seen[:1], (block,), labels)[0]) for block in blocks]
    # A spread that rounding may have made tells nothing; scaled up, it would decide the answer.
    largest = [np.abs(part).max(initial=0.0) for part in np.split(raw, np.cumsum(sizes)[:-1], axis=1)]
    least = np.maximum(1e-9, _CONSTANT * np.repeat(largest, sizes))
    scale = np.where(spread > least, spread, 1.0) * np.sqrt(np.repeat(sizes, sizes))
    return (raw - mean) / scale, mean, scale


def _spanned(rows: "Array") -> tuple["Array", "Array"]:
    """Return the rows in the space that they span, and its axes."""
    _, sizes, axes = np.linalg.svd(rows, full_matrices=False)
    axes = axes[: max(1, int((sizes > 1e-9 * sizes[0]).sum()))]  # one where the evidence never changes
    return rows @ axes.T, axes


def _held_out(rows: "Array", answers: Sequence[str], known: Sequence[str]) -> tuple[float, "Array"]:
    """Return the strength of least held-out loss and its held-out log-probabilities, a row a row.

    Without folds the strength is a middling one. A row that was never held out, and a label that the other folds
    lack, get a blind guess.
    """
    gold, weight = np.array(answers), balance(answers)
    column = {label: at for at, label in enumerate(known)}
    logs = {strength: np.full((len(rows), len(known)), _BLIND) for strength in STRENGTHS}
    parts = folds(answers)
    for train, held in parts:
        for strength, table in logs.items():
            model = _logistic(rows[train], gold[train], strength)
            columns = np.array([column[label] for label in model.classes_])
            table[np.ix_(held, columns)] = model.predict_log_proba(rows[held])
    places = np.array([column[answer] for answer in answers])
    losses = {strength: -float(weight @ table[np.arange(len(rows)), places]) for strength, table in logs.items()}
    best = min(STRENGTHS, key=lambda strength: losses[strength]) if parts else 3.0
    return best, logs[best]


_BLIND = math.log(1e-3)


def _weights(model: Any, known: Sequence[str]) -> tuple["Array", "Array"]:
    """Return a fitted model's weights and offsets, a row a label in the order of `known`."""
    weights, offsets = model.coef_, model.intercept_
    if len(known) == 2:  # scikit-learn keeps one row for two labels
        weights, offsets = np.vstack([-weights / 2, weights / 2]), np.array([-offsets[0] / 2, offsets[0] / 2])
    order = [list(model.classes_).index(label) for label in known]
    return weights[order], offsets[order]


def _logistic(rows: "Array", gold: Any, strength: float) -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=strength, class_weight="balanced", max_iter=2000).fit(rows, gold)


def _floats(values: "Array") -> tuple[float, ...]:
    return tuple(map(float, values))
