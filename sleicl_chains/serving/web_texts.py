"""What the page shows as Markdown. Replies, rows and grimoires come from others: none of them draws or fetches."""

import re
from collections.abc import Sequence

from sleicl_chains.grimoires.grimoire import Grimoire
from sleicl_chains.grimoires.versions import Version, changes
from sleicl_chains.serving.conversation import Conversation
from sleicl_chains.serving.picking import Pick

_PUNCTUATION = re.compile(r"([!-/:-@\[-`{-~])")
_CODE = re.compile(
    r"^ {0,3}(?P<fence>`{3,}|~{3,})[^\n]*(?:\n.*?(?:^ {0,3}(?P=fence)[`~]*[ \t]*$|\Z)|\Z)"
    r"|(?<!`)(?P<ticks>`+)(?!`)(?:(?!\n[ \t]*\n).)+?(?<!`)(?P=ticks)(?!`)",
    re.MULTILINE | re.DOTALL,
)
"""Blocks of code, the last one perhaps still open, and code within a line."""


def literal(text: str, most: int = 0) -> str:
    """Return Markdown that shows a text as it stands, on one line.

    Args:
        text: anybody's.
        most: characters that are shown; 0 for all.
    """
    line = " ".join(text.split())
    line = f"{line[: most - 1]}…" if most and len(line) > most else line
    return _PUNCTUATION.sub(r"\\\1", line)


def shown_reply(text: str) -> str:
    """Return a message's Markdown without images, and with its HTML as text; code stays as it is.

    The page refuses both by other means too: it is sanitised, and its policy lets nothing in from elsewhere.
    """
    parts, end = [], 0
    for code in _CODE.finditer(text):
        parts += [_inert(text[end : code.start()]), code[0]]
        end = code.end()
    return "".join([*parts, _inert(text[end:])])


def _inert(text: str) -> str:
    return re.sub(r"<(?=[A-Za-z/!?])", "&lt;", text.replace("![", "!\\["))


def note_of(talk: Conversation, pick: Pick) -> tuple[str, str] | None:
    """Return title and body of the note above an answer; None where nothing is to be said.

    That the model cannot read a guide is said at the first turn alone.
    """
    if pick.grimoire:
        title = f"Grimoire: {literal(pick.grimoire.task)}"
        return title, "\n".join([f"- {literal(pick.why)}", *_about(pick.grimoire)])
    if talk.grimoire == "none" or talk.store is None:
        return None
    if talk.unreadable:
        return ("No grimoires for this model", literal(talk.unreadable)) if len(talk.turns) < 2 else None
    return "No grimoire", literal(pick.why)


def _about(grimoire: Grimoire) -> list[str]:
    lines = [f"- id: {literal(grimoire.id)}", f"- for: {literal(grimoire.description, 300)}"]
    return lines + [f"- measured: {literal(str(effect))}" for effect in grimoire.effects]


def card(grimoire: Grimoire) -> str:
    """Return what a grimoire's card says, as plain lines: id, what it is for, what it was measured to do."""
    about = " ".join((grimoire.description or grimoire.task).split())
    measured = f"measured: {grimoire.effects[0]}" if grimoire.effects else "not measured"
    return "\n".join([grimoire.id, about if len(about) <= 160 else f"{about[:159]}…", measured])


def facts(grimoire: Grimoire) -> str:
    """Return a grimoire's facts as Markdown: what it is for, who wrote it, what it was measured to do."""
    wrote = ", ".join(filter(None, [grimoire.provenance.strong_model, grimoire.provenance.date]))
    lines = [f"### {literal(grimoire.task)}", literal(grimoire.description)]
    lines += [f"- id: {literal(grimoire.id)}"]
    lines += [f"- answers: {literal(', '.join(grimoire.labels), 400)}"] if grimoire.labels else []
    lines += [f"- written by: {literal(wrote)}"] if wrote else []
    lines += [f"- measured: {literal(str(effect))}" for effect in grimoire.effects] or ["- measured: not yet"]
    lines += [f"- warning: {literal(warning)}" for warning in grimoire.provenance.warnings]
    return "\n\n".join(lines[:2]) + "\n\n" + "\n".join(lines[2:])


def both_texts(grimoire: Grimoire) -> str:
    """Return the profound and the simple text, each under its heading."""
    texts = {"Profound": grimoire.profound, "Simple": grimoire.simple}
    given = {form: text for form, text in texts.items() if text}
    return "\n\n".join(f"# {form} grimoire\n\n{text}" for form, text in given.items())


def version_lines(versions: Sequence[Version]) -> str:
    """Return the versions of a grimoire as plain lines, the newest first, as `sleicl grimoires history` has them."""
    lines = []
    for place in reversed(range(len(versions))):
        version = versions[place]
        change = changes(versions[place - 1].grimoire, version.grimoire) if place else "the first text"
        parts = [version.reference, version.grimoire.provenance.date, change, ", ".join(version.tags)]
        lines.append("  ".join(filter(None, parts)))
    return "\n".join(lines)
