"""`sleicl learn`: from labelled rows to a recipe, with the verdict on the grimoire."""

from pathlib import Path
from typing import Annotated

import typer

from sleicl_chains.answering.opening import open_grimoire, open_space, weak_options
from sleicl_chains.cli.options import (
    BaseUrl,
    BudgetOption,
    EmbedderOption,
    HomeOption,
    JsonOption,
    ModelOption,
    NoJournal,
    RowsOption,
    SeedOption,
    StrongName,
    TaskOption,
    WeakOption,
)
from sleicl_chains.cli.printing import quoted, say
from sleicl_chains.cli.recipes import as_object
from sleicl_chains.cli.steps import (
    journal_of,
    keep_written,
    model_options,
    print_json,
    read,
)
from sleicl_chains.errors import OptionError
from sleicl_chains.files import Home, refuse_unwritable


def learn(
    card: TaskOption,
    rows: RowsOption,
    weak: WeakOption,
    recipe: Annotated[Path, typer.Option("--recipe", help="The file to write.")],
    strong: Annotated[str | None, typer.Option("--strong", help="Let this model write a grimoire first.")] = None,
    grimoire: Annotated[
        list[str] | None, typer.Option("--grimoire", help="A grimoire's id or file; repeatable.")
    ] = None,
    budget: BudgetOption = None,
    seed: SeedOption = 0,
    strong_name: StrongName = None,
    shots: Annotated[
        int | None, typer.Option("--shots", min=0, help="Examples shown a label; else 4, or 2 of many labels.")
    ] = None,
    thorough: Annotated[
        bool, typer.Option("--thorough", help="Also try the nearest rows as examples, which is slow.")
    ] = False,
    embeddings: EmbedderOption = "wordllama",
    base_url: BaseUrl = None,
    option: ModelOption = None,
    as_json: JsonOption = False,
    no_journal: NoJournal = False,
    home: HomeOption = None,
) -> None:
    """Find the prompt and the reading that suit a weak model, and test whether a grimoire helps it."""
    from sleicl_chains.cli.console import Meter, after_learning, print_recipe
    from sleicl_chains.learning.learn import learn as learn_task
    from sleicl_chains.models.names import strong_model, weak_model

    if strong and grimoire:
        raise OptionError("--strong writes a grimoire and --grimoire names one; give one of the two")
    refuse_unwritable(recipe)
    place, (task, examples) = Home.at(home), read(card, rows)
    given = weak_options(task, model_options(option, base_url))
    shown = [open_grimoire(name, task, place) for name in grimoire or []]
    writer = strong_model(strong, home=place) if strong else None
    journal = journal_of(place, no_journal)
    space = open_space(embeddings, place, journal)

    with Meter(["all prompts"], foretells=False) as meter:
        found = learn_task(
            task, examples, weak=weak_model(weak, home=place, **given), strong=writer, grimoires=shown, seed=seed,
            budget=budget, shots=shots, thorough=thorough, weak_name=weak, strong_name=strong_name or strong,
            options=given, keep=lambda written: keep_written(written, place),
            embeddings=embeddings, space=space, journal=journal, progress=meter,
            notice=lambda line: say([line]), home=place,
        )  # fmt: skip
    found.save(recipe)
    held = f"; it holds {len(found.examples)} training rows as text" if found.examples else ""
    say(f"Written: {recipe}{held}")
    if as_json:
        print_json(as_object(found))
        return
    print_recipe(found, after_learning(found, recipe, quoted(card)))
