"""The example tasks that ship: that they are what is said of them."""

import json
import re
import shutil
from collections import Counter
from pathlib import Path

import pytest

from sleicl_chains.cli.demo import SHIPPED
from sleicl_chains.files import Home
from sleicl_chains.grimoires.grimoire import Grimoire, load_grimoire
from sleicl_chains.grimoires.samplers import sampler
from sleicl_chains.models.embedders import embedder
from sleicl_chains.tasks.cards import Task, load_task
from sleicl_chains.tasks.labels import fold
from sleicl_chains.tasks.rows import Example, load_examples, text_id
from tests.support.command import sleicl

ROOT = Path(__file__).parent.parent
DESK = ROOT / "examples" / "desk"
QUEUES = ("Fox", "Grove", "Ledger", "Mira", "Owl", "Quarry", "Tulip")


def loaded(name: str) -> tuple[Task, list[Example], list[Example]]:
    folder = ROOT / "examples" / name
    task = load_task(folder / "task.toml")
    return task, load_examples(folder / "train.jsonl", task), load_examples(folder / "test.jsonl", task)


def reviewed(name: str) -> Grimoire:
    return load_grimoire(ROOT / "vectorstore" / "grimoires" / f"{SHIPPED[name].grimoire}.md")


def rows_of_desk() -> list[dict[str, str]]:
    files = [(DESK / f"{name}.jsonl").read_text(encoding="utf-8") for name in ("train", "test")]
    return [json.loads(line) for text in files for line in text.splitlines()]


@pytest.mark.parametrize("name", SHIPPED)
def test_the_grimoire_is_of_this_task_and_was_written_from_no_row_that_is_evaluated(name: str) -> None:
    (task, train, test), grimoire = loaded(name), reviewed(name)
    assert (grimoire.id, grimoire.task, grimoire.labels) == (SHIPPED[name].grimoire, task.name, task.labels)
    assert grimoire.description == task.description
    assert grimoire.provenance.among(test) == [] and not grimoire.provenance.warnings
    for text in (grimoire.profound, grimoire.simple):
        assert [label for label in task.labels if label not in text] == []
    assert len({fold(row.text) for row in train} & {fold(row.text) for row in test}) == 0


@pytest.mark.parametrize("name", SHIPPED)
def test_no_row_stands_in_its_grimoire_or_in_two_places(name: str) -> None:
    (_, train, test), grimoire = loaded(name), reviewed(name)
    texts = [fold(row.text) for row in (*train, *test)]
    assert len(texts) == len(set(texts))
    assert [text for text in texts if text in fold(grimoire.profound) or text in fold(grimoire.simple)] == []


def test_desk_has_two_hundred_rows_in_each_half_balanced_over_the_queues() -> None:
    task, train, test = loaded("desk")
    assert (task.name, task.labels) == ("desk", QUEUES)
    for half in (train, test):
        counts = Counter(row.answer for row in half)
        assert len(half) == 200 and set(counts.values()) == {28, 29} and set(counts) == set(QUEUES)
    both = Counter(row.answer for row in (*train, *test))
    assert max(both.values()) - min(both.values()) <= 1


def test_how_hard_a_row_of_desk_is_has_three_known_words() -> None:
    found = rows_of_desk()
    assert {tuple(row) for row in found} == {("text", "answer", "difficulty")}
    assert set(Counter(row["difficulty"] for row in found)) == {"easy", "two topics", "hard"}
    for label in QUEUES:
        assert {row["difficulty"] for row in found if row["answer"] == label} == {"easy", "two topics", "hard"}


def test_no_text_of_desk_names_a_queue() -> None:
    names = re.compile(rf"\b({'|'.join(QUEUES)})s?\b", re.IGNORECASE)
    assert [row["text"] for row in rows_of_desk() if names.search(row["text"])] == []


def test_the_grimoire_of_desk_was_written_from_the_rows_that_the_demo_draws() -> None:
    task, train, _ = loaded("desk")
    written, known = reviewed("desk").provenance, {row.id: row for row in train}
    assert (written.sampler, written.per_label, written.seed) == ("kmeans", SHIPPED["desk"].per_label, 0)
    assert len(set(written.examples)) == 42 and set(written.examples) <= set(known)
    assert Counter(known[id].answer for id in written.examples) == dict.fromkeys(QUEUES, 6)
    assert set(written.text_ids) == {text_id(known[id].text) for id in written.examples}
    draw = sampler("kmeans", per_label=6, seed=0, embeddings=embedder())
    assert {row.id for row in draw.invoke({"task": task, "examples": train})} == set(written.examples)


def test_the_grimoire_of_desk_is_what_its_letters_say(tmp_path: Path, home: Home) -> None:
    """Whoever repeats the command with these letters is asked for nothing and gets the shipped one."""
    letters = tmp_path / "letters"
    shutil.copytree(DESK / "letters", letters)
    before = {file.name: file.read_bytes() for file in letters.iterdir()}
    assert sorted(before) == [f"{number:02}.{kind}.txt" for number in (1, 2) for kind in ("prompt", "reply")]
    command = ("write", "--task", DESK / "task.toml", "--rows", DESK / "train.jsonl", "-n", 6, "--seed", 0)
    done = sleicl(*command, "--strong", f"paste:{letters}")
    assert (done.status, done.out) == (0, f"{SHIPPED['desk'].grimoire}\n"), done.err
    assert {file.name: file.read_bytes() for file in letters.iterdir()} == before
    written, shipped = load_grimoire(home.grimoires / f"{SHIPPED['desk'].grimoire}.md"), reviewed("desk")
    assert (written.profound, written.simple) == (shipped.profound, shipped.simple)
    assert written.provenance.examples == shipped.provenance.examples and not written.provenance.warnings


def test_the_letters_of_desk_show_no_other_row_and_not_the_conventions() -> None:
    _, train, test = loaded("desk")
    letters = "\n".join(file.read_text(encoding="utf-8") for file in sorted((DESK / "letters").iterdir()))
    written = set(reviewed("desk").provenance.examples)
    assert [row.text for row in (*train, *test) if row.id not in written and row.text in letters] == []
    rules = [line for line in (DESK / "conventions.md").read_text(encoding="utf-8").splitlines() if len(line) > 40]
    assert rules and not [rule for rule in rules if rule in letters]
