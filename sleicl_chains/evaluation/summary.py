"""The table that is computed from answered rows: a line an arm, and a grimoire compared with none."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from sleicl_chains.answering.arms import asks_a_model, names_grimoire
from sleicl_chains.evaluation.answered import AnsweredRow, row_keys
from sleicl_chains.statistics import (
    expected_calibration_error,
    macro_f1,
    mcnemar,
    paired_difference,
    risk_coverage,
    wilson,
)
from sleicl_chains.tasks.cards import Task
from sleicl_chains.tasks.labels import fold
from sleicl_chains.tasks.rows import Example

Difference = tuple[float, float, float] | tuple[None, None, None]
"""Of two accuracies on the same rows, with its interval; None where there is nothing to compare with."""


@dataclass(frozen=True)
class ArmResult:
    """One line of the table. Rates are over all n rows."""

    arm: str
    mode: str
    prior: str
    accuracy: float
    low: float
    high: float
    macro_f1: float | None
    """None for an open-ended task."""
    valid: float
    coverage: float | None
    """Mean probability of all labels together before renormalising, of the weak model's answers that have one; None
    outside mode `score`."""
    difference: float | None
    """Accuracy less that of the run's own zero-shot arm; None without one, and for that arm itself."""
    difference_low: float | None
    difference_high: float | None
    prompt_tokens_total: int
    seconds_total: float
    failed: int = 0
    """Rows without an answer because the prompt was too long or the reply was rejected; they count as wrong."""
    unseen: float = 0.0
    """Mean share of the labels that were out of sight and scored by a floor (Ollama shows 20 tokens)."""
    calibration_error: float | None = None
    """How far probabilities are from accuracies, 0 to 1; None unless each valid answer of the weak model has one."""
    risk_area: float | None = None
    """Mean share of wrong answers when the least sure are left out, over all shares left out; None likewise."""
    deferred: float = 0.0
    """Share of the rows that a strong model answered, since the weak one was not sure enough."""
    strong_prompt_tokens_total: int = 0
    strong_reply_tokens_total: int = 0
    grimoire: str | None = None
    """Id of the grimoire that the arm shows, as its rows note it."""
    seen: int = 0
    """Evaluated rows that the arm owes something to: its grimoire was written from them, its reader or recipe learned
    from them, or they are among the rows that it shows. They flatter its figures."""

    @property
    def shows_grimoire(self) -> bool:
        """Whether the arm shows a grimoire: by its name, or like a recipe by what its rows note."""
        return names_grimoire(self.arm) or self.grimoire is not None

    @property
    def reading(self) -> str:
        """How answers are read: the mode, and what was taken off the scores."""
        mode = "" if self.mode == "none" else self.mode
        return mode if self.prior in ("none", "") else f"{mode} / {self.prior}"

    @property
    def asked_strong(self) -> bool:
        """Whether a strong model was asked, if only in vain."""
        return bool(self.deferred or self.strong_prompt_tokens_total or self.strong_reply_tokens_total)


@dataclass(frozen=True)
class Comparison:
    """Two arms of one run, both picked on the very rows that they are compared on, so in favour of the winner.

    See `compare` for how they are picked.
    """

    best_with: str
    best_without: str
    difference: float
    """Accuracy with less accuracy without, paired."""
    low: float
    high: float
    p: float
    """Exact two-sided McNemar test: how often the rows on which they differ would split so by chance."""


@dataclass(frozen=True)
class Report:
    """What an evaluation found."""

    task: str
    n: int
    weak: str
    train_rows: int
    majority: float | None
    """Accuracy of train's most frequent label; None when the run has no such arm."""
    arms: list[ArmResult]
    grimoire: "Comparison | None" = None
    """The best arm with a grimoire against the best without; None when the run lacks one or the other."""
    run: str = ""
    """The folder with the rows; empty when nothing was kept."""
    notes: list[str] = field(default_factory=list)
    """What a reader of the table should know. They hold no text of a question, a reply or a grimoire."""

    @property
    def defers(self) -> bool:
        """Whether a strong model was asked about any row."""
        return any(arm.asked_strong for arm in self.arms)

    def to_dict(self) -> dict[str, Any]:
        """Return the object that `sleicl evaluate --json` prints."""
        return asdict(self)


def summarise(
    rows: Sequence[AnsweredRow],
    examples: Sequence[Example],
    arms: Sequence[str],
    task: Task | None = None,
    seen: Mapping[str, int] | None = None,
) -> dict[str, Any]:
    """Return the table's part of a `Report`; every arm must have answered every row.

    `seen` says by arm how many of the rows it owes something to.
    """
    labels = task.labels if task else tuple(sorted({example.answer for example in examples}))
    ordered = _ordered(rows, row_keys(examples), arms)
    return tabulate(ordered, labels, name=task.name if task else "", seen=seen)


def tabulate(
    ordered: Mapping[str, list[AnsweredRow]],
    labels: Sequence[str],
    *,
    name: str = "",
    seen: Mapping[str, int] | None = None,
) -> dict[str, Any]:
    """Return the table's part of a `Report`.

    Args:
        ordered: by arm, the same rows in the same order; at least one of each.
        labels: the task's; none for an open-ended one.
        name: of the task.
        seen: by arm, how many of the rows it owes something to.
    """
    right = {arm: [is_right(row.prediction, row.gold, labels) for row in found] for arm, found in ordered.items()}
    found = [
        _summarise_arm(arm, found, labels, right[arm], less_zero_shot(arm, right)) for arm, found in ordered.items()
    ]
    results = [replace(arm, seen=(seen or {}).get(arm.arm, 0)) for arm in found]
    top = next((result.accuracy for result in results if result.arm == "majority"), None)
    n = len(next(iter(ordered.values())))
    return {"task": name, "n": n, "majority": top, "arms": results, "grimoire": compare(right, results)}


def _ordered(rows: Sequence[AnsweredRow], keys: Sequence[str], arms: Sequence[str]) -> dict[str, list[AnsweredRow]]:
    """Return each arm's rows in the order of the keys; of two of one key the later counts."""
    by_arm: dict[str, dict[str, AnsweredRow]] = {arm: {} for arm in arms}
    for row in rows:
        if row.arm in by_arm:
            by_arm[row.arm][row.row] = row
    return {arm: [found[key] for key in keys] for arm, found in by_arm.items()}


def compare(right: Mapping[str, list[bool]], arms: Sequence[ArmResult]) -> Comparison | None:
    """Return the best arm with a grimoire compared with the best without; None where either kind is missing.

    Two arms that owe nothing to the evaluated rows go before others, then two that are read in the same way: only
    between such arms is the difference the grimoire's. A tie goes to the earlier arm.

    Args:
        right: by arm, whether each answer is right.
        arms: what they are.
    """
    models = [arm for arm in arms if asks_a_model(arm.arm)]
    shown = [arm for arm in models if arm.shows_grimoire]
    pairs = [(arm, other) for arm in shown for other in models if not other.shows_grimoire]
    if not pairs:
        return None

    def rank(pair: tuple[ArmResult, ArmResult]) -> tuple[bool, bool, int, int]:
        one, other = pair
        return not (one.seen or other.seen), one.reading == other.reading, sum(right[one.arm]), sum(right[other.arm])

    best, other = (arm.arm for arm in max(pairs, key=rank))
    return Comparison(best, other, *paired_difference(right[best], right[other]), mcnemar(right[best], right[other]))


def less_zero_shot(arm: str, right: Mapping[str, list[bool]]) -> Difference:
    """Return an arm's accuracy minus that of the arm `zero-shot`, with its interval.

    `right` says by arm whether each answer is right. None where there is no zero-shot, and for that arm itself.
    """
    if arm == "zero-shot" or "zero-shot" not in right:
        return None, None, None
    return paired_difference(right[arm], right["zero-shot"])


def is_right(prediction: str | None, gold: str, labels: Sequence[str]) -> bool:
    """Say whether an answer is right; in an open-ended task case, white space and a final full stop do not count."""
    if labels or prediction is None:
        return prediction == gold
    return fold(prediction).rstrip(".") == fold(gold).rstrip(".")


def _summarise_arm(
    arm: str, rows: list[AnsweredRow], labels: Sequence[str], right: list[bool], difference: Difference
) -> ArmResult:
    low, high = wilson(sum(right), len(rows))
    covered = [row.coverage for row in rows if row.coverage is not None and not row.deferred]
    first = next((row for row in rows if row.mode), rows[0])
    sure = confidences(rows, right)

    def tokens(kind: str) -> int:
        return sum(row.usage.get(kind, 0) for row in rows)

    return ArmResult(
        arm=arm,
        mode=first.mode,
        prior=first.prior,
        accuracy=sum(right) / len(rows),
        low=low,
        high=high,
        macro_f1=macro_f1([r.gold for r in rows], [r.prediction for r in rows], labels) if labels else None,
        valid=sum(row.valid for row in rows) / len(rows),
        coverage=sum(covered) / len(covered) if covered else None,
        difference=difference[0],
        difference_low=difference[1],
        difference_high=difference[2],
        prompt_tokens_total=tokens("prompt_tokens"),
        seconds_total=round(sum(row.seconds for row in rows), 3),
        failed=sum(row.note.startswith("failed") for row in rows),
        unseen=sum(len(row.unseen) for row in rows) / (len(rows) * max(1, len(labels))),
        calibration_error=expected_calibration_error(*sure) if sure else None,
        risk_area=risk_coverage(*sure)[1] if sure else None,
        deferred=sum(row.deferred for row in rows) / len(rows),
        strong_prompt_tokens_total=tokens("strong_prompt_tokens"),
        strong_reply_tokens_total=tokens("strong_reply_tokens"),
        grimoire=grimoire_of(rows),
    )


def grimoire_of(rows: Sequence[AnsweredRow]) -> str | None:
    """Return the id of the grimoire that an arm's rows note; None where they note none."""
    return next((row.grimoire for row in rows if row.grimoire), None)


def confidences(rows: Sequence[AnsweredRow], right: Sequence[bool]) -> tuple[list[float], list[bool]] | None:
    """Return the probability of each valid answer and whether it is right; None unless each has a probability.

    What a strong model answered is left out: its probability is not known.
    """
    pairs = zip(rows, right, strict=True)
    valid = [(row.probability, hit) for row, hit in pairs if row.valid and not row.deferred]
    known = [(probability, hit) for probability, hit in valid if probability is not None]
    if not valid or len(known) < len(valid):
        return None
    return [probability for probability, _ in known], [hit for _, hit in known]
