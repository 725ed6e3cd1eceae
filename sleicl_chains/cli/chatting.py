"""`sleicl chat`: a talk with a local model in a terminal, or one answer to what is piped in."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TextIO

import typer

from sleicl_chains.cli.options import BaseUrl, ChromaOption, HomeOption, ModelOption
from sleicl_chains.cli.printing import printable
from sleicl_chains.cli.steps import model_options, read_stdin
from sleicl_chains.errors import OptionError
from sleicl_chains.files import Home

if TYPE_CHECKING:
    from sleicl_chains.answering.recipes import Recipe
    from sleicl_chains.serving.commands import Chat


def chat(
    weak: Annotated[
        str | None,
        typer.Option("--weak", help="ollama:NAME, embedded:NAME ...; by default the largest that is here and fits."),
    ] = None,
    grimoire: Annotated[
        str,
        typer.Option("--grimoire", help="A grimoire's id or file for every message; auto finds one, none has none."),
    ] = "auto",
    recipe: Annotated[
        list[Path] | None,
        typer.Option(
            "--recipe", help="A recipe that /task can choose; a single one answers from the start; repeatable."
        ),
    ] = None,
    system: Annotated[str, typer.Option("--system", help="Your own system text; it stands above the grimoire.")] = "",
    base_url: BaseUrl = None,
    option: ModelOption = None,
    chroma_url: ChromaOption = None,
    home: HomeOption = None,
) -> None:
    """Talk with a local model; the grimoire that fits stands before each message. Piped input is answered once."""
    from sleicl_chains.answering.opening import open_recipe, open_store
    from sleicl_chains.serving.commands import Chat, grimoire_named, open_model
    from sleicl_chains.serving.conversation import Conversation
    from sleicl_chains.serving.screen import Screen

    place, typed = Home.at(home), sys.stdin.isatty()
    screen = Screen(_raw(sys.stdout), _raw(sys.stderr), printable)
    recipes = [open_recipe(path) for path in recipe or []]
    if not typed and len(recipes) > 1:
        raise OptionError(f"--recipe: found {len(recipes)}; what is piped in is answered by one")
    name, note = (weak, "") if weak else _default(recipes, place, base_url, typed)
    options = model_options(option, base_url)
    store = open_store(place, chroma_url=chroma_url)
    talk = Conversation(
        open_model(name, place, options), store, system=system, grimoire=grimoire_named(grimoire, store),
        label_temperature=None if "temperature" in options else 0.0,
    )  # fmt: skip
    told = Chat(talk, screen, home=place, name=name, named=weak, options=options)
    judges = [told.add(one) for one in recipes]
    if note:
        screen.note(note)
    if not typed:
        told.judge = judges[0] if judges else None
        try:
            told.ask(read_stdin().strip())
        finally:
            screen.end()
        return
    _converse(told)


def _converse(told: "Chat") -> None:
    from sleicl_chains.serving.terminal import talk

    told.screen.note(f"{told.name}; /help lists the commands, Ctrl-D leaves")
    if len(told.judges) == 1:
        told.choose(*told.judges.values())
    talk(told)


def _default(recipes: "Sequence[Recipe]", home: Home, base_url: str | None, typed: bool) -> tuple[str, str]:
    """Return the model that this machine has for a talk, and what to know of it; or ask to fetch one.

    Raises:
        ModelNotFound: there is none, and none is wanted.
        RecipeRefused: the recipe that is to answer is for a model elsewhere.
    """
    from sleicl_chains.answering.consent import stays_here
    from sleicl_chains.models.weights import KNOWN, READER
    from sleicl_chains.serving.weak import default_model, no_model

    if recipes and not typed:
        recipes[0].check_consent(base_url=base_url)
        return recipes[0].weak, ""  # it alone answers
    if choice := default_model(home, base_url):
        return choice.name, choice.note
    if local := [one.weak for one in recipes if stays_here(one.weak)]:
        return local[0], ""
    weights = KNOWN[READER]
    size = f"{weights.megabytes / 1000:.1f} GB"
    offer = f"No chat model is on this machine. Download {weights.title} ({size}, {weights.licence})?"
    if typed and typer.confirm(offer, err=True):
        return f"embedded:{READER}", ""
    raise no_model()


def _raw(stream: TextIO) -> TextIO:
    """Return a stream without its guard, since a `Screen` guards itself and colours its notes."""
    found: TextIO = getattr(stream, "rich_proxied_file", stream)
    return found
