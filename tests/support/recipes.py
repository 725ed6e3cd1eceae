"""A recipe as `learn` makes it, without learning: what it shows and how it reads is decided by the test."""

from collections.abc import Sequence
from typing import Any

from langchain_core.language_models import BaseChatModel

from sleicl_chains.answering.arms import ArmName
from sleicl_chains.answering.recipes import AlsoTried, Choice, Recipe, Shown, TestedRow, Verdict, told_by
from sleicl_chains.tasks.cards import Task
from sleicl_chains.tasks.rows import Example

TASK = Task(
    name="desk", task_type="topic classification", description="Say who handles it.", labels=("billing", "technical")
)
GRIMOIRE = 'Money is billing: {"a": "b"}, {{ .System }}, """quoted""", \'single\'. All else is technical.'
EXAMPLES = (("My invoice is wrong {sic}", "billing"), ('The app says "error"', "technical"))


def recipe_of(
    weak: BaseChatModel, name: str, *, task: Task = TASK, grimoire: str = GRIMOIRE,
    examples: Sequence[tuple[str, str]] = EXAMPLES, **changes: Any,
) -> Recipe:  # fmt: skip
    """Return a recipe in words that shows a grimoire and examples, whichever are given."""
    parts = [part for part, given in (("simple", grimoire), ("few-shot", examples)) if given]
    found: dict[str, Any] = {
        "task": task, "weak": name, "model": told_by(weak, task.labels), "mode": "generate", "prior": "none",
        "arm": "+".join(parts) or "zero-shot", "grimoire": Shown.of(grimoire, id="desk-1") if grimoire else None,
        "examples": [Shown.of(text, answer) for text, answer in examples], "rows": 2, "seed": 0,
        "verdict": Verdict(finding="no difference shown"),
    }  # fmt: skip
    return Recipe(**{**found, **changes})


ROWS = [
    Example("The bill is <wrong>", "billing"), Example("It crashes", "technical"),
    Example("Refund me", "billing"), Example("No sound", "technical"),
]  # fmt: skip
"""Those of the test of `after_a_test`."""
_SAID: dict[ArmName, tuple[str | None, ...]] = {
    "few-shot": ("technical", "technical", "billing", "billing"),
    "simple+few-shot": ("billing", "technical", "technical", "billing"),
    "zero-shot": ("billing", None, "billing", "technical"),
}


def after_a_test(*, verdict: dict[str, Any] | None = None, **changes: Any) -> Recipe:
    """Return a recipe as `learn` writes it after a test on `ROWS`.

    Of the rows one is fixed, one right under both prompts, one broken and one wrong under both.
    """
    tested = [
        TestedRow(row=row.id, gold=row.answer, said={arm: (said[at], 0.75) for arm, said in _SAID.items()})
        for at, row in enumerate(ROWS)
    ]
    about = {
        "finding": "no difference shown", "pair": ("simple+few-shot", "few-shot"), "grimoire": "desk-1",
        "difference": 0.0, "low": -0.75, "high": 0.75, "p": 1.0, "n": 4, "tested": "score", "level": 0.01, "fixed": 1,
        "broken": 1, "accuracy": (0.5, 0.5),
    }  # fmt: skip
    found: dict[str, Any] = {
        "task": TASK, "weak": "fake", "model": {}, "arm": "few-shot", "mode": "score", "prior": "mean", "rows": 8,
        "seed": 0, "examples": [Shown.of(text, answer) for text, answer in EXAMPLES],
        "reader": {"kind": "prior", "prior": {"billing": 0.5, "technical": 0.5}},
        "verdict": Verdict.model_validate(about | (verdict or {})),
        "also_tried": [AlsoTried(arm="zero-shot", difference=0.25, p=0.8, n=4),
                       AlsoTried(arm="simple", grimoire="desk-1", difference=-0.5, p=0.0001, n=2)],
        "choice": Choice(
            arm="few-shot", mode="score", expected=0.0, ground="no grimoire to choose", accuracy=0.5, probe=0.25, n=4
        ),
        "tested": tested,
    }  # fmt: skip
    return Recipe(**{**found, **changes})
