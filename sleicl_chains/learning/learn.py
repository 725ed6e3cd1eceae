"""`learn`: labelled rows in, a recipe with the verdict on the grimoires out.

The rows are cut once (`cut`): a few are shown as examples, the others stay. The first grimoire is tested by one pair of
prompts that is named beforehand (`plan`), the second the same but for the grimoire. The weak model is asked about each
row under both, and about some more prompts (`survey`); each row is read by readers that were fitted on others
(`crossfit`). One test says whether a grimoire helps (`verdict`). Which prompt the recipe takes is another question,
answered by what is expected (`choice`).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from langchain_core.language_models import BaseChatModel

from sleicl_chains.answering.consent import plain_options
from sleicl_chains.answering.readings import looks_at
from sleicl_chains.answering.recipes import Recipe, stamped, told_by
from sleicl_chains.evaluation.progress import Progress
from sleicl_chains.files import Home
from sleicl_chains.grimoires.grimoire import Grimoire
from sleicl_chains.learning.crossfit import plain_reading
from sleicl_chains.learning.cut import Cut, cut, per_label
from sleicl_chains.learning.lesson import Lesson
from sleicl_chains.learning.plan import Plan, forms_of
from sleicl_chains.models.abilities import name_of
from sleicl_chains.models.journal import Journal
from sleicl_chains.models.reading import reading_problem
from sleicl_chains.tasks.cards import Task
from sleicl_chains.tasks.rows import Example, check_answers, text_id

if TYPE_CHECKING:
    from langchain_core.embeddings import Embeddings
    from langchain_core.runnables import Runnable

    from sleicl_chains.grimoires.writing.write import WriteInput

Notice = Callable[[str], None]
"""Called with a line for the person who waits."""


def learn(
    task: Task,
    examples: Sequence[Example],
    *,
    weak: BaseChatModel,
    strong: BaseChatModel | None = None,
    grimoires: Sequence[Grimoire] = (),
    seed: int,
    budget: int | None = None,
    shots: int | None = None,
    thorough: bool = False,
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
    """Return the recipe for a task and a weak model, with the verdict on the first grimoire.

    Costs up to three short weak requests for each row that stays and each of four prompts, and half as many for each
    that is only also tried; two or three strong calls with `strong`. All are kept in the journal. Each row is embedded
    once by `space`, which is not kept; few-shot examples are drawn by `wordllama`. Random by `seed` alone.

    Args:
        task: its labels are the answers; an open-ended task is learned by generating.
        examples: labelled rows; of equal texts one is kept. With fewer than 40 nothing is tested.
        weak: the model that will answer.
        strong: writes a grimoire from the rows that are shown, which leave the test. It is not asked where there are
            too few rows for a test.
        grimoires: the first is tested, others are also tried. Rows that they were written from leave the test.
        seed: decides the examples of few-shot prompts and the order of the rows.
        budget: most tokens that the strong model may cost, by estimate before it is asked and by count after each call.
        shots: examples a label; by default 4, or 2 where there are more than five labels. With 0 none are shown.
        thorough: also try the nearest rows as examples; such prompts share no beginning and are slow.
        weak_name: the name under which the recipe opens the model again; by default the model's own, which may be too
            short for that.
        strong_name: recorded as the grimoire's writer.
        keep: called with the grimoire that `strong` wrote, at once: it was paid for, whatever the verdict.
        options: what the model was opened with, for the recipe, which keeps the plain ones: no key, no address.
        embeddings: name of the embeddings for `blend` and the probe.
        space: those embeddings, if they are open already.
        journal: keeps every call, so that a stopped run goes on.
        progress: called as the rows are asked about.
        notice: told in words what will be done and what it will cost, before any question, and after a few questions
            how many minutes it will take. A model that is known not to follow guides is named as such.
        home: where it is looked up how well the model follows guides.

    Raises:
        InputError: there are no usable rows, all have the same answer, one is no label of the task, the budget is
            too small, or no prompt fits the weak model's context.
        BudgetExceeded: the strong model cost more tokens than the budget.
        ModelError: a model failed.
    """
    from sleicl_chains.grimoires.writing.write import grimoire_writer
    from sleicl_chains.models.embedders import embedder, remembered

    check_answers(examples, task)
    space, say = remembered(space or embedder(embeddings, journal=journal)), notice or (lambda _: None)
    # 1. Cut the rows, and say what will be done.
    parts = cut(task, examples, seed, grimoires, shots=shots, writes=strong is not None)
    mode, prior = plain_reading(weak, task, len(parts.tested))
    writes = strong is not None and not parts.untested
    plan = Plan.of(parts, [("profound", "simple")] if writes else [forms_of(one) for one in grimoires], thorough)
    named = grimoires[0].id if grimoires else "to be written"
    for line in [*_writing(task, parts, strong, strong_name, budget), *plan.lines(parts, mode, named)]:
        say(line)
    if plan.pair and (problem := reading_problem(weak, home)):
        say(f"{problem}.")
    # 2. Have the grimoire written, if it is not there.
    if strong and writes:
        writer = grimoire_writer(strong, strong_name=strong_name, journal=journal, budget=budget)
        grimoires = [_write(writer, task, parts, shots or per_label(task), seed, say)]
        (keep or (lambda _: None))(grimoires[0])
    # 3. Ask, test and choose.
    lesson = Lesson(task, parts, plan, weak, grimoires, mode, prior, seed, space, journal, progress, home)
    say(lesson.forecast())
    return recipe_of(lesson, lesson.run(), weak_name, options or {}, embeddings)


def _writing(
    task: Task, parts: Cut, strong: BaseChatModel | None, strong_name: str | None, budget: int | None
) -> list[str]:
    """Say what the strong model will do and cost, or why it is not asked.

    Raises:
        InputError: the budget is too small.
    """
    from sleicl_chains.grimoires.writing.costs import check_budget, examples_tokens, writing_tokens

    if strong is None:
        return []
    name = strong_name or "the strong model"
    if parts.untested:
        return [f"{name} is not asked for a grimoire: {parts.untested}."]
    tokens = writing_tokens(task, examples_tokens(parts.drawn))
    check_budget(tokens, budget)
    return [f"{name} writes a grimoire from {len(parts.drawn)} rows first: 2 or 3 calls, about {tokens} tokens."]


def _write(
    writer: "Runnable[WriteInput, Grimoire]", task: Task, parts: Cut, each: int, seed: int, say: Notice
) -> Grimoire:
    """Have a grimoire written from the rows that are shown."""
    about: dict[str, Any] = {"sampler": "kmeans", "per_label": each, "seed": seed}
    written = writer.invoke({"task": task, "examples": parts.drawn, **about})  # type: ignore[typeddict-item]
    for warning in written.provenance.warnings:
        say(f"Warning: {warning}.")
    return written


def recipe_of(
    lesson: Lesson, found: Mapping[str, Any], weak_name: str, options: Mapping[str, Any], embeddings: str
) -> Recipe:
    """Write down what was found in a lesson, and with which model and embeddings."""
    from sleicl_chains.models.embedders import fingerprint

    written = lesson.grimoires[0] if found["grimoire"] else None
    learned: dict[str, Any] = {**found, **_learned(lesson.parts, written), **stamped()}
    uses_space = looks_at(lesson.mode, "vector")
    recipe = Recipe(
        task=lesson.task,
        weak=weak_name or name_of(lesson.weak),
        options=plain_options(options),
        model=told_by(lesson.weak, lesson.task.labels),
        embeddings=embeddings if uses_space else "",
        embeddings_fingerprint=fingerprint(lesson.space) if uses_space else "",
        seed=lesson.seed,
        rows=len(lesson.parts.rows),
        **learned,
    )
    return recipe.model_copy(update={"layout": recipe.layout_under(lesson.weak)})


def _learned(parts: Cut, grimoire: Grimoire | None) -> dict[str, list[str]]:
    """Return the hashes of the rows that recipe and grimoire were made from, and of their folded texts."""
    ids, texts = (grimoire.provenance.examples, grimoire.provenance.text_ids) if grimoire else ((), ())
    return {
        "learned_from": sorted({*ids, *(row.id for row in parts.rows)}),
        "learned_texts": sorted({*texts, *(text_id(row.text) for row in parts.rows)}),
    }
