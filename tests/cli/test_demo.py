"""`sleicl demo` with the real model, and few of everything."""

from pathlib import Path

import pytest

from sleicl_chains.cli.demo import SHIPPED
from sleicl_chains.files import Home, data_folder
from sleicl_chains.grimoires.grimoire import load_grimoire
from tests.support.command import sleicl

ARMS = ["majority", "probe", "zero-shot", "few-shot", "simple", "profound"]


@pytest.fixture(autouse=True)
def in_short(monkeypatch: pytest.MonkeyPatch) -> None:
    """One text a label for the prior and one example a label: the whole demo takes a minute or two."""
    monkeypatch.setattr("sleicl_chains.answering.priors.MEAN_ROWS", 6)
    monkeypatch.setattr("sleicl_chains.grimoires.samplers.FEW_SHOT_PER_LABEL", 1)
    monkeypatch.setattr("sleicl_chains.cli.demo.PER_LABEL", 1)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, weights: Path) -> Home:
    """A home of the module: the second test finds the journal of the first."""
    home = Home(tmp_path_factory.mktemp("demo"))
    home.weights.mkdir()
    (home.weights / "smollm2").symlink_to(weights)
    return home


def arms_of(table: str) -> list[str]:
    lines = table.splitlines()
    head = next(number for number, line in enumerate(lines) if line.startswith("arm "))
    return [line.split()[0] for line in lines[head + 1 : head + 1 + len(ARMS)]]


def test_the_shipped_grimoire_is_there() -> None:
    file = data_folder("vectorstore/grimoires") / f"{SHIPPED}.md"
    assert isinstance(file, Path)
    grimoire = load_grimoire(file)
    assert grimoire.id == SHIPPED and grimoire.profound and grimoire.simple


def test_the_demo_and_the_same_again_from_disk(place: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    first = sleicl("demo", "--rows", 3, "--home", place.root)
    assert first.status == 0, first.err
    out = first.out
    parts = [
        "1. The task: Classify each customer message",
        f"\n2. The grimoire {SHIPPED}, the one that ships with the package.",
    ]
    parts += ["   and its simple form:\n", "\n3. The weak model embedded:smollm2 answers 3 questions it has not seen"]
    parts += ["support: 3 rows, embedded:smollm2", "3 test rows and\na model of 135 million parameters"]
    parts += [
        "\n  sleicl init your.csv --task card.toml ",
        "\n  sleicl write --task card.toml --rows your.csv --strong ",
    ]
    parts += ["\n  sleicl learn --task card.toml --rows your.csv --weak embedded:smollm2 ", "\n  sleicl ask --recipe "]
    parts += ["\n  sleicl evaluate --task card.toml --rows test.csv --train your.csv --recipe "]
    places = [out.find(part) for part in parts]
    assert -1 not in places and places == sorted(places)
    assert "   k-means drew 6 examples from 180 training rows, 1 a label; the first 12:\n" in out
    assert arms_of(out) == ARMS
    (run,) = place.runs.iterdir()
    answers = (run / "rows.jsonl").read_bytes()
    assert answers.count(b"\n") == 3 * len(ARMS)

    def no_engine(*_: object, **__: object) -> None:
        raise AssertionError("the model was asked again")

    monkeypatch.setattr("sleicl_chains.models.llamacpp.model.engine_for", no_engine)
    again = sleicl("demo", "--rows", 3, "--home", place.root)
    assert again.out == out and (run / "rows.jsonl").read_bytes() == answers


def test_the_demo_with_a_strong_model(place: Home, tmp_path: Path) -> None:
    letters = tmp_path / "letters"
    command = ("demo", "--rows", 3, "--home", place.root, "--strong", f"paste:{letters}")
    labels = "billing, shipping, returns, account, technical, sales"
    for number, text in ((1, f"Long: {labels}."), (2, f"Short: {labels}.")):
        waiting = sleicl(*command)
        assert waiting.status == 1
        assert waiting.err.splitlines()[-1].startswith(
            f"sleicl: {letters}/{number:02}.reply.txt: there is no reply yet"
        )
        (letters / f"{number:02}.reply.txt").write_text(text, encoding="utf-8")
    done = sleicl(*command)
    assert done.status == 0, done.err
    (file,) = place.grimoires.iterdir()
    assert f"\n2. The grimoire {file.stem}, written now by paste:{letters}:\n\n   Long: {labels}.\n" in done.out
    assert f"\n   and its simple form:\n\n   Short: {labels}.\n" in done.out
    assert arms_of(done.out) == ARMS and "few-shot shows the grimoire's own examples" in done.out
    assert len(load_grimoire(file).provenance.examples) == 6
