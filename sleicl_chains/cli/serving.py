"""`sleicl serve`: recipes and chat for programs that speak as OpenAI's or Ollama's clients do."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sleicl_chains.cli.options import BaseUrl, HomeOption, MaybeWeak, ModelOption
from sleicl_chains.cli.printing import say
from sleicl_chains.cli.steps import model_options
from sleicl_chains.files import Home

if TYPE_CHECKING:
    from sleicl_chains.serving.server.menu import Menu


def serve(
    recipes: Annotated[
        list[Path] | None, typer.Argument(metavar="[RECIPE ...]", help="Recipes, served by their tasks' names.")
    ] = None,
    weak: MaybeWeak = None,
    host: Annotated[str, typer.Option(help="Where to listen; beyond this machine a key is needed.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8000,
    api_key: Annotated[
        str | None,
        typer.Option(envvar="SLEICL_API_KEY", help="What clients must show; the variable keeps it out of `ps`."),
    ] = None,
    ollama_api: Annotated[bool, typer.Option("--ollama-api", help="Speak as an Ollama server as well.")] = False,
    concurrency: Annotated[int, typer.Option(min=1, help="Requests at once, for models on other machines.")] = 1,
    queue: Annotated[int, typer.Option(min=0, help="Requests that may wait; more get HTTP 503.")] = 32,
    timeout: Annotated[float, typer.Option(min=1, help="Longest request in seconds, waiting included.")] = 300.0,
    quiet: Annotated[bool, typer.Option("--quiet", help="No line a request.")] = False,
    base_url: BaseUrl = None,
    option: ModelOption = None,
    home: HomeOption = None,
) -> None:
    """Serve recipes and chat over HTTP, as OpenAI's API does; Ctrl-C ends it once the running requests are done."""
    from sleicl_chains.serving.listening import check_reach, listening, run
    from sleicl_chains.serving.server.app import build
    from sleicl_chains.serving.server.door import check_key
    from sleicl_chains.serving.server.requests import Limits

    check_reach(host, api_key, option="--api-key", variable="SLEICL_API_KEY")
    check_key(api_key)
    limits = Limits(waiting=queue, running=concurrency, seconds=timeout)
    with listening(host, port) as (socket, address):
        menu = _menu(recipes or [], weak, model_options(option, base_url), Home.at(home), timeout)
        log: Callable[[str], None] = (lambda line: None) if quiet else say
        app = build(menu, limits, key=api_key, ollama_api=ollama_api, log=log)
        run(app, socket, greet=lambda: say(_greeting(menu, address, api_key is not None, ollama_api)))


def _menu(recipes: list[Path], weak: str | None, options: dict[str, Any], home: Home, timeout: float) -> "Menu":
    from sleicl_chains.answering.opening import open_recipe, open_store
    from sleicl_chains.serving.server.menu import Menu, learned, patience
    from sleicl_chains.serving.weak import default_model, no_model, open_chat_model

    found = learned(
        [(path, open_recipe(path)) for path in recipes], home, weak=weak, options=options, timeout_s=timeout
    )
    if weak is None and (choice := default_model(home, options.get("base_url"))):
        weak = choice.name
        say([f"Note: {choice.note}."] if choice.note else [])
    if weak is None and not found:
        raise no_model()
    if weak is None:
        return Menu(found)
    return Menu(found, open_chat_model(weak, home, {**patience(weak, timeout), **options}), open_store(home))


def _greeting(menu: "Menu", address: str, keyed: bool, ollama_api: bool) -> list[str]:
    from sleicl_chains.models.abilities import name_of

    chat = f"chat with {name_of(menu.weak)}" if menu.weak else "no chat (--weak MODEL adds it)"
    also = " and Ollama's at the same address" if ollama_api else ""
    key = "with a key" if keyed else "for this machine alone"
    return [
        f"OpenAI's API is at {address}/v1{also}, {key}: {', '.join([*menu.recipes, chat])}.",
        "Ctrl-C ends it.",
    ]
