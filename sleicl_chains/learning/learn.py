"""`learn`: labelled rows in, a recipe with the verdict on the grimoires out; see `gate` for how."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from langchain_core.language_models import BaseChatModel

from sleicl_chains.answering.consent import plain_options
from sleicl_chains.answering.readings import looks_at
from sleicl_chains.answering.recipes import Recipe, stamped, told_by
from sleicl_chains.evaluation.progress import Progress
from sleicl_chains.grimoires.grimoire import Grimoire
from sleicl_chains.grimoires.samplers import FEW_SHOT_PER_LABEL, typical_examples
from sleicl_chains.learning.gate import Cut, Gate, Notice, cut
from sleicl_chains.learning.judging import Candidate
from sleicl_chains.models.abilities import name_of
from sleicl_chains.models.journal import Journal
from sleicl_chains.tasks.cards import Task
from sleicl_chains.tasks.rows import Example, check_answers, text_id

if TYPE_CHECKING:
    from langchain_core.embeddings import Embeddings


def learn(
    task: Task,
    examples: Sequence[Example],
    *,
    weak: BaseChatModel,
    strong: BaseChatModel | None = None,
    grimoires: Sequence[Grimoire] = (),
    seed: int,
    budget: int | None = None,
    weak_name: str = "",
    strong_name: str | None = None,
    keep: Callable[[Grimoire], object] | None = None,
    options: Mapping[str, Any] | None = None,
    embeddings: str = "wordllama",
    space: "Embeddings | None" = None,
    journal: Journal | None = None,
    progress: Progress | None = None,
    notice: Notice | None = None,
) -> Recipe:
    """Return the recipe for a task and a weak model, with the verdict on the grimoires.

    Costs up to three short weak requests for each labelled row and prompt, and two or three strong calls with
    `strong`; all are kept in the journal. `Plan` tells beforehand how many. Each row is embedded once by `space`, which
    is not kept; few-shot examples are drawn by `wordllama`. Random by `seed` alone.

    Args:
        task: its labels are the answers; an open-ended task is learned by generating.
        examples: labelled rows; of equal texts one is kept. With fewer than 40 nothing is tested.
        weak: the model that will answer.
        strong: writes a grimoire from a few of the choose rows, so that the test stays clean. It is not asked where
            there are too few rows for a test, since without one no grimoire is taken.
        grimoires: further candidates; without any the choice is among prompts without one. Rows that they were written
            from are chosen on, never confirmed on.
        seed: decides the cut and the examples of few-shot prompts.
        budget: most tokens that the strong model may cost, by estimate before it is asked and by count after each call.
        weak_name: the name under which the recipe opens the model again; by default the model's own, which may be too
            short for that.
        strong_name: recorded as the grimoire's writer.
        keep: called with the grimoire that `strong` wrote, at once: it was paid for, whatever the verdict.
        options: what the model was opened with, for the recipe, which keeps the plain ones: no key, no address.
        embeddings: name of the embeddings for `knn`, `fusion`, `blend` and the probe.
        space: those embeddings, if they are open already.
        journal: keeps every call, so that a stopped run goes on.
        progress: called as the rows are observed.
        notice: told in words what it will cost: first in questions, calls and tokens, and after a few questions, before
            the rest, in minutes.

    Raises:
        InputError: there are no usable rows, all have the same answer, one is no label of the task, or the budget is
            too small.
        BudgetExceeded: the strong model cost more tokens than the budget.
        ModelError: a model failed.
    """
    from sleicl_chains.models.embedders import Remembered, embedder, fingerprint

    check_answers(examples, task)
    space, say = Remembered(space or embedder(embeddings, journal=journal)), notice or (lambda _: None)
    parts, writer = cut(examples, seed, grimoires), (strong_name or "the strong model") if strong else None
    plan = Plan.of(task, parts, grimoires, writer if parts.confirm else None, budget)
    for line in plan.lines():
        say(line)
    if strong and not parts.confirm:
        say(f"{writer} is not asked for a grimoire: {parts.untested}.")
    if strong and parts.confirm:
        written = _write(task, parts, strong, strong_name, seed, space, journal, budget)
        for warning in written.provenance.warnings:
            say(f"Warning: {warning}.")
        grimoires = [*grimoires, written]
        if keep:
            keep(written)
    gate = Gate(task, parts, weak, tuple(grimoires), seed, space, journal, progress or (lambda *_: None), say)
    found = gate.run()
    uses_space = found.setup.arm.examples == "knn" or looks_at(found.mode, "vector")
    owed: dict[str, Any] = _learned(parts, found)
    recipe = Recipe(
        task=task, weak=weak_name or name_of(weak),
        options=plain_options(options or {}), model=told_by(weak),
        embeddings=embeddings if uses_space else "", embeddings_fingerprint=fingerprint(space) if uses_space else "",
        seed=seed, rows=len(parts.rows), **owed, **gate.outcome(found), **stamped(),
    )  # fmt: skip
    return recipe.model_copy(update={"layout": recipe.layout_under(weak)})


def _learned(parts: Cut, found: Candidate) -> dict[str, list[str]]:
    """Return the hashes of the rows that a candidate owes its figures to, and of their folded texts."""
    shown = found.setup.grimoire if found.shows_grimoire else None
    ids, texts = (shown.provenance.examples, shown.provenance.text_ids) if shown else ((), ())
    return {
        "learned_from": sorted({*ids, *(row.id for row in parts.rows)}),
        "learned_texts": sorted({*texts, *(text_id(row.text) for row in parts.rows)}),
    }


def _write(
    task: Task, parts: Cut, strong: BaseChatModel, strong_name: str | None, seed: int, space: "Embeddings",
    journal: Journal | None, budget: int | None,
) -> Grimoire:  # fmt: skip
    """Have a grimoire written from some of the rows to choose on."""
    from sleicl_chains.grimoires.writing.write import grimoire_writer

    shown = typical_examples(task, parts.choose, seed=seed, embeddings=space)
    about: dict[str, Any] = {"sampler": "kmeans", "per_label": FEW_SHOT_PER_LABEL, "seed": seed}
    writer = grimoire_writer(strong, strong_name=strong_name, journal=journal, budget=budget)
    return writer.invoke({"task": task, "examples": shown, **about})  # type: ignore[typeddict-item]


@dataclass(frozen=True)
class Plan:
    """What learning will cost, as far as it is known beforehand."""

    choose: int
    confirm: int
    prompts: int
    strong: str | None
    strong_tokens: int
    """An estimate: the prompts, some examples and a guide of 1,500 tokens or more, in three calls."""

    @classmethod
    def of(
        cls, task: Task, parts: Cut, grimoires: Sequence[Grimoire] = (), strong: str | None = None,
        budget: int | None = None,
    ) -> "Plan":  # fmt: skip
        """Return the plan; no model is asked.

        Raises:
            InputError: the strong model would cost more tokens than the budget.
        """
        from sleicl_chains.grimoires.writing.write import check_budget, examples_tokens, writing_tokens

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
