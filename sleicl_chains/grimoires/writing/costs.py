"""What a grimoire will cost, about, before the strong model is asked for anything."""

from collections.abc import Sequence

from sleicl_chains.errors import InputError
from sleicl_chains.grimoires.writing.calls import (
    GUIDE_WORDS,
    example_line,
    guide_words,
    profound_prompt,
    quoted,
    simple_prompt,
)
from sleicl_chains.models.tokens import estimate_tokens
from sleicl_chains.tasks.cards import Task
from sleicl_chains.tasks.rows import Example

_GUIDE_TOKENS = 1500
"""Of a guide of 400 words and a little thinking. A model that thinks long writes ten times as much."""


def examples_tokens(rows: Sequence[Example]) -> int:
    """Return about how many tokens rows are in the first prompt."""
    return sum(estimate_tokens(example_line(row)) for row in rows)


def writing_tokens(task: Task, examples: int) -> int:
    """Return about how many tokens a grimoire costs, read and written, in three calls. No model call.

    Args:
        task: its card stands in the prompt, and the more labels it has the longer the guide is.
        examples: the tokens of the examples that are shown, as `examples_tokens` counts them.
    """
    guide = _GUIDE_TOKENS * guide_words(task) // GUIDE_WORDS
    first = estimate_tokens(profound_prompt(task, [])) + examples
    again = first + guide + estimate_tokens(quoted(task.labels))
    return first + guide + again + guide + estimate_tokens(simple_prompt(task, "")) + guide + guide // 3


def check_budget(tokens: int, budget: int | None) -> None:
    """Refuse a budget before anything is asked.

    Raises:
        InputError: the estimate is above it.
    """
    if budget is not None and tokens > budget:
        raise InputError(f"The grimoire would cost about {tokens} strong tokens; the budget is {budget}")
