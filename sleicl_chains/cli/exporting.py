"""`sleicl export ollama`, `modelfile` and `prompt`: a recipe for clients that know nothing of recipes."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sleicl_chains.cli.options import BaseUrl, HomeOption, JsonOption, LongModelOption, MaybeWeak, OllamaUrl
from sleicl_chains.cli.printing import say
from sleicl_chains.cli.steps import model_options, print_json, read_stdin
from sleicl_chains.files import Home

if TYPE_CHECKING:
    from sleicl_chains.answering.recipes import Recipe
    from sleicl_chains.models.ollama.model import OllamaModel

RecipeFile = Annotated[Path, typer.Argument(help="A recipe as `sleicl learn` writes it.")]
BaseOption = Annotated[
    str | None, typer.Option("--from", metavar="MODEL", help="The Ollama model to build on; else the recipe's own.")
]


def export_ollama(
    recipe: RecipeFile,
    name: Annotated[str, typer.Argument(help="What the new model is called.")],
    base: BaseOption = None,
    base_url: OllamaUrl = None,
    option: LongModelOption = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a model of that name, whoever made it.")] = False,
    as_json: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """Make an Ollama model that carries a recipe's grimoire and examples, for any client of that server."""
    from sleicl_chains.serving.export import check_name, create

    check_name(name)
    place = Home.at(home)
    learned, weak = _opened(recipe, base, base_url, option, place)
    _say_what_travels(learned)
    made = create(learned, weak, name, home=place, force=force)
    if as_json:
        print_json(asdict(made) | {"training_rows": len(learned.examples), "server": weak.server.url})
        return
    left = made.context - made.prompt_tokens
    template = ", with a template, since it has none" if made.template else ""
    print(
        f"{made.name}: made from {made.base}{template}. {made.prompt_tokens} tokens stand before every question, which "
        f"leaves {left} of {made.context} for question and reply. Try: ollama run {made.name}"
    )


def export_modelfile(
    recipe: RecipeFile,
    base: BaseOption = None,
    base_url: OllamaUrl = None,
    option: LongModelOption = None,
    home: HomeOption = None,
) -> None:
    """Print what `export ollama` would send, as a Modelfile for `ollama create NAME -f FILE`."""
    from sleicl_chains.serving.export import exported, prompt_tokens

    learned, weak = _opened(recipe, base, base_url, option, Home.at(home))
    _say_what_travels(learned)
    text = exported(learned, weak).modelfile()
    prompt_tokens(learned, weak)
    print(text, end="")


def export_prompt(
    recipe: RecipeFile,
    question: Annotated[str, typer.Argument(help="The question; - reads it from stdin.")] = "QUESTION",
    weak: MaybeWeak = None,
    base_url: BaseUrl = None,
    option: LongModelOption = None,
    home: HomeOption = None,
) -> None:
    """Print the exact prompt that a recipe's model is given for a question."""
    from sleicl_chains.answering.opening import open_recipe, open_recipe_model

    place, learned = Home.at(home), open_recipe(recipe)
    model = open_recipe_model(learned, place, weak=weak, options=model_options(option, base_url))
    asked = read_stdin().strip() if question == "-" else question
    print(learned.prompt(asked, model, home=place))


def _opened(
    file: Path, base: str | None, base_url: str | None, option: list[str] | None, home: Home
) -> "tuple[Recipe, OllamaModel]":
    """Return a recipe, and the Ollama model that it is to be built on."""
    from sleicl_chains.answering.opening import open_recipe, open_weak
    from sleicl_chains.models.ollama.address import server_address
    from sleicl_chains.models.ollama.model import OllamaModel
    from sleicl_chains.models.ollama.server import Server
    from sleicl_chains.serving.export import base_of, options_for_ollama

    learned, server = open_recipe(file), Server(server_address(base_url))
    base = base.removeprefix("ollama:") if base else None
    learned.check_consent(base and f"ollama:{base}", base_url=base_url, embeddings=learned.embeddings)
    name = base or base_of(learned, server)
    options = {**options_for_ollama(learned), **model_options(option, base_url)}
    weak = open_weak(f"ollama:{name}", learned.task, home, options)
    assert isinstance(weak, OllamaModel)
    server.find(name)
    return learned, weak


def _say_what_travels(recipe: "Recipe") -> None:
    """Say what goes into the model, before it does."""
    if count := len(recipe.examples):
        say(f"{count} training rows travel along as text: whoever has the model can read them.")
    if recipe.mode != "generate":
        say(
            f"The recipe answers in mode {recipe.mode}; a plain client reads the model's words instead, behind the "
            "same grimoire and examples, and gets no probability. The recipe's figures do not hold for that."
        )
