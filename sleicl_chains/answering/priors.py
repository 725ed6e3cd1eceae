"""Removing what a model thinks of the labels before it has read the question.

Small models favour some label words whatever is asked. Dividing by that preference, estimated on
inputs that say nothing or on many different ones, is the larger part of their accuracy.
"""

import random
from collections.abc import Iterable, Mapping, Sequence

from sleicl_chains.answering.shares import LEAST
from sleicl_chains.errors import InputError
from sleicl_chains.tasks.cards import Task
from sleicl_chains.tasks.labels import fold
from sleicl_chains.tasks.rows import Example
from sleicl_chains.tasks.splits import distinct, shuffled

CONTENT_FREE = ("N/A", "", "[MASK]")
"""Inputs without content, from "Calibrate Before Use" (arXiv 2102.09690, section 5)."""

MEAN_ROWS = 48
"""Training texts that the prior `mean` reads at most; one weak call each, once an arm."""


DOMAIN_TEXTS = 20
"""Texts of random words for the prior `domain`, as many as arXiv 2305.19148 (section 4) takes."""


def domain_texts(texts: Sequence[str], *, seed: int) -> list[str]:
    """Return texts of random in-domain words ("Mitigating Label Biases", arXiv 2305.19148, section 4).

    Each has as many words as the texts have on average, drawn with replacement from all of their words, so a
    frequent word comes often. Random by `seed` alone.

    Raises:
        InputError: the texts hold no words.
    """
    words = sorted(word for text in texts for word in text.split())
    if not words:
        raise InputError("The prior 'domain' needs training texts with words; give some, or use 'content-free'")
    # The mean number of words a text.
    length = max(1, round(len(words) / len(texts)))
    draw = random.Random(seed)
    return [" ".join(draw.choices(words, k=length)) for _ in range(DOMAIN_TEXTS)]


def mean_shares(scores: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """Return the mean probability of each label over several inputs.

    Over content-free inputs this is contextual calibration's prior (arXiv 2102.09690, section 5);
    over training texts it is batch calibration's (arXiv 2309.17249, equation 3), taken from
    training texts instead of the test batch.
    """
    rows = list(scores)
    return {label: sum(row[label] for row in rows) / len(rows) for label in rows[0]}


def remove_prior(scores: Mapping[str, float], prior: Mapping[str, float]) -> dict[str, float]:
    """Return p(label) / prior(label), scaled to add up to 1 (arXiv 2102.09690, section 5, with W = diag(1/prior))."""
    # Floored, so that a label which the prior gives nothing is not divided by 0.
    ratios = {label: share / max(prior[label], LEAST) for label, share in scores.items()}
    total = sum(ratios.values())
    return {label: ratio / total for label, ratio in ratios.items()} if total else dict(scores)


def prior_texts(train: Sequence[Example], task: Task, *, seed: int, shown: Iterable[Example] = ()) -> list[str]:
    """Choose the training texts for the prior `mean`: at most `MEAN_ROWS`, and of each label the same number.

    Balanced, so that a frequent label is not taken for the model's preference; a label with too few
    rows gives those it has. Texts that the prompt shows as examples are left out where others are
    there, since their answers stand beside them.
    """
    taken = {fold(example.text) for example in shown}
    rows = distinct(shuffled(train, seed))
    rows = [row for row in rows if fold(row.text) not in taken] or rows
    each = max(1, MEAN_ROWS // max(1, len(task.labels)))
    chosen = [row.text for label in task.labels for row in [r for r in rows if r.answer == label][:each]]
    return chosen[:MEAN_ROWS]  # with more labels than that, those that the card names first


def unlabelled_texts(texts: Sequence[str], *, seed: int) -> list[str]:
    """Choose the texts for the prior `mean` where nobody knows their answers: at most `MEAN_ROWS` different ones.

    Random by `seed`. They hold the labels in their own shares, so a label that is frequent among them is in part
    taken for the model's preference; with labelled rows `prior_texts` avoids that.
    """
    distinct_texts = list({fold(text): text for text in texts}.values())
    return random.Random(seed).sample(distinct_texts, min(MEAN_ROWS, len(distinct_texts)))


def chosen_texts(
    task: Task, train: Sequence[Example], texts: Sequence[str], *, seed: int, shown: Iterable[Example] = ()
) -> list[str]:
    """Choose the texts that a prior is estimated on: of those without answers where there are any, else of `train`."""
    return unlabelled_texts(texts, seed=seed) if texts else prior_texts(train, task, seed=seed, shown=shown)
