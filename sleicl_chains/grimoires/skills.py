"""Grimoires as skills of agents: a folder with a `SKILL.md`, as agentskills.io/specification describes it.

Many agents list and read such folders. The body is the grimoire's text, and `description` says when to use it: that is
what agents choose by. What makes a skill a grimoire again is kept in `metadata`, as JSON in one string.
"""

import json
import re
import unicodedata
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, ValidationError

from sleicl_chains.errors import InputError, first_complaint
from sleicl_chains.files import parse_json, read_text, write_whole
from sleicl_chains.grimoires.grimoire import (
    Grimoire,
    Provenance,
    grimoire_id,
    head_and_body,
    plain_yaml,
    version_id,
    without_tokens,
    yaml_lines,
)
from sleicl_chains.hashes import short_hash

_KEY = "sleicl-grimoire"
_FIELDS = ("name", "description", "license", "compatibility", "metadata", "allowed-tools")
_DESCRIPTION_LIMIT = 1024
_NAME_LIMIT = 64
_SIMPLE = Path("references") / "simple.md"


class Skill(NamedTuple):
    """A skill that was read."""

    grimoire: Grimoire
    notes: list[str]
    """What of it was left out or mended, a sentence each."""


class _About(BaseModel):
    """What is kept of a grimoire beside its texts."""

    model_config = ConfigDict(extra="forbid")

    id: str
    front: str
    """The front matter of its Markdown file."""
    body: Literal["profound", "simple"]
    """Which text is the skill's body."""
    version: str
    """The id made from both texts: who edits them takes the measured effects away."""


def skill_name(id: str) -> str:
    """Return a skill's name for an id: at most 64 of a-z, 0-9 and single hyphens, none at its ends.

    A name that had to leave something out ends with a hash of the id, so that two ids never share one.
    """
    plain = unicodedata.normalize("NFKD", id).encode("ascii", "ignore").decode().lower()
    name = re.sub(r"[^a-z0-9]+", "-", plain).strip("-")
    if name == id and len(name) <= _NAME_LIMIT:
        return name
    return f"{name[: _NAME_LIMIT - 9].strip('-') or 'grimoire'}-{short_hash(id)[:8]}"


def write_skill(grimoire: Grimoire, folder: Path) -> Path:
    """Write a grimoire as a skill into a folder of skills and return the skill's own folder.

    Raises:
        InputError: another skill of that name is there.
        OSError: the files cannot be written.
    """
    name = skill_name(grimoire.id)
    place = folder / name
    _refuse_others(place, grimoire.id)
    body = "profound" if grimoire.profound else "simple"
    front = {"name": name, "description": _purpose(grimoire), "metadata": {_KEY: _about(grimoire, body)}}
    if grimoire.profound and grimoire.simple:
        mark = "\ufeff" if grimoire.simple.startswith("\ufeff") else ""  # readers take the first for the file's own
        write_whole(place / _SIMPLE, f"{mark}{grimoire.simple}\n")
    else:
        (place / _SIMPLE).unlink(missing_ok=True)
    write_whole(place / "SKILL.md", f"---\n{yaml_lines(front)}---\n\n{getattr(grimoire, body)}\n")
    return place


def _refuse_others(place: Path, id: str) -> None:
    try:
        found = read_skill(place).grimoire.id if (place / "SKILL.md").exists() else id
    except InputError:
        found = ""
    if found != id:
        raise InputError(f"{place} holds another skill; remove it, or name another folder")


def _purpose(grimoire: Grimoire) -> str:
    """Return when to use a skill, on one line and without `---`, at which some readers would end the front matter."""
    what = grimoire.description or f"{grimoire.task} {grimoire.task_type}".strip()
    said = f"Use when asked: {what}" + (
        f" The answer is one of: {', '.join(grimoire.labels)}." if grimoire.labels else ""
    )
    said = re.sub(r"--+", "-", " ".join("".join(one if one.isprintable() else " " for one in said).split()))
    return said if len(said) <= _DESCRIPTION_LIMIT else said[: _DESCRIPTION_LIMIT - 3] + "..."


def _about(grimoire: Grimoire, body: str) -> str:
    head, _ = head_and_body(grimoire.to_markdown())
    # ASCII on one line: no reader's YAML can change it, and none finds the end of the front matter in it.
    about = {"id": grimoire.id, "body": body, "version": version_id(grimoire), "front": head}
    return json.dumps(about).replace("--", "-\\u002d")


def read_skill(folder: Path) -> Skill:
    """Return a skill's folder as a grimoire: as what it was, or else for an open-ended task.

    Its text becomes text for a model and nothing else: scripts, other files and allowed tools are left out. Files are
    of limited size, and none may be a link out of the folder.

    Raises:
        InputError: there is no SKILL.md, or it cannot be read as one.
    """
    path = next((folder / name for name in ("SKILL.md", "skill.md") if (folder / name).is_file()), folder / "SKILL.md")
    text = _inside(path, folder)
    try:
        front, body = _front_and_body(text)
        about = _KEY in _mapping(front.get("metadata", {}), "metadata")
        grimoire = _as_it_was(front, body, folder) if about else _open_ended(front, body)
        notes = [] if about else _notes(front, folder)
        return Skill(without_tokens(grimoire), notes)
    except InputError as problem:
        raise InputError(f"{path}: {problem}") from None


def _inside(path: Path, folder: Path) -> str:
    if not path.resolve().is_relative_to(folder.resolve()):
        raise InputError(f"{path}: this is a link out of the skill's folder; expected a file in it")
    return read_text(path, "a skill's text")


def _front_and_body(text: str) -> tuple[dict[str, Any], str]:
    head, body = head_and_body(text)
    return _mapping(plain_yaml(_quoted(head)), "the front matter"), body.strip()


def _quoted(head: str) -> str:
    """Put quotes around a name or description with a colon in it, which people write without."""
    return re.sub(
        r"^(name|description): +(?![\"'>|])(.*: .*)$",
        lambda line: f"{line[1]}: {json.dumps(line[2], ensure_ascii=False)}",
        head,
        flags=re.MULTILINE,
    )


def _mapping(value: object, what: str) -> dict[str, Any]:
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise InputError(f"{what}: expected names and values")
    return value


def _as_it_was(front: dict[str, Any], body: str, folder: Path) -> Grimoire:
    where = Path(f"metadata {_KEY}")
    try:
        value = parse_json(str(front["metadata"][_KEY]), where, "what `sleicl export skill` writes")
        about = _About.model_validate(value)
    except ValidationError as problem:
        raise InputError(f"{where}: {first_complaint(problem)}") from None
    simple = folder / _SIMPLE
    short = _inside(simple, folder) if about.body == "profound" and simple.is_file() else ""
    profound, simple_text = (body, short) if about.body == "profound" else ("", body)
    facts = Grimoire.from_markdown(f"---\n{about.front}\n---\n# Simple grimoire\n-\n", id=about.id)
    grimoire = replace(facts, profound=profound, simple=simple_text)
    return grimoire if version_id(grimoire) == about.version else replace(grimoire, effects=())


def _open_ended(front: dict[str, Any], body: str) -> Grimoire:
    name, description = (front.get(key) for key in ("name", "description"))
    if not isinstance(name, str) or not name.strip() or not isinstance(description, str) or not description.strip():
        raise InputError("name or description is missing; a skill has both")
    license = front.get("license")
    source = f"not known: read from the skill {name.strip()}" + (f", license: {license}" if license else "")
    about = Provenance(strong_model=" ".join(source.split()))
    return Grimoire(grimoire_id(name.strip(), body, ""), name.strip(), "", description.strip(), (), body, "", about)


def _notes(front: dict[str, Any], folder: Path) -> list[str]:
    """Return what is left out of somebody else's skill, and what is not as it should be."""
    notes = []
    if more := sorted(item.name for item in folder.iterdir() if item.name.lower() != "skill.md")[:9]:
        notes.append(f"left out: {', '.join(more)}; only the text of SKILL.md is taken")
    if tools := front.get("allowed-tools"):
        notes.append(f"left out: allowed-tools ({tools!s:.200}); a grimoire calls none")
    if unknown := sorted(set(front) - set(_FIELDS)):
        notes.append(f"left out: {', '.join(unknown)[:200]}")
    if skill_name(str(front["name"])) != folder.resolve().name:
        notes.append(f"the name {front['name']!s:.80} is not the folder's, {folder.resolve().name}")
    return notes
