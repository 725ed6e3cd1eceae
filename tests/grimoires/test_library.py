"""The grimoires that ship with the package: each is whole, correct in form, and safe to put in front of any model."""

import re
from pathlib import Path

import pytest

from sleicl_chains.files import data_folder
from sleicl_chains.grimoires.grimoire import Grimoire, grimoire_id, load_grimoire
from sleicl_chains.models.template_tokens import without_template_tokens

EXAMPLES = {"desk", "support"}
"""Grimoires of the two example tasks, written before the starter library and to other limits."""
LABELLED = {"sentiment", "news-topic", "intent", "spam", "toxicity", "question-type", "urgency", "register"}
OPEN = {"summarise-notes", "reply-to-customer", "rewrite-plainly", "notes-to-list"}

FILES = sorted(Path(str(data_folder("vectorstore/grimoires"))).glob("*.md"))
STARTERS = [file for file in FILES if file.stem.rpartition("-")[0] not in EXAMPLES]

ADDRESS = re.compile(r"://|\bwww\.|\S@\S|\b\w+\.(?:com|org|net|io|py|sh|exe|md)\b|(?<!\S)[~/][\w./]+|[A-Z]:\\")
TOOL = re.compile(r"`|\b(?:curl|bash|python|sudo|eval|exec|shell|function call|tool|plugin)s?\b", re.IGNORECASE)


def of_each(files: list[Path]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("file", files, ids=lambda file: file.stem)


def missing(labels: tuple[str, ...], text: str) -> list[str]:
    """Return the labels that do not stand in a text as words of their own."""
    return [label for label in labels if not re.search(rf"(?<!\w){re.escape(label)}(?!\w)", text)]


def test_the_library_has_a_grimoire_for_each_task() -> None:
    found = [(grimoire.task, bool(grimoire.labels)) for grimoire in map(load_grimoire, FILES)]
    assert found == sorted((task, task not in OPEN) for task in EXAMPLES | LABELLED | OPEN)


@of_each(FILES)
def test_a_shipped_grimoire_is_whole(file: Path) -> None:
    grimoire = load_grimoire(file)
    assert grimoire.id == file.stem == grimoire_id(grimoire.task, grimoire.profound, grimoire.simple)
    assert Grimoire.from_markdown(grimoire.to_markdown(), id=file.stem) == grimoire
    assert grimoire.description and grimoire.task_type and grimoire.provenance.date
    assert 0 < len(grimoire.simple) < len(grimoire.profound)
    assert (missing(grimoire.labels, grimoire.profound), missing(grimoire.labels, grimoire.simple)) == ([], [])


@of_each(FILES)
def test_a_shipped_grimoire_names_no_address_tool_or_template_token(file: Path) -> None:
    grimoire = load_grimoire(file)
    text = f"{grimoire.description}\n{grimoire.profound}\n{grimoire.simple}"
    assert (ADDRESS.findall(text), TOOL.findall(text), without_template_tokens(text)[1]) == ([], [], [])
    assert text.replace("\n", " ").isprintable()


@of_each(STARTERS)
def test_a_starter_grimoire_keeps_to_its_size_and_says_that_it_saw_no_rows(file: Path) -> None:
    grimoire = load_grimoire(file)
    assert grimoire.to_markdown() == file.read_bytes().decode()
    assert 150 <= len(grimoire.profound.split()) <= 450 and 3 <= len(grimoire.simple.splitlines()) <= 6
    assert grimoire.description.endswith(".") and ". " not in grimoire.description  # one sentence
    assert grimoire.provenance.sampler == "none" and grimoire.provenance.rows_known


@of_each(FILES)
def test_effects_are_of_a_hundred_rows_or_more_and_none_stands_twice(file: Path) -> None:
    effects = load_grimoire(file).effects
    assert len({(effect.weak, effect.arm, effect.source) for effect in effects}) == len(effects)
    for effect in effects:
        assert effect.rows >= 100 and effect.low <= effect.difference <= effect.high
        assert re.fullmatch(r"([+-]\d?\.\d\d[], []*){3}on \d+ rows of [^,]+, [^,]+, \w+ against zero-shot", str(effect))


@pytest.mark.parametrize(
    ("text", "found"), [("see http://x.org", ["://", "x.org"]), ("to a@b", ["a@b"]), ("in /etc/x.", ["/etc/x."])]
)
def test_addresses_would_be_found(text: str, found: list[str]) -> None:
    assert ADDRESS.findall(text) == found and not TOOL.findall(text)
    assert TOOL.findall("run the Tools in `bash`") == ["Tools", "`", "bash", "`"]
