"""`learn`: labelled rows in, a recipe with the verdict on the grimoires out; see `gate` for how."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from langchain_core.language_models import BaseChatModel

from sleicl_chains.answering.consent import plain_options
from sleicl_chains.answering.readings import looks_at
from sleicl_chains.answering.recipes import Recipe, stamped, told_by
from sleicl_chains.evaluation.progress import Progress
from sleicl_chains.files import Home
from sleicl_chains.grimoires.grimoire import Grimoire
from sleicl_chains.grimoires.samplers import FEW_SHOT_PER_LABEL, typical_examples
from sleicl_chains.learning.cut import Cut, cut
from sleicl_chains.learning.gate import Gate, Notice
from sleicl_chains.learning.judging import Candidate
from sleicl_chains.learning.plan import Plan
from sleicl_chains.models.abilities import name_of
from sleicl_chains.models.journal import Journal
from sleicl_chains.models.reading import reading_problem
from sleicl_chains.tasks.cards import Task
from sleicl_chains.tasks.rows import Example, check_answers, text_id

if TYPE_CHECKING:
    from langchain_core.embeddings import Embeddings
    from langchain_core.runnables import Runnable

    from sleicl_chains.grimoires.writing.write import WriteInput


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
    home: Home | None = None,
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
            the rest, in minutes. A model that is known not to follow guides is named as such.
        home: where it is looked up how well the model follows guides.

    Raises:
        InputError: there are no usable rows, all have the same answer, one is no label of the task, or the budget is
            too small.
        BudgetExceeded: the strong model cost more tokens than the budget.
        ModelError: a model failed.
    """
    from sleicl_chains.grimoires.writing.write import grimoire_writer
    from sleicl_chains.models.embedders import embedder, remembered

    check_answers(examples, task)
    space, say = remembered(space or embedder(embeddings, journal=journal)), notice or (lambda _: None)
    parts = cut(examples, seed, grimoires)
    author = (strong_name or "the strong model") if strong else None
    for line in _forecast(task, parts, grimoires, author, budget):
        say(line)
    if (grimoires or author and parts.confirm) and (problem := reading_problem(weak, home)):
        say(f"{problem}.")
    if strong and parts.confirm:
        writer = grimoire_writer(strong, strong_name=strong_name, journal=journal, budget=budget)
        written = _write(writer, task, parts, seed, space)
        for warning in written.provenance.warnings:
            say(f"Warning: {warning}.")
        if keep:
            keep(written)
        grimoires = [*grimoires, written]
    gate = Gate(task, parts, weak, tuple(grimoires), seed, space, journal, progress or (lambda *_: None), say)
    return _recipe(gate, gate.run(), weak_name, options or {}, embeddings)


def _forecast(
    task: Task, parts: Cut, grimoires: Sequence[Grimoire], author: str | None, budget: int | None
) -> list[str]:
    """Say what learning will cost, and whether the strong model is left out."""
    plan = Plan.of(task, parts, grimoires, author if parts.confirm else None, budget)
    if author and not parts.confirm:
        return [*plan.lines(), f"{author} is not asked for a grimoire: {parts.untested}."]
    return plan.lines()


def _recipe(gate: Gate, found: Candidate, weak_name: str, options: Mapping[str, Any], embeddings: str) -> Recipe:
    """Write down what was learned, and with which model and embeddings."""
    from sleicl_chains.models.embedders import fingerprint

    uses_space = found.setup.arm.examples == "knn" or looks_at(found.mode, "vector")
    learned: dict[str, Any] = {**_learned(gate.cut, found), **gate.outcome(found), **stamped()}
    recipe = Recipe(
        task=gate.task,
        weak=weak_name or name_of(gate.weak),
        options=plain_options(options),
        model=told_by(gate.weak, gate.task.labels),
        embeddings=embeddings if uses_space else "",
        embeddings_fingerprint=fingerprint(gate.space) if uses_space else "",
        seed=gate.seed,
        rows=len(gate.cut.rows),
        **learned,
    )
    return recipe.model_copy(update={"layout": recipe.layout_under(gate.weak)})


def _learned(parts: Cut, found: Candidate) -> dict[str, list[str]]:
    """Return the hashes of the rows that recipe and grimoire were made from, and of their folded texts."""
    shown = found.setup.grimoire if found.shows_grimoire else None
    ids, texts = (shown.provenance.examples, shown.provenance.text_ids) if shown else ((), ())
    return {
        "learned_from": sorted({*ids, *(row.id for row in parts.rows)}),
        "learned_texts": sorted({*texts, *(text_id(row.text) for row in parts.rows)}),
    }


def _write(
    writer: "Runnable[WriteInput, Grimoire]", task: Task, parts: Cut, seed: int, space: "Embeddings"
) -> Grimoire:
    """Have a grimoire written from some of the rows to choose on."""
    shown = typical_examples(task, parts.choose, seed=seed, embeddings=space)
    about: dict[str, Any] = {"sampler": "kmeans", "per_label": FEW_SHOT_PER_LABEL, "seed": seed}
    return writer.invoke({"task": task, "examples": shown, **about})  # type: ignore[typeddict-item]
