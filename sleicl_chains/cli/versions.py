"""`sleicl grimoires history, diff, edit, tag, restore, duplicates`: what grimoires were, are and resemble."""

import os
import shlex
import subprocess
from dataclasses import asdict, replace
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sleicl_chains.answering.opening import open_store
from sleicl_chains.cli.options import ChromaOption, HomeOption, JsonOption
from sleicl_chains.cli.printing import say
from sleicl_chains.cli.steps import print_json
from sleicl_chains.errors import InputError, OptionError, SleiclError
from sleicl_chains.files import Home, read_text, write_whole

if TYPE_CHECKING:
    from sleicl_chains.grimoires.grimoire import Grimoire
    from sleicl_chains.grimoires.store import GrimoireStore
    from sleicl_chains.grimoires.versions import Version

Reference = Annotated[str, typer.Argument(metavar="ID", help="A grimoire's id, one of its versions (ID@2), or a tag.")]


def history(id: Reference, as_json: JsonOption = False, home: HomeOption = None) -> None:
    """Show the versions of a grimoire, the newest first: number, date, what changed, tags, measured effects."""
    versions = open_store(Home.at(home)).history(id)
    rows = [_about(versions, place) for place in reversed(range(len(versions)))]
    if as_json:
        print_json({"grimoire": versions[0].name, "versions": rows})
        return
    for row in rows:
        tags, effects = ", ".join(row["tags"]), "; ".join(row["effects"])
        print("\t".join([row["reference"], row["id"], row["date"], row["change"], tags, effects]).rstrip())


def _about(versions: "list[Version]", place: int) -> dict[str, Any]:
    from sleicl_chains.grimoires.versions import changes

    version, parent = versions[place], versions[place].grimoire.provenance.parent
    first = f"made from {parent}" if parent else "the first text"
    change = changes(versions[place - 1].grimoire, version.grimoire) if place else first
    about = {"reference": version.reference, "version": version.number, "id": version.id, "parent": parent or None}
    about |= {"date": version.grimoire.provenance.date, "change": change, "tags": list(version.tags)}
    about |= {"effects": [str(effect) for effect in version.grimoire.effects]}
    return about | {"current": place == len(versions) - 1}


def diff(
    first: Annotated[str, typer.Argument(metavar="A", help="A grimoire's id, a version (ID@1) or a tag.")],
    second: Annotated[
        str | None, typer.Argument(metavar="B", help="Another; without it, A is compared with the version before it.")
    ] = None,
    as_json: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """Show what differs between two grimoires or versions, as `diff -u` does; nothing where they are equal."""
    from sleicl_chains.grimoires.versions import changes, difference

    store = open_store(Home.at(home))
    before, after = _two(store, first) if second is None else (store.version(first), store.version(second))
    text = difference(before.grimoire, after.grimoire)
    if as_json:
        change = changes(before.grimoire, after.grimoire)
        print_json({"from": before.reference, "to": after.reference, "change": change, "diff": text})
    elif text:
        print(text)


def _two(store: "GrimoireStore", id: str) -> "tuple[Version, Version]":
    after = store.version(id)
    before = [version for version in store.history(id) if version.number < after.number]
    if not before:
        raise InputError(f"{after.reference} is the first version; name what it is to be compared with")
    return before[-1], after


class _NoEdit(InputError):
    """The editor gave nothing new."""


def edit(id: Reference, chroma_url: ChromaOption = None, home: HomeOption = None) -> None:
    """Open a grimoire in your editor ($VISUAL or $EDITOR); what you save becomes its new version."""
    store = open_store(Home.at(home), chroma_url=chroma_url)
    version = store.version(id)
    text = version.grimoire.to_markdown()
    folder = Path(mkdtemp(prefix="sleicl-"))
    copy = folder / f"{version.name}.md"
    write_whole(copy, text, mode=0o600)
    try:
        _open_editor(copy)
        saved = read_text(copy, "a grimoire")
        if saved == text:
            raise _NoEdit(f"{version.reference}: nothing was changed, and nothing is stored")
        done = store.revise(_edited(saved, version.name))
    except _NoEdit as problem:
        rmtree(folder)
        raise InputError(str(problem)) from None
    except SleiclError as problem:
        raise type(problem)(f"{str(problem).rstrip('.')}; your text is kept in {copy}") from None
    rmtree(folder)
    if done.reference == version.reference:
        say(["Note: the texts are the same; what was changed above them is saved, and makes no version."])
    print(done.reference)


def _open_editor(file: Path) -> None:
    editor = os.environ.get("VISUAL") or os.environ.get("EDITOR")
    if not editor:
        raise _NoEdit("neither VISUAL nor EDITOR names an editor; set one, as in EDITOR=nano sleicl grimoires edit ID")
    try:
        status = subprocess.run([*shlex.split(editor), str(file)]).returncode
    except (OSError, ValueError) as problem:
        raise _NoEdit(f"the editor {editor!r} cannot be started: {problem}") from None
    if status:
        raise _NoEdit(f"the editor {editor!r} ended with status {status}; nothing is stored")


def _edited(text: str, name: str) -> "Grimoire":
    from sleicl_chains.grimoires.grimoire import Grimoire, without_tokens
    from sleicl_chains.grimoires.versions import today

    grimoire = without_tokens(Grimoire.from_markdown(text, id=name))
    return replace(grimoire, provenance=replace(grimoire.provenance, date=today()))


def tag(
    id: Annotated[str | None, typer.Argument(metavar="ID", help="A grimoire's id, a version (ID@2) or a tag.")] = None,
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="A word that stands for this version.")] = None,
    remove: Annotated[str | None, typer.Option("--remove", metavar="NAME", help="The tag to remove.")] = None,
    as_json: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """Give a version a name that goes wherever an id does; without arguments, list the tags."""
    store = open_store(Home.at(home))
    if remove is not None and id is None:
        store.untag(remove)
        print(remove)
    elif remove is None and id is not None and name is not None:
        print(f"{name}\t{store.tag(id, name).reference}")
    elif remove is None and id is None:
        tags = store.tags()
        if as_json:
            print_json(tags)
        for word, reference in tags.items() if not as_json else ():
            print(f"{word}\t{reference}")
    else:
        raise OptionError("tag: expected ID and NAME, or --remove NAME alone, or nothing for a list")


def restore(
    id: Annotated[str, typer.Argument(metavar="ID", help="A removed grimoire, or a version (ID@1) or tag.")],
    chroma_url: ChromaOption = None,
    home: HomeOption = None,
) -> None:
    """Bring a removed grimoire back, or make an earlier version the current one again, as a new version."""
    store = open_store(Home.at(home), chroma_url=chroma_url)
    print(store.restore(id).reference)


def duplicates(as_json: JsonOption = False, chroma_url: ChromaOption = None, home: HomeOption = None) -> None:
    """List pairs of grimoires that say nearly the same."""
    from sleicl_chains.grimoires.duplicates import NEAR

    pairs = open_store(Home.at(home), chroma_url=chroma_url).duplicates()
    if as_json:
        print_json([asdict(pair) for pair in pairs])
        return
    for pair in pairs:
        print(f"{pair.cosine:.3f}\t{pair.first}\t{pair.second}" + ("\tequal" if pair.equal else ""))
    say([] if pairs else [f"No two are near: none reaches a cosine of {NEAR}."])


def say_near(store: "GrimoireStore", id: str) -> None:
    """Warn of grimoires that say nearly the same as one that was just stored."""
    for pair in store.duplicates(id):
        other = pair.second if pair.first == id else pair.first
        how = "the same rules" if pair.equal else f"nearly the same (cosine {pair.cosine:.3f})"
        say([f"Warning: {other} says {how}; `sleicl grimoires diff {other} {id}` shows the difference."])
