"""`sleicl learn`: from labelled rows to a recipe, with the verdict on the grimoire."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sleicl_chains._folders import Home
from sleicl_chains.cli.options import (
    BaseUrl,
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
from sleicl_chains.cli.steps import journal_of, model_options, print_json, read, say
from sleicl_chains.errors import InputError, OptionError
from sleicl_chains.opening import open_grimoire, open_store, weak_options

if TYPE_CHECKING:
    from sleicl_chains.grimoires import Grimoire


def learn(
    card: TaskOption,
    rows: RowsOption,
    weak: WeakOption,
    recipe: Annotated[Path, typer.Option("--recipe", help="The file to write.")],
    strong: Annotated[str | None, typer.Option("--strong", help="Let this model write a grimoire first.")] = None,
    grimoire: Annotated[
        list[str] | None, typer.Option("--grimoire", help="A grimoire's id or file; repeatable.")
    ] = None,
    budget: Annotated[int | None, typer.Option(min=1, help="Most tokens that the strong model may cost.")] = None,
    seed: SeedOption = 0,
    strong_name: StrongName = None,
    embeddings: EmbedderOption = "wordllama",
    base_url: BaseUrl = None,
    option: ModelOption = None,
    as_json: JsonOption = False,
    no_journal: NoJournal = False,
    home: HomeOption = None,
) -> None:
    """Find the prompt and the reading that suit a weak model, and test whether a grimoire helps it."""
    from sleicl_chains.console import Meter, print_recipe
    from sleicl_chains.embedders import embedder
    from sleicl_chains.learning import learn as learn_task
    from sleicl_chains.models import strong_model, weak_model

    if strong and grimoire:
        raise OptionError("--strong writes a grimoire and --grimoire names one; give one of the two")
    if not recipe.parent.is_dir():
        raise InputError(f"{recipe}: there is no folder {recipe.parent}; make it first")
    if recipe.is_dir():
        raise InputError(f"{recipe}: this is a folder; expected the file to write")
    place, (task, examples) = Home.at(home), read(card, rows)
    given = weak_options(task, model_options(option, base_url))
    shown = [open_grimoire(name, task, place) for name in grimoire or []]
    writer = strong_model(strong, home=place) if strong else None
    space = embedder(embeddings, home=place)

    def store(written: "Grimoire") -> None:
        say([f"The grimoire is kept as {open_store(place).add(written)}."])

    with Meter(["all prompts"], foretells=False) as meter:
        found = learn_task(
            task, examples, weak=weak_model(weak, home=place, **given), strong=writer, grimoires=shown, seed=seed,
            budget=budget, weak_name=weak, strong_name=strong_name or strong, keep=store, options=given,
            embeddings=embeddings, space=space, journal=journal_of(place, no_journal), progress=meter,
            notice=lambda line: say([line]),
        )  # fmt: skip
    found.save(recipe)
    held = f"; it holds {len(found.examples)} training rows as text" if found.examples else ""
    say([f"Written: {recipe}{held}. On rows of their own: sleicl evaluate --task {card} --rows TEST --recipe {recipe}"])
    if as_json:
        print_json(found.model_dump(mode="json", exclude={"reader", "examples", "grimoire", "learned_from"}))
        return
    print_recipe(found)
