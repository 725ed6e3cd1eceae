"""What learning will cost, told before any model is asked."""

from collections.abc import Sequence
from dataclasses import dataclass

from sleicl_chains.grimoires.grimoire import Grimoire
from sleicl_chains.grimoires.samplers import FEW_SHOT_PER_LABEL
from sleicl_chains.learning.cut import Cut
from sleicl_chains.tasks.cards import Task


@dataclass(frozen=True)
class Plan:
    """Rows, prompts and the strong model's tokens, as far as they are known beforehand."""

    choose: int
    confirm: int
    prompts: int
    strong: str | None
    strong_tokens: int
    """An estimate: the prompts, some examples and a guide of 1,500 tokens or more, in three calls."""

    @classmethod
    def of(
        cls,
        task: Task,
        parts: Cut,
        grimoires: Sequence[Grimoire] = (),
        strong: str | None = None,
        budget: int | None = None,
    ) -> "Plan":
        """Return the plan; no model is asked.

        Raises:
            InputError: the strong model would cost more tokens than the budget.
        """
        from sleicl_chains.grimoires.writing.costs import check_budget, examples_tokens, writing_tokens

        each = 2 if parts.confirm else 1
        forms = sum(bool(form) for one in grimoires for form in (one.simple, one.profound)) + (2 if strong else 0)
        shown = min(len(parts.choose), FEW_SHOT_PER_LABEL * max(1, len(task.labels)))
        each_row = examples_tokens(parts.choose) / len(parts.choose)
        tokens = writing_tokens(task, round(shown * each_row)) if strong else 0
        check_budget(tokens, budget)
        prompts = (3 if parts.confirm else 1) + each * forms
        return cls(len(parts.choose), len(parts.confirm), prompts, strong, tokens)

    def lines(self) -> list[str]:
        """Say it in words; calls that choose a cue, up to 24 a prompt on Ollama, are not counted."""
        # Where the nearest rows are shown best, all rows are asked once more with all rows to choose among.
        asked = (self.prompts + bool(self.confirm)) * self.choose + 3 * self.confirm
        lines = [
            f"{self.choose} rows to choose on, {self.confirm} to confirm; {self.prompts} prompts: up to {asked} "
            "questions to the weak model, fewer where a prompt is dropped early."
        ]
        if self.strong:
            lines.append(f"{self.strong} writes a grimoire first: 2 or 3 calls, about {self.strong_tokens} tokens.")
        return lines
