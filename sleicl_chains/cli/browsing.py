"""`sleicl web`: a page for chat, library and recipes, on this machine."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sleicl_chains.cli.options import BaseUrl, ChromaOption, HomeOption, MaybeWeak, ModelOption
from sleicl_chains.cli.printing import say
from sleicl_chains.cli.steps import model_options
from sleicl_chains.errors import OptionError
from sleicl_chains.files import Home

if TYPE_CHECKING:
    from sleicl_chains.answering.opening import Opened
    from sleicl_chains.serving.weak import Choice


def web(
    recipes: Annotated[
        list[Path] | None, typer.Argument(metavar="[RECIPE ...]", help="Recipes that can be tried on pasted rows.")
    ] = None,
    weak: MaybeWeak = None,
    host: Annotated[str, typer.Option("--host", help="Another address than loopback wants a password.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="0 takes a free one.")] = 7860,
    password: Annotated[
        str | None, typer.Option("--password", envvar="SLEICL_WEB_PASSWORD", help="Asked for before the page.")
    ] = None,
    base_url: BaseUrl = None,
    option: ModelOption = None,
    chroma_url: ChromaOption = None,
    home: HomeOption = None,
) -> None:
    """Open a page in the browser: chat, the library, and recipes tried on pasted rows. Ctrl-C ends it."""
    from sleicl_chains.answering.opening import open_store
    from sleicl_chains.serving.listening import check_reach, is_here, listening, run
    from sleicl_chains.serving.weak import Choice, default_model, no_model, open_chat_model
    from sleicl_chains.serving.web import Page, page_app
    from sleicl_chains.serving.web_server import Guard

    check_reach(host, password, option="--password", variable="SLEICL_WEB_PASSWORD")
    place, options = Home.at(home), model_options(option, base_url)
    chosen = Choice(weak) if weak else default_model(place, base_url)
    if chosen is None:
        raise no_model()
    here = is_here(host)
    with listening(host, port) as (socket, address):
        page = Page(
            open_chat_model(chosen.name, place, options), open_store(place, chroma_url=chroma_url), chosen.name,
            chosen.note, _opened(recipes or [], chosen.name, base_url, place),
        )  # fmt: skip
        app = Guard(page_app(page, password), here=here)
        # An open page keeps a request open, so that there is always something to wait for.
        run(app, socket, greet=lambda: _greet(chosen, address, here), stop_s=3)


def _greet(chosen: "Choice", address: str, here: bool) -> None:
    say([f"Model: {chosen.name}.", *([f"Note: {chosen.note}."] if chosen.note else [])])
    if not here:
        say("Warning: what is said goes over the network unencrypted; a proxy with TLS in front helps.")
    print(address, flush=True)
    say("Open this address in a browser; Ctrl-C ends the server.")


def _opened(recipes: list[Path], weak: str, base_url: str | None, home: Home) -> "dict[str, Opened]":
    """Return the solvers of recipes by the names of their tasks; one of a model elsewhere wants it named by --weak."""
    from sleicl_chains.answering.opening import open_recipe, open_solver

    found: dict[str, Opened] = {}
    for path in recipes:
        recipe = open_recipe(path)
        same_kind = recipe.weak.partition(":")[0] == weak.partition(":")[0]
        options = {"base_url": base_url} if base_url and same_kind else {}
        opened = open_solver(None, recipe, home, weak=weak if weak == recipe.weak else None, options=options)
        name = opened.task.name if opened.task.name not in found else f"{opened.task.name} ({path.name})"
        if name in found:
            raise OptionError(f"{path}: was given twice")
        found[name] = opened
    return found
