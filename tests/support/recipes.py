"""A recipe as `learn` makes it, without learning: what it shows and how it reads is decided by the test."""

from collections.abc import Sequence
from typing import Any

from langchain_core.language_models import BaseChatModel

from sleicl_chains.answering.recipes import Recipe, Shown, Verdict, told_by
from sleicl_chains.tasks.cards import Task

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
        "examples": [Shown.of(text, answer) for text, answer in examples], "trials": [], "rows": 2, "seed": 0,
        "verdict": Verdict(finding="no difference shown", why="nothing was tested"),
    }  # fmt: skip
    return Recipe(**{**found, **changes})
