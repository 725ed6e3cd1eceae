"""`sleicl export`, `import`, `grimoires export|import`: grimoires and recipes to and from others."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sleicl_chains.answering.opening import open_store
from sleicl_chains.cli import exporting
from sleicl_chains.cli.options import ChromaOption, HomeOption, JsonOption
from sleicl_chains.cli.printing import say
from sleicl_chains.cli.steps import print_json
from sleicl_chains.errors import InputError
from sleicl_chains.files import Home, refuse_unwritable, write_whole

if TYPE_CHECKING:
    from sleicl_chains.grimoires.exchange import Parcel

export_app = typer.Typer(
    help="Take a recipe or a grimoire to other programs.", no_args_is_help=True, rich_markup_mode=None
)
export_app.command("ollama")(exporting.export_ollama)
export_app.command("modelfile")(exporting.export_modelfile)
export_app.command("prompt")(exporting.export_prompt)
import_app = typer.Typer(help="Take in what other programs use.", no_args_is_help=True, rich_markup_mode=None)

TrustOption = Annotated[
    bool, typer.Option("--trust", help="Take texts that name tools, files or addresses; you have read them.")
]


def export_grimoires(
    ids: Annotated[list[str], typer.Argument(metavar="ID...", help="Grimoires, versions (ID@2) or tags.")],
    out: Annotated[Path | None, typer.Option("--output", "-o", help="The file; stdout without it.")] = None,
    history: Annotated[bool, typer.Option("--history", help="With the texts that each had before.")] = False,
    home: HomeOption = None,
) -> None:
    """Write grimoires into one file that others can import."""
    from sleicl_chains.grimoires.exchange import packed

    text = packed(open_store(Home.at(home)), ids, history=history)
    if out is None:
        print(text, end="")
        return
    refuse_unwritable(out)
    write_whole(out, text)
    print(out)


def import_grimoires(
    file: Annotated[Path, typer.Argument(help="A file of `sleicl grimoires export`.")],
    trust: TrustOption = False,
    as_json: JsonOption = False,
    chroma_url: ChromaOption = None,
    home: HomeOption = None,
) -> None:
    """Add the grimoires of a file to the library, all or none; those that are there are not changed."""
    from sleicl_chains.grimoires.exchange import read_parcels

    _take(read_parcels(file), trust, as_json, Home.at(home), chroma_url)


def _take(parcels: "list[Parcel]", trust: bool, as_json: bool, home: Home, chroma_url: str | None) -> None:
    from sleicl_chains.cli.versions import say_near
    from sleicl_chains.grimoires.exchange import lines_to_trust, receive

    named = lines_to_trust(parcels)
    say(named)
    if named and not trust:
        raise InputError(
            "nothing is taken: the lines above name what is outside the text; --trust takes it all the same"
        )
    for parcel in parcels:
        say(f"Warning: {warning}" for warning in parcel.grimoire.provenance.warnings)
    store = open_store(home, chroma_url=chroma_url)
    received = receive(store, parcels)
    for one in received:
        if one.state == "added":
            say_near(store, one.id)
        elif one.state == "renamed":
            say([f"Note: {one.name} is here with another text, which stays; this one is {one.id}."])
        else:
            say([f"Note: {one.name} is here already{'' if one.id == one.name else f', as {one.id}'}."])
    if as_json:
        print_json([{"name": one.name, "id": one.id, "state": one.state} for one in received])
        return
    for one in received:
        print(one.id)


@export_app.command("skill")
def export_skill(
    id: Annotated[str, typer.Argument(metavar="ID", help="A grimoire, a version (ID@2) or a tag.")],
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="The folder of skills; many agents look into .agents/skills.")
    ] = Path(".agents/skills"),
    home: HomeOption = None,
) -> None:
    """Write a grimoire as a skill for agents, a folder with a SKILL.md, and print the folder."""
    from sleicl_chains.grimoires.skills import write_skill

    version = open_store(Home.at(home)).version(id)
    # Under the name, as `grimoires export` does: no file may be called mine@1, and so it could not come back.
    print(write_skill(replace(version.grimoire, id=version.name), folder))


@import_app.command("skill")
def import_skill(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A folder with a SKILL.md.")],
    trust: TrustOption = False,
    as_json: JsonOption = False,
    chroma_url: ChromaOption = None,
    home: HomeOption = None,
) -> None:
    """Add an agent's skill to the library: its text alone, no scripts and no tools."""
    from sleicl_chains.grimoires.exchange import Parcel
    from sleicl_chains.grimoires.skills import read_skill

    skill = read_skill(folder)
    say(f"Note: {note}." for note in skill.notes)
    _take([Parcel(skill.grimoire)], trust, as_json, Home.at(home), chroma_url)
