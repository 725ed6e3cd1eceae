"""`sleicl demo`, `sleicl evaluate` and `sleicl ask`: the weak model at work."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sleicl_chains.answering.arms import RECIPE, Arm
from sleicl_chains.cli.options import (
    BaseUrl,
    EmbedderOption,
    GrimoireOption,
    HomeOption,
    JsonOption,
    MaybeEmbeddings,
    MaybeTask,
    MaybeWeak,
    ModelOption,
    ModeOption,
    NoJournal,
    PriorOption,
    RecipeOption,
    RowsOption,
    SeedOption,
    TaskOption,
    TextsOption,
)
from sleicl_chains.cli.printing import quoted, say
from sleicl_chains.cli.steps import (
    journal_of,
    model_options,
    print_json,
    read,
    read_stdin,
)
from sleicl_chains.errors import SleiclError
from sleicl_chains.files import Home

if TYPE_CHECKING:
    from sleicl_chains.answers import Answer
    from sleicl_chains.evaluation.report.sources import Source
    from sleicl_chains.evaluation.summary import Report
    from sleicl_chains.evaluation.table import ArmBuilder
    from sleicl_chains.tasks.cards import Task


def demo(
    strong: Annotated[str | None, typer.Option(help="Write the grimoire now with this model; may cost money.")] = None,
    rows: Annotated[int, typer.Option(min=1, help="Test rows to answer.")] = 60,
    weak: Annotated[
        str, typer.Option(help="The model that answers; embedded:smollm2 is the quick small one, which cannot read.")
    ] = "embedded:qwen2.5-coder-1.5b",
    example: Annotated[str, typer.Option(help="The task: desk (a house's own labels) or support.")] = "desk",
    home: HomeOption = None,
) -> None:
    """Show the whole method on real text with an embedded model (1.1 GB, fetched once): no key, no Ollama, no cost."""
    from sleicl_chains.cli.demo import run_demo

    run_demo(Home.at(home), example=example, rows=rows, strong=strong, weak=weak)


def evaluate(
    card: TaskOption,
    rows: RowsOption,
    weak: MaybeWeak = None,
    train: Annotated[Path | None, typer.Option(help="Rows for priors, probe and examples.")] = None,
    arms: Annotated[
        str | None,
        typer.Option(
            help="Comma-separated: majority, probe, zero-shot, few-shot, knn, simple, profound, simple+few-shot, "
            "profound+few-shot; each but the first two also with +hidden, +fusion or +blend; recipe."
        ),
    ] = None,
    grimoire: GrimoireOption = None,
    recipe: RecipeOption = None,
    texts: TextsOption = None,
    mode: ModeOption = None,
    prior: PriorOption = None,
    limit: Annotated[int | None, typer.Option(min=1, help="The N rows with the smallest content hash.")] = None,
    seed: SeedOption = 0,
    run: Annotated[Path | None, typer.Option(help="Folder for the rows; an unfinished run goes on.")] = None,
    embeddings: EmbedderOption = "wordllama",
    base_url: BaseUrl = None,
    option: ModelOption = None,
    concurrency: Annotated[int, typer.Option(min=1, help="Calls at once, for models on other machines.")] = 1,
    as_json: JsonOption = False,
    no_journal: NoJournal = False,
    home: HomeOption = None,
) -> None:
    """Compare arms on the same rows, with intervals and honest baselines."""
    from sleicl_chains.answering.opening import Shown
    from sleicl_chains.cli.console import Meter
    from sleicl_chains.evaluation.report.sources import note_sources
    from sleicl_chains.evaluation.table import limited, open_table

    place = Home.at(home)
    task, examples = read(card, rows)
    examples = limited(examples, limit)
    builder = open_table(
        task, examples, place, weak=weak, options=model_options(option, base_url), recipe=recipe,
        embeddings=embeddings, shown=Shown(grimoire, None, train, mode, prior, texts), seed=seed,
        journal=journal_of(place, no_journal),
    )  # fmt: skip
    sources = _sources(builder, grimoire, recipe)  # before the run: a file may change while it lasts
    if leaked := builder.leaked(examples):
        say([f"Warning: {leaked} evaluated rows are among those that the grimoire or the recipe was made from."])
    solvers = builder.build(_named(arms, learned=recipe is not None))
    with Meter(solvers) as meter:
        found = builder.evaluate(
            solvers, examples, weak or (builder.recipe.weak if builder.recipe else ""), run=run,
            runs=None if no_journal else place.runs, max_concurrency=concurrency, progress=meter,
        )  # fmt: skip
    if found.run:
        note_sources(Path(found.run), rows=rows, card=card, grimoires=sources, home=place)
    _print_evaluation(found, as_json)


def _print_evaluation(report: "Report", as_json: bool) -> None:
    from sleicl_chains.cli.console import print_report
    from sleicl_chains.evaluation.words import verdict

    if as_json:
        say(report.notes)
        print_json(report.to_dict() | {"verdict": verdict(report)})
        return
    print_report(report)
    if report.run:
        say([f"Rows: {report.run} (a page of them: sleicl report {quoted(report.run)})"])


def _named(arms: str | None, *, learned: bool) -> list[str] | None:
    """Return the arms that were named, and with a recipe its own as well; None for the default ones."""
    names = [name.strip() for name in arms.split(",")] if arms else None
    return [*names, RECIPE] if names and learned and RECIPE not in names else names


def _sources(builder: "ArmBuilder", name: str | None, recipe: Path | None) -> "dict[str, Source]":
    """Return where the grimoires of an evaluation are from, by id."""
    from sleicl_chains.evaluation.report.sources import Source

    found = {}
    if recipe and builder.recipe and (shown := builder.recipe.shown_grimoire()):
        found[shown.id] = Source.of_recipe(shown, recipe)
    if name and builder.grimoire:
        found[builder.grimoire.id] = Source.of(builder.grimoire, name)
    return found


def ask(
    question: Annotated[str | None, typer.Argument(help="The question; - reads it from stdin.")] = None,
    card: MaybeTask = None,
    weak: MaybeWeak = None,
    grimoire: GrimoireOption = None,
    recipe: RecipeOption = None,
    arm: Annotated[
        Arm | None,
        typer.Option(
            parser=Arm.of,
            metavar="NAME",
            help="zero-shot, few-shot, simple, profound, knn ...; profound with a grimoire, else zero-shot.",
        ),
    ] = None,
    train: Annotated[Path | None, typer.Option(help="Rows for the prior and the examples, as in evaluate.")] = None,
    seed: SeedOption = 0,
    texts: TextsOption = None,
    mode: ModeOption = None,
    prior: PriorOption = None,
    defer_below: Annotated[
        float | None, typer.Option(help="Ask the model of --to where the probability is lower than this.")
    ] = None,
    to: Annotated[str | None, typer.Option(help="The strong model of --defer-below.")] = None,
    embeddings: MaybeEmbeddings = None,
    base_url: BaseUrl = None,
    option: ModelOption = None,
    as_json: JsonOption = False,
    no_journal: NoJournal = False,
    home: HomeOption = None,
) -> None:
    """Answer one question, by a recipe, or by a model and a card or a grimoire."""
    from sleicl_chains.answering.opening import Shown, open_recipe, open_solver, open_task

    place = Home.at(home)
    task = open_task(card) if card else None
    opened = open_solver(
        task, open_recipe(recipe, task) if recipe else None, place, weak=weak,
        options=model_options(option, base_url), embeddings=embeddings, seed=seed,
        shown=Shown(grimoire, arm, train, mode, prior, texts), defer_below=defer_below, to=to,
        journal=journal_of(place, no_journal),
    )  # fmt: skip
    if first := texts or train:
        say([f"Rows of {first} are asked about first, as far as the reading needs them."])
    asked = read_stdin() if question in (None, "-") else question
    if opened.task.labels and question in (None, "-") and (lines := len((asked or "").split("\n")) - 1) > 1:
        say([f"Note: the {lines} lines of stdin are one question; `sleicl batch` answers a file row by row."])
    _print_answer(opened.chain.invoke((asked or "").strip()), opened.task, as_json)


def _print_answer(answer: "Answer", task: "Task", as_json: bool) -> None:
    if as_json:
        print_json(answer.to_dict(labelled=bool(task.labels)))
        return
    if not answer.valid:
        wanted = f"one of {', '.join(task.labels)}" if task.labels else "a text"
        found = repr(answer.text) if answer.text else answer.note or "nothing"
        raise SleiclError(f"The reply gives no answer: found {found}; expected {wanted}")
    if answer.unseen:
        guessed = " The answer is one of them, a guess; embedded:ollama/NAME scores all."
        guess = guessed if answer.label in answer.unseen else ""
        say([f"Out of sight of the server, so not measured: {', '.join(answer.unseen)}.{guess}"])
    if answer.note:
        say([f"Note: {answer.note}."])
    print(answer.answer)
