"""`learn`: labelled rows in, a recipe with the verdict on the grimoires out; see `gate` for how."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from langchain_core.language_models import BaseChatModel

from sleicl_chains.arms import FEW_SHOT_PER_LABEL
from sleicl_chains.errors import InputError
from sleicl_chains.gate import Gate, Notice, Progress, cut
from sleicl_chains.grimoires import Grimoire
from sleicl_chains.journal import Journal
from sleicl_chains.recipes import Recipe, stamped, told_by
from sleicl_chains.samplers import sampler
from sleicl_chains.tasks import Example, Task

if TYPE_CHECKING:
    from langchain_core.embeddings import Embeddings


def learn(
    task: Task,
    examples: Sequence[Example],
    *,
    weak: BaseChatModel,
    strong: BaseChatModel | None = None,
    grimoires: Sequence[Grimoire] = (),
    seed: int = 0,
    budget: int | None = None,
    weak_name: str = "",
    strong_name: str | None = None,
    options: Mapping[str, Any] | None = None,
    embeddings: str = "wordllama",
    space: "Embeddings | None" = None,
    journal: Journal | None = None,
    progress: Progress | None = None,
    notice: Notice | None = None,
) -> Recipe:
    """Return the recipe for a task and a weak model, with the verdict on the grimoires.

    Costs up to three short weak requests for each labelled row and prompt, and two or three strong calls with
    `strong`; all are kept in the journal. `Plan` tells beforehand how many. Random by `seed` alone.

    Args:
        task: its labels are the answers; an open-ended task is learned by generating.
        examples: labelled rows; of equal texts one is kept. With fewer than 40 nothing is tested.
        weak: the model that will answer.
        strong: writes a grimoire from a few of the choose rows, so that the test stays clean.
        grimoires: further candidates; without any the choice is among prompts without one. Rows that they were written
            from are chosen on, never confirmed on.
        seed: decides the cut and the examples of few-shot prompts.
        budget: most tokens that the strong model may cost, by estimate before it is asked.
        weak_name: the name under which the recipe opens the model again; by default the model's own.
        strong_name: recorded as the grimoire's writer.
        options: what the model was opened with, for the recipe.
        embeddings: name of the embeddings for `knn`, `fusion` and the probe.
        space: those embeddings, if they are open already.
        journal: keeps every call, so that a stopped run goes on.
        progress: called as the rows are observed.
        notice: told in words what it will cost: first in questions, calls and tokens, and after three questions, before
            the rest, in minutes.

    Raises:
        InputError: there are no usable rows, all have the same answer, or the budget is too small.
        ModelError: a model failed.
    """
    from sleicl_chains.embedders import embedder, fingerprint

    space, say = space or embedder(embeddings), notice or (lambda _: None)
    writer = (strong_name or "the strong model") if strong else None
    for line in Plan.of(task, examples, seed=seed, grimoires=grimoires, strong=writer).lines():
        say(line)
    if strong:
        written = _write(task, examples, strong, strong_name, grimoires, seed, budget, space, journal)
        grimoires = [*grimoires, written]
    gate = Gate(task, tuple(examples), weak, tuple(grimoires), seed, space, journal, progress or (lambda *_: None), say)
    found = gate.run()
    uses_space = found.setup.arm == "knn" or found.mode == "fusion"
    return Recipe(
        task=task, weak=weak_name or str(getattr(weak, "model_name", type(weak).__name__)), options=dict(options or {}),
        model=told_by(weak), embeddings=embeddings if uses_space else "",
        embeddings_fingerprint=fingerprint(space) if uses_space else "", seed=seed, rows=len(gate.rows),
        **gate.outcome(found), **stamped(),
    )  # fmt: skip


def _write(
    task: Task, examples: Sequence[Example], strong: BaseChatModel, strong_name: str | None,
    grimoires: Sequence[Grimoire], seed: int, budget: int | None, space: "Embeddings", journal: Journal | None,
) -> Grimoire:  # fmt: skip
    from sleicl_chains.writer import grimoire_writer

    choose, _ = cut(task, examples, seed, grimoires)
    draw = sampler("kmeans", per_label=FEW_SHOT_PER_LABEL, seed=seed, embeddings=space)
    shown = draw.invoke({"task": task, "examples": choose})
    tokens = strong_tokens(shown)
    if budget is not None and tokens > budget:
        raise InputError(f"The grimoire would cost about {tokens} strong tokens; the budget is {budget}")
    about: dict[str, Any] = {"sampler": "kmeans", "per_label": FEW_SHOT_PER_LABEL, "seed": seed}
    writer = grimoire_writer(strong, strong_name=strong_name, journal=journal)
    return writer.invoke({"task": task, "examples": shown, **about})  # type: ignore[typeddict-item]


def strong_tokens(shown: Sequence[Example]) -> int:
    """Estimate what a grimoire costs: the examples and a guide of 1,500 tokens, read twice and written twice."""
    return sum(len(row.text) for row in shown) // 4 + 4 * 1500


@dataclass(frozen=True)
class Plan:
    """What learning will cost, as far as it is known beforehand."""

    choose: int
    confirm: int
    prompts: int
    strong: str | None
    strong_tokens: int

    @classmethod
    def of(
        cls, task: Task, examples: Sequence[Example], *, seed: int, grimoires: Sequence[Grimoire] = (),
        strong: str | None = None,
    ) -> "Plan":  # fmt: skip
        """Return the plan; no model is asked. Raises as `learn` does for unusable rows."""
        choose, confirm = cut(task, examples, seed, grimoires)
        each = 2 if confirm else 1
        forms = sum(bool(form) for one in grimoires for form in (one.simple, one.profound)) + (2 if strong else 0)
        shown = choose[: FEW_SHOT_PER_LABEL * max(1, len(task.labels))]
        tokens = strong_tokens(shown) if strong else 0
        return cls(len(choose), len(confirm), (3 if confirm else 1) + each * forms, strong, tokens)

    def lines(self) -> list[str]:
        """Say it in words."""
        asked = self.prompts * self.choose + 2 * self.confirm
        lines = [
            f"{self.choose} rows to choose on, {self.confirm} to confirm; {self.prompts} prompts: up to {asked} "
            "questions to the weak model, fewer where a prompt is dropped early."
        ]
        if self.strong:
            lines.append(f"{self.strong} writes a grimoire first: 2 or 3 calls, about {self.strong_tokens} tokens.")
        return lines
