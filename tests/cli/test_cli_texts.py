"""`--texts FILE`: texts without answers, which the prior of `ask` and `evaluate` is then of."""

import json
from pathlib import Path

import pytest

from sleicl_chains.answering.priors import MEAN_ROWS
from sleicl_chains.tasks.cards import load_task
from sleicl_chains.tasks.rows import load_texts
from tests.support.command import Desk, sleicl
from tests.support.fake_models import Scorer, question_of

TEXTS = ["Where is it?", "It broke.", "Thank you!"]
FEW = "Note: {}: found {} for the prior; a few dozen texts make it steadier.\n"
NOTE = (
    f"prior mean: over at most {MEAN_ROWS} texts without answers; one call each, once an arm, not counted in the table"
)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk.at(tmp_path / "desk")


@pytest.fixture
def weak(monkeypatch: pytest.MonkeyPatch) -> Scorer:
    """A model that leans to technical, which is what every command opens."""
    model = Scorer(think=lambda prompt: {"technical": 0.6, "billing": 0.3})
    monkeypatch.setattr("sleicl_chains.models.names.weak_model", lambda name, **options: model)
    return model


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    file = tmp_path / "texts.txt"
    file.write_text("\n".join(TEXTS) + "\n", encoding="utf-8")
    return file


def asked(weak: Scorer) -> list[str]:
    return [question_of(prompt) for prompt in weak.asked("score")]


def ask(desk: Desk, *more: object) -> tuple[object, ...]:
    return ("ask", "--task", desk.card, "--weak", "fake", *more, "Hm?")


def evaluate(desk: Desk, *more: object) -> tuple[object, ...]:
    return ("evaluate", "--task", desk.card, "--rows", desk.test, "--weak", "fake", *more, "--json")


# ------------------------------------------------------------------ what they are good for


def test_the_prior_of_an_answer_is_of_these_texts(desk: Desk, weak: Scorer, texts: Path) -> None:
    found = sleicl(*ask(desk, "--texts", texts, "--json")).json()
    assert found["prior"] == "mean" and sorted(asked(weak)) == sorted([*TEXTS, "Hm?"]) and asked(weak)[-1] == "Hm?"
    assert found["probability"] == pytest.approx(0.5)  # it thinks of them as it does of the question


def test_and_not_of_the_training_rows(desk: Desk, weak: Scorer, texts: Path) -> None:
    assert sleicl(*ask(desk, "--train", desk.train, "--json", "--no-journal")).json()["prior"] == "mean"
    assert set(asked(weak)) == {*desk.texts("train"), "Hm?"}
    weak.calls.clear()
    given = ("--texts", texts, "--train", desk.train, "--arm", "few-shot")
    assert sleicl(*ask(desk, *given, "--json", "--no-journal")).json()["prior"] == "mean"
    assert set(asked(weak)) == {*TEXTS, "Hm?"}
    shown = [text for text in desk.texts("train") if text in weak.asked("score")[0]]
    assert sorted(shown) == sorted(desk.texts("train"))  # as examples


@pytest.mark.parametrize("arms", ["zero-shot", "zero-shot,few-shot"])
def test_the_prior_of_a_table_is_of_these_texts(desk: Desk, weak: Scorer, texts: Path, arms: str) -> None:
    report = sleicl(*evaluate(desk, "--texts", texts, "--train", desk.train, "--arms", arms)).json()
    assert NOTE in report["notes"] and {arm["prior"] for arm in report["arms"]} == {"mean"}
    count = len(arms.split(","))
    assert sorted(asked(weak)) == sorted([*TEXTS, *desk.texts("test")] * count)


def test_a_table_without_training_rows_has_a_prior_too(desk: Desk, weak: Scorer, texts: Path) -> None:
    report = sleicl(*evaluate(desk, "--texts", texts)).json()
    assert [(arm["arm"], arm["prior"]) for arm in report["arms"]] == [("zero-shot", "mean")]
    assert NOTE in report["notes"] and set(asked(weak)) == {*TEXTS, *desk.texts("test")}
    plain = sleicl(*evaluate(desk, "--run", desk.folder / "plain")).json()
    assert plain["arms"][0]["prior"] == "content-free" and NOTE not in plain["notes"]
    assert plain["run"] != report["run"]  # other settings, another run


def test_another_prior_is_as_it_is_told_to_be(desk: Desk, weak: Scorer, texts: Path) -> None:
    free = sleicl(*ask(desk, "--texts", texts, "--prior", "content-free", "--json")).json()
    assert free["prior"] == "content-free" and not set(TEXTS) & set(asked(weak))
    affine = ("--texts", texts, "--prior", "affine", "--train", desk.train, "--arms", "zero-shot")
    weak.calls.clear()
    assert sleicl(*evaluate(desk, *affine)).json()["arms"][0]["prior"] == "affine"
    assert set(asked(weak)) == {*desk.texts("train"), *desk.texts("test")}


def test_rows_with_or_without_answers_are_texts_as_well(desk: Desk, weak: Scorer, tmp_path: Path) -> None:
    forms = {
        "bare.jsonl": "".join(json.dumps({"text": text}) + "\n" for text in TEXTS),
        "told.jsonl": "".join(json.dumps({"text": text, "answer": "no label of the card"}) + "\n" for text in TEXTS),
        "list.json": json.dumps([{"text": text} for text in TEXTS]),
        "one.csv": "text,other\n" + "".join(f"{text},x\n" for text in TEXTS),
        "loose.txt": "\r\n".join(["", *(f"  {text} " for text in TEXTS), "", ""]),
        "twice.txt": "\n".join([*TEXTS, TEXTS[0].upper()]),
    }
    for name, content in forms.items():
        (tmp_path / name).write_text(content, encoding="utf-8", newline="")
        weak.calls.clear()
        done = sleicl(*ask(desk, "--texts", tmp_path / name, "--no-journal"))
        assert done.status == 0, done.err
        assert {text.lower() for text in asked(weak)} == {text.lower() for text in (*TEXTS, "Hm?")}, name
        assert len(asked(weak)) == 4, name


def test_the_card_names_the_column(desk: Desk, weak: Scorer, tmp_path: Path) -> None:
    card = desk.card.read_text(encoding="utf-8")
    desk.card.write_text(f'{card}text_column = "body"\n', encoding="utf-8")
    (tmp_path / "mail.csv").write_text("text,body\nno,It broke.\n", encoding="utf-8")
    assert sleicl(*ask(desk, "--texts", tmp_path / "mail.csv")).status == 0
    assert set(asked(weak)) == {"It broke.", "Hm?"}


def test_of_many_a_few_are_drawn_by_the_seed(desk: Desk, weak: Scorer, tmp_path: Path) -> None:
    file = tmp_path / "many.txt"
    file.write_text("\n".join(f"message {at}" for at in range(300)), encoding="utf-8")
    drawn: list[set[str]] = []
    for seed in (0, 0, 1):
        weak.calls.clear()
        assert sleicl(*ask(desk, "--texts", file, "--seed", seed, "--no-journal")).status == 0
        drawn.append(set(asked(weak)) - {"Hm?"})
    assert [len(one) for one in drawn] == [MEAN_ROWS] * 3 and drawn[0] == drawn[1] != drawn[2]


def test_a_text_of_another_encoding_is_said_to_be_one(desk: Desk, weak: Scorer, tmp_path: Path) -> None:
    file = tmp_path / "old.txt"
    file.write_bytes("Der Schlüssel klemmt.\nDas Öl läuft aus.\n".encode("cp1252"))
    done = sleicl(*ask(desk, "--texts", file))
    first = f"Rows of {file} are asked about first, as far as the reading needs them.\n"
    assert done.err == f"Note: {file}: read as Windows-1252, for it is not UTF-8.\n{FEW.format(file, 2)}{first}"
    assert set(asked(weak)) == {"Der Schlüssel klemmt.", "Das Öl läuft aus.", "Hm?"}


def test_few_texts_are_said_to_be_few(desk: Desk, weak: Scorer, tmp_path: Path) -> None:
    file = tmp_path / "texts.txt"
    lines = [f"message {at}" for at in range(12)]
    for count, said in ((3, True), (11, True), (12, False)):
        file.write_text("\n".join([*lines[:count], lines[0].upper()]), encoding="utf-8")  # the last is the first again
        for command in (ask(desk, "--texts", file), evaluate(desk, "--texts", file)):
            done = sleicl(*command)
            assert done.status == 0 and done.err.count(FEW.format(file, count)) == int(said), done.err
            assert ("for the prior" in done.err) is said


def test_ask_says_whose_rows_are_asked_about_first(desk: Desk, weak: Scorer, texts: Path) -> None:
    line = "Rows of {} are asked about first, as far as the reading needs them."
    for given, first in (
        (("--texts", texts), texts), (("--train", desk.train), desk.train),
        (("--train", desk.train, "--texts", texts), texts),
    ):  # fmt: skip
        assert sleicl(*ask(desk, *given)).err.splitlines().count(line.format(first)) == 1
    assert "asked about first" not in sleicl(*ask(desk)).err


def test_a_text_file_whose_first_line_has_a_tab_is_a_table(desk: Desk, weak: Scorer, tmp_path: Path) -> None:
    """As it is for training rows."""
    file = tmp_path / "table.txt"
    file.write_text("id\ttext\n" + "".join(f"{at}\t{text}\n" for at, text in enumerate(TEXTS)), encoding="utf-8")
    done = sleicl(*ask(desk, "--texts", file))
    assert done.status == 0 and f"Note: {file}: cells separated by tabs.\n" in done.err
    assert sorted(asked(weak)) == sorted([*TEXTS, "Hm?"])
    weak.calls.clear()
    file.write_text(f"{TEXTS[0]}\n{TEXTS[1]}\tand more\n", encoding="utf-8")  # a tab in a later line makes none
    assert sleicl(*ask(desk, "--texts", file, "--no-journal")).status == 0
    assert set(asked(weak)) == {TEXTS[0], f"{TEXTS[1]}\tand more", "Hm?"}
    file.write_text("id\tbody\n1\tIt broke.\n", encoding="utf-8")
    done = sleicl(*ask(desk, "--texts", file))
    assert (done.status, done.out) == (1, "")
    assert done.err.splitlines()[-1].startswith(f"sleicl: {file}, line 2: the column 'text' is missing; found 'id', 'b")


def test_lines_end_at_line_feeds_alone(desk: Desk, weak: Scorer, tmp_path: Path) -> None:
    file = tmp_path / "texts.txt"
    odd = ["one\x0btwo", "one\x0ctwo", "one\x1ctwo", "one\x85two", "one\u2028two", "one\u2029two", "one\rtwo"]
    file.write_text("\r\n".join(odd), encoding="utf-8", newline="")
    assert load_texts(file, load_task(desk.card)) == odd
    assert sleicl(*ask(desk, "--texts", file, "--no-journal")).status == 0
    assert len(asked(weak)) == 2  # white space does not tell two texts apart


def test_texts_that_are_evaluated_are_left_out(desk: Desk, weak: Scorer, tmp_path: Path) -> None:
    """A prior of those would know the questions beforehand."""
    file, evaluated = tmp_path / "texts.txt", desk.texts("test")
    file.write_text("\n".join([*TEXTS, evaluated[0], f" {evaluated[1].upper()}  "]), encoding="utf-8")
    done = sleicl(*evaluate(desk, "--texts", file))
    assert f"Warning: 2 texts of {file} are evaluated rows and were left out.\n" in done.err
    assert done.json()["arms"][0]["prior"] == "mean" and FEW.format(file, 3) in done.err
    assert sorted(asked(weak)) == sorted([*TEXTS, *evaluated])  # each evaluated one once, as a question


def test_texts_of_rows_that_the_limit_leaves_out_are_kept(desk: Desk, weak: Scorer) -> None:
    done = sleicl(*evaluate(desk, "--texts", desk.test, "--limit", 1))
    assert f"Warning: 1 texts of {desk.test} are evaluated rows and were left out.\n" in done.err
    assert done.json()["n"] == 1 and sorted(asked(weak)) == sorted(desk.texts("test"))


# ------------------------------------------------------------------ what is refused


def test_texts_that_are_all_evaluated_are_refused(desk: Desk, weak: Scorer, tmp_path: Path) -> None:
    file = tmp_path / "texts.txt"
    file.write_text("\n".join(text.upper() for text in desk.texts("test")), encoding="utf-8")
    for given in (file, desk.test):
        done = sleicl(*evaluate(desk, "--texts", given))
        assert (done.status, done.out) == (1, "") and not weak.calls
        assert done.err == f"sleicl: All texts of {given} are among the evaluated ones; give others\n"


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.txt", "", "a.txt: the file holds no texts; expected one a line"),
        ("a.txt", " \n\t\n", "a.txt: the file holds no texts; expected one a line"),
        ("a.jsonl", "", "a.jsonl: the file holds no rows; expected at least one"),
        ("a.csv", "text\n", "a.csv: the file holds no rows; expected at least one"),
        (
            "a.jsonl", '{"text": "x"}\n{"body": "y"}\n',
            "a.jsonl, line 2: the column 'text' is missing; found 'body'. The card can name other columns",
        ),
        ("a.csv", "body,answer\nx,y\n", "a.csv, line 2: the column 'text' is missing; found 'body', 'answer'"),
        ("a.jsonl", '{"text": 3}\n', "a.jsonl, line 1: found a number in 'text'; expected text"),
        ("a.jsonl", '{"text": " "}\n', "a.jsonl, line 1: found nothing in 'text'; expected text"),
        ("a.md", "# x\n", "a.md: found the ending '.md'; expected rows as .jsonl, .json, .csv or .parquet"),
        ("a.txt", None, "a.txt: there is no such file; expected texts, one a line"),
        ("a.jsonl", None, "a.jsonl: there is no such file; expected rows as"),
    ],
)  # fmt: skip
def test_texts_that_are_none_are_one_plain_line(
    name: str, content: str | None, expected: str, desk: Desk, weak: Scorer, tmp_path: Path
) -> None:
    if content is not None:
        (tmp_path / name).write_text(content, encoding="utf-8")
    for command in (ask(desk, "--texts", tmp_path / name), evaluate(desk, "--texts", tmp_path / name)):
        done = sleicl(*command)
        assert (done.status, done.out) == (1, "") and done.err.count("\n") == 1, done.err
        assert done.err.startswith(f"sleicl: {tmp_path / expected}") and not weak.calls


def test_texts_do_not_go_with_a_recipe(desk: Desk, weak: Scorer, texts: Path) -> None:
    recipe = desk.folder / "recipe.json"
    assert sleicl("learn", "--task", desk.card, "--rows", desk.train, "--weak", "fake", "--recipe", recipe).status == 0
    done = sleicl("ask", "--recipe", recipe, "--weak", "fake", "--texts", texts, "Hm?")
    assert (done.status, done.out) == (2, "")
    assert done.err.startswith("sleicl: --texts does not go with --recipe, which says what is shown")
