"""`sleicl demo` with the real model, and few of everything."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from sleicl_chains.cli.demo import SHIPPED, _show_reading
from sleicl_chains.evaluation.words import situation
from sleicl_chains.files import Home, data_folder
from sleicl_chains.grimoires.grimoire import load_grimoire
from sleicl_chains.models.names import weak_model
from sleicl_chains.models.reading import Reading, keep_reading
from tests.support.command import Done, sleicl
from tests.support.fake_models import Writer

ALONE = ["majority", "probe", "zero-shot", "profound"]
BESIDE = [*ALONE, "few-shot", "profound+few-shot"]


@pytest.fixture(autouse=True)
def in_short(monkeypatch: pytest.MonkeyPatch) -> None:
    """One text a label for the prior and one example a label: the whole demo takes a minute or two."""
    monkeypatch.setattr("sleicl_chains.answering.priors.MEAN_ROWS", 6)
    monkeypatch.setattr("sleicl_chains.grimoires.samplers.FEW_SHOT_PER_LABEL", 1)
    for name, shipped in SHIPPED.items():
        monkeypatch.setitem(SHIPPED, name, replace(shipped, per_label=1))
    monkeypatch.setattr("sleicl_chains.models.reading._shipped", lambda: {})


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, weights: Path) -> Home:
    """A home of the module: what one test has asked another finds in the journal."""
    home = Home(tmp_path_factory.mktemp("demo"))
    home.weights.mkdir()
    (home.weights / "smollm2").symlink_to(weights)
    return home


def demo(place: Home, *more: object, rows: int = 3) -> Done:
    return sleicl("demo", "--weak", "embedded:smollm2", "--rows", rows, "--home", place.root, *more)


def tables_of(out: str) -> list[list[str]]:
    """Return the arms of each table."""
    lines = out.splitlines()
    heads = [number for number, line in enumerate(lines) if line.startswith("arm ")]
    return [
        [line.split()[0] for line in lines[head + 1 : head + 1 + len(arms)]]
        for head, arms in zip(heads, (ALONE, BESIDE), strict=True)
    ]


@pytest.mark.parametrize("name", SHIPPED)
def test_the_shipped_grimoires_are_there(name: str) -> None:
    file = data_folder("vectorstore/grimoires") / f"{SHIPPED[name].grimoire}.md"
    assert isinstance(file, Path)
    grimoire = load_grimoire(file)
    assert (grimoire.id, grimoire.task) == (SHIPPED[name].grimoire, name) and grimoire.profound and grimoire.simple


def test_the_demo_and_the_same_again_from_disk(place: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    first = demo(place)
    assert first.status == 0, first.err
    out = first.out
    parts = [
        "Whether embedded:smollm2 follows guides is not known; sleicl models check embedded:smollm2 finds out.\n\n",
        "1. The task: Route each message that tenants write",
        f"\n2. The grimoire {SHIPPED['desk'].grimoire}, the one that ships with the package.",
        "conventions or at any other row; no strong model was asked (`--strong MODEL` asks one):\n\n   Go through ",
        "\n3. embedded:smollm2 answers 3 questions it has not seen, without and with the grimoire.\n",
        "\ndesk: 3 rows, embedded:smollm2, 200 training rows",
        "\n4. The same with worked examples before each question, and with both.\n",
        "\ndesk: 3 rows, embedded:smollm2, 200 training rows",
        "\nThis task was made to show where grimoires earn their place",
        "\n3 test rows and one model are no more than that.",
        "\n  sleicl init your.csv --task card.toml ",
        "\n  sleicl write --task card.toml --rows your.csv --strong ",
        "\n  sleicl learn --task card.toml --rows your.csv --weak embedded:smollm2 ",
        "\n  sleicl ask --recipe ",
        "\n  sleicl evaluate --task card.toml --rows test.csv --train your.csv --recipe ",
    ]
    at = 0
    for part in parts:
        assert (found := out.find(part, at)) >= 0, part
        at = found + 1
    assert "   k-means drew 7 examples from 200 training rows, 1 a label; the first 12:\n" in out
    assert tables_of(out) == [ALONE, BESIDE]
    answers = {run: (run / "rows.jsonl").read_bytes() for run in place.runs.iterdir()}
    assert sorted(text.count(b"\n") for text in answers.values()) == [3 * len(ALONE), 3 * len(BESIDE)]

    def no_engine(*_: object, **__: object) -> None:
        raise AssertionError("the model was asked again")

    monkeypatch.setattr("sleicl_chains.models.llamacpp.model.engine_for", no_engine)
    again = demo(place)
    assert again.out == out and answers == {run: (run / "rows.jsonl").read_bytes() for run in place.runs.iterdir()}


def test_the_demo_of_the_other_example(place: Home) -> None:
    done = demo(place, "--example", "support", rows=1)
    assert done.status == 0, done.err
    assert "1. The task: Classify each customer message" in done.out
    assert f"\n2. The grimoire {SHIPPED['support'].grimoire}, the one that ships with the package." in done.out
    assert "   k-means drew 6 examples from 180 training rows, 1 a label; the first 12:\n" in done.out
    assert tables_of(done.out) == [ALONE, BESIDE] and "\nThis is an illustration: one small task" in done.out
    assert "support: 1 rows, embedded:smollm2, 180 training rows" in done.out


@pytest.mark.parametrize(
    ("score", "said"),
    [
        (
            0.25, "The weak model embedded:smollm2 does not follow guides (.25, chance .25), so a grimoire is not "
            "expected\nto help it. One that follows them: sleicl demo --weak embedded:qwen2.5-coder-1.5b\n\n",
        ),
        (0.9, "The weak model embedded:smollm2 follows guides (.90, chance .25).\n\n"),
    ],
)  # fmt: skip
def test_the_demo_says_first_whether_the_model_reads(place: Home, score: float, said: str) -> None:
    gap = score - 0.25
    known = Reading(score, score - 0.05, score + 0.05, 0.25, 96, 0.25, gap, gap - 0.1, gap + 0.1, "score", "questions")
    keep_reading(weak_model("embedded:smollm2", home=place), known, place)
    try:
        done = demo(place, "--example", "support", rows=1)
    finally:
        shutil.rmtree(place.readings)
    assert done.status == 0 and done.out.startswith(f"{said}1. The task: ")
    lines = done.out.splitlines()
    note = "embedded:smollm2 does not follow guides (.25, chance .25); a larger model may"
    assert lines.count(note) == (2 if score == 0.25 else 0)  # under each table
    assert lines.count(situation(180, gives_state=True)) == (0 if score == 0.25 else 2)


@pytest.mark.parametrize("name", ["embedded:x", "ollama:x", "openai:x"])
def test_a_check_is_advised_for_models_that_can_be_checked(
    name: str, home: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    _show_reading(Writer(), name, home)
    advice = "" if name == "openai:x" else f"; sleicl models check {name} finds out"
    assert capsys.readouterr().out == f"Whether {name} follows guides is not known{advice}.\n\n"


def test_another_example_is_misuse(place: Home) -> None:
    assert demo(place, "--example", "desks") == Done(
        2, "", "sleicl: There is no example 'desks'; there are: desk, support\n"
    )


def test_the_demo_with_a_strong_model(place: Home, tmp_path: Path) -> None:
    letters = tmp_path / "letters"
    command = ("--example", "support", "--strong", f"paste:{letters}")
    labels = "billing, shipping, returns, account, technical, sales"
    for number, text in ((1, f"Long: {labels}."), (2, f"Short: {labels}.")):
        waiting = demo(place, *command)
        assert waiting.status == 1
        assert waiting.err.splitlines()[-1].startswith(
            f"sleicl: {letters}/{number:02}.reply.txt: there is no reply yet"
        )
        (letters / f"{number:02}.reply.txt").write_text(text, encoding="utf-8")
    done = demo(place, *command)
    assert done.status == 0, done.err
    (file,) = place.grimoires.iterdir()
    assert f"\n2. The grimoire {file.stem}, written now by paste:{letters}:\n\n   Long: {labels}.\n" in done.out
    assert "no strong model was asked" not in done.out
    assert tables_of(done.out) == [ALONE, BESIDE] and "few-shot shows the grimoire's own examples" in done.out
    assert load_grimoire(file).simple == f"Short: {labels}."
    assert len(load_grimoire(file).provenance.examples) == 6
