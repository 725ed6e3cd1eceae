"""`sleicl demo`, `sleicl evaluate` and `sleicl ask`: the weak model at work."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from sleicl_chains._folders import Home
from sleicl_chains.cli.options import (
    BaseUrl,
    EmbedderOption,
    GrimoireOption,
    HomeOption,
    JsonOption,
    ModelOption,
    ModeOption,
    NoJournal,
    PriorOption,
    RowsOption,
    SeedOption,
    TaskOption,
    WeakOption,
)
from sleicl_chains.cli.steps import find_grimoire, journal_of, model_options, print_json, read, read_card, say, weak_of
from sleicl_chains.errors import SleiclError


def demo(
    strong: Annotated[str | None, typer.Option(help="Write the grimoire now with this model; may cost money.")] = None,
    rows: Annotated[int, typer.Option(min=1, help="Test rows to answer.")] = 60,
    home: HomeOption = None,
) -> None:
    """Show the whole method on real text with the embedded model; no key, no Ollama, no cost."""
    from sleicl_chains.demo import run_demo

    run_demo(Home.at(home), rows=rows, strong=strong)


def evaluate(
    card: TaskOption,
    rows: RowsOption,
    weak: WeakOption,
    train: Annotated[Path | None, typer.Option(help="Rows for priors, probe and examples.")] = None,
    arms: Annotated[
        str | None, typer.Option(help="Comma-separated: majority,probe,zero-shot,few-shot,simple,profound ...")
    ] = None,
    grimoire: GrimoireOption = None,
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
    from sleicl_chains.arms import ArmBuilder, limited
    from sleicl_chains.console import Meter, print_report
    from sleicl_chains.embedders import embedder

    place = Home.at(home)
    task, examples = read(card, rows)
    examples = limited(examples, limit)
    builder = ArmBuilder(
        task, weak_of(weak, task, place, **model_options(option, base_url)), embedder(embeddings, home=place),
        train=_train(train, task, examples), grimoire=find_grimoire(grimoire, task, place), mode=_any(mode),
        prior=_any(prior), seed=seed, journal=journal_of(place, no_journal),
    )  # fmt: skip
    if leaked := builder.leaked(examples):
        say([f"Warning: {leaked} evaluated rows are among those that the grimoire was written from."])
    solvers = builder.build([name.strip() for name in arms.split(",")] if arms else None)
    with Meter(solvers) as meter:
        report = builder.evaluate(
            solvers, examples, weak, run=run, runs=None if no_journal else place.runs, max_concurrency=concurrency,
            progress=meter,
        )  # fmt: skip
    if as_json:
        say(builder.notes)
        print_json(report.to_dict() | {"notes": builder.notes})
        return
    print_report(report, builder.notes)
    if report.run:
        say([f"Rows: {report.run}"])


def _train(file: Path | None, task: Any, evaluated: list[Any]) -> list[Any]:
    """Return the training rows that are not evaluated."""
    from sleicl_chains.arms import without_overlap
    from sleicl_chains.tasks import load_examples

    kept, dropped = without_overlap(load_examples(file, task) if file else [], evaluated)
    if dropped:
        say([f"Warning: {dropped} rows of {file} are among the evaluated ones and were left out of it."])
    return kept


def _any(value: str | None) -> Any:
    """Hand a name on to the library, which checks it."""
    return value


def ask(
    card: TaskOption,
    weak: WeakOption,
    question: Annotated[str | None, typer.Argument(help="The question; - reads it from stdin.")] = None,
    grimoire: GrimoireOption = None,
    arm: Annotated[
        str | None, typer.Option(help="simple or profound; profound with a grimoire, else zero-shot.")
    ] = None,
    train: Annotated[Path | None, typer.Option(help="Rows for the prior, as in evaluate.")] = None,
    seed: SeedOption = 0,
    mode: ModeOption = None,
    prior: PriorOption = None,
    base_url: BaseUrl = None,
    option: ModelOption = None,
    as_json: JsonOption = False,
    no_journal: NoJournal = False,
    home: HomeOption = None,
) -> None:
    """Answer one question."""
    from sleicl_chains.priors import prior_texts
    from sleicl_chains.solvers import solver
    from sleicl_chains.tasks import load_examples

    place, task = Home.at(home), read_card(card)
    texts = prior_texts(load_examples(train, task), task, seed=seed) if train else []
    text = sys.stdin.read() if question in (None, "-") else question
    shown = find_grimoire(grimoire, task, place)
    chosen = arm or (("profound" if shown.profound else "simple") if shown else "zero-shot")
    chain = solver(
        weak_of(weak, task, place, **model_options(option, base_url)), task, arm=_any(chosen), grimoire=shown,
        mode=_any(mode), prior=_any(prior), prior_texts=texts, journal=journal_of(place, no_journal),
    )  # fmt: skip
    answer = chain.invoke((text or "").strip())
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
