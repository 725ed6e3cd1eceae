"""Rows, cards and questions as people have them, through the command line: taken with one line, or refused with one."""

import asyncio
import io
import json
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from sleicl_chains.answering.solver import solver
from sleicl_chains.cli.steps import print_json
from sleicl_chains.errors import InputError
from sleicl_chains.grimoires.samplers import typical_examples
from sleicl_chains.statistics import mcnemar, paired_difference
from sleicl_chains.tasks.cards import Task
from sleicl_chains.tasks.labels import fold, parse_label
from sleicl_chains.tasks.rows import Example
from tests.support.command import Desk, Parrot, environment, sleicl
from tests.support.fake_models import Scorer, Writer

pytestmark = pytest.mark.filterwarnings("default")  # the command prints them

DESCRIBE = "Now write its description: the better it says what each label means, the better all arms do.\n"
ROWS = [("Ça coûte 1,5 €, non?", "billing"), ("It; fails | at\tonce", "technical")] * 2


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    return Desk.at(tmp_path_factory.mktemp("desk"))


@pytest.fixture
def parrot(monkeypatch: pytest.MonkeyPatch) -> Iterator[Parrot]:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-none")
    with Parrot(lambda prompt: "billing") as server:
        yield server


def table(sign: str, rows: list[tuple[str, str]] = ROWS) -> str:
    quoted = [f'{number}{sign}"{text}"{sign}{answer}' for number, (text, answer) in enumerate(rows)]
    return "\n".join([f"id{sign} text {sign}answer", *quoted]) + "\n"


# ------------------------------------------------------------------ tables and encodings


FORMS: dict[str, tuple[str, bytes, str]] = {
    "commas": ("r.csv", table(",").encode(), ""),
    "utf-8 with a mark": ("r.csv", table(",").encode("utf-8-sig"), ""),
    "semicolons": ("r.csv", table(";").encode(), "cells separated by ';'"),
    "tabs": ("r.csv", table("\t").encode(), "cells separated by tabs"),
    "pipes": ("r.csv", table("|").encode(), "cells separated by '|'"),
    "tsv": ("r.tsv", table("\t").encode(), ""),
    "commas in tsv": ("r.tsv", table(",").encode(), "cells separated by ','"),
    "txt": ("r.txt", table("\t").encode(), "cells separated by tabs"),
    "declared": ("r.csv", ("sep=;\r\n" + table(";")).encode(), "cells separated by ';', as its first line says"),
    "declared oddly": ("r.csv", ('"sep=^"\n' + table("^")).encode(), "cells separated by '^', as its first line says"),
    "utf-16": ("r.csv", table(",").encode("utf-16"), "read as UTF-16"),
    "utf-16, big end first": ("r.csv", b"\xfe\xff" + table(";").encode("utf-16-be"),
                              "read as UTF-16, cells separated by ';'"),
    "utf-32": ("r.csv", table(",").encode("utf-32"), "read as UTF-32"),
    "windows": ("r.csv", table(";").encode("cp1252"),
                "read as Windows-1252, for it is not UTF-8, cells separated by ';'"),
    "blank rows": ("r.csv", (table(",") + ",,\n , ,\n").encode(), ""),
    "old line ends": ("r.csv", table(";").replace("\n", "\r").encode(), "cells separated by ';'"),
    "lines of json in utf-16": ("r.jsonl", "".join(json.dumps({"text": text, "answer": answer}) + "\n"
                                                   for text, answer in ROWS).encode("utf-16"), "read as UTF-16"),
}  # fmt: skip


@pytest.mark.parametrize("name, content, said", FORMS.values(), ids=FORMS)
def test_a_table_is_taken_as_it_is_and_said_to_be(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    rows, card = tmp_path / name, tmp_path / "card.toml"
    rows.write_bytes(content)
    done = sleicl("init", rows, "--task", card)
    line = f"Note: {rows}: {said}.\n" if said else ""
    assert (done.status, done.err) == (0, line)
    written = tomllib.loads(card.read_text(encoding="utf-8"))
    assert (written["labels"], written["text_column"]) == (["billing", "technical"], "text")
    card.write_text(card.read_text(encoding="utf-8").replace("Say what", "What"), encoding="utf-8")
    drawn = sleicl("sample", "--task", card, "--rows", rows, "--sampler", "random", "--json")
    assert {(row["text"], row["answer"]) for row in drawn.json()} == set(ROWS)
    assert drawn.err == line


@pytest.mark.parametrize("sign", ",;|\t")
def test_decimal_commas_and_signs_in_cells_do_not_mislead(tmp_path: Path, sign: str) -> None:
    rows = tmp_path / "r.csv"
    lines = [f"a{n}{sign}{quoted(f'{n},5', sign)}{sign}x{n % 2}{sign}{quoted('o; p, q | r', sign)}" for n in range(8)]
    header = sign.join(["text", quoted("kg, net", sign), "answer", "note"])
    rows.write_text("\n".join([header, *lines]), encoding="utf-8")
    assert sleicl("init", rows, "--task", tmp_path / "card.toml").out.startswith(
        f"{tmp_path / 'card.toml'}: 2 labels: x0, x1. "
    )


def quoted(cell: str, sign: str) -> str:
    return f'"{cell}"' if sign in cell else cell


def test_lines_are_counted_with_the_declared_one(tmp_path: Path, desk: Desk) -> None:
    rows = tmp_path / "r.csv"
    rows.write_text("sep=;\ntext;answer\na;billing\nb;sales\n", encoding="utf-8")
    done = sleicl("sample", "--task", desk.card, "--rows", rows)
    assert f"{rows}, line 4: found the label 'sales'" in done.err and done.status == 1


@pytest.mark.parametrize("encoding, said", [("utf-16", "UTF-16"), ("cp1252", "Windows-1252, for it is not UTF-8")])
def test_a_card_may_be_of_another_encoding(tmp_path: Path, desk: Desk, encoding: str, said: str) -> None:
    card = tmp_path / "card.toml"
    card.write_bytes(desk.card.read_text().replace("team", "équipe").encode(encoding))
    done = sleicl("sample", "--task", card, "--rows", desk.train)
    assert (done.status, done.err) == (0, f"Note: {card}: read as {said}.\n")


# ------------------------------------------------------------------ JSON


OBJECTS = [{"text": f"{text} {n}", "answer": answer} for n, (text, answer) in enumerate(ROWS)]
LINES = "".join(json.dumps(row) + "\n" for row in OBJECTS)
JSON_FORMS = {
    "list": ("r.json", json.dumps(OBJECTS), ""),
    "lines": ("r.jsonl", LINES, ""),
    "lines in json": ("r.json", LINES, "taken as one object a line"),
    "a list in jsonl": ("r.jsonl", json.dumps(OBJECTS, indent=1), "taken as one list of objects"),
    "wrapped": ("r.json", json.dumps({"data": OBJECTS}, indent=1), "taken is the list under its one key 'data'"),
    "wrapped in jsonl": ("r.jsonl", json.dumps({"rows": OBJECTS}), "taken is the list under its one key 'rows'"),
}


@pytest.mark.parametrize("name, content, said", JSON_FORMS.values(), ids=JSON_FORMS)
def test_json_is_taken_in_its_usual_forms(tmp_path: Path, desk: Desk, name: str, content: str, said: str) -> None:
    rows = tmp_path / name
    rows.write_text(content, encoding="utf-8")
    drawn = sleicl("sample", "--task", desk.card, "--rows", rows, "--json")
    assert len(drawn.json()) == 4
    assert drawn.err == (f"Note: {rows}: {said}.\n" if said else "")


def test_numbers_and_truth_values_are_answers_and_labels(tmp_path: Path, parrot: Parrot) -> None:
    rows, card = tmp_path / "r.jsonl", tmp_path / "card.json"
    values = [1, 2.5, True, False, "1"] * 2
    rows.write_text("".join(json.dumps({"text": f"t{n}", "label": v}) + "\n" for n, v in enumerate(values)))
    note = f"Note: {rows}: 8 answers that are numbers, true or false are taken as text ({rows}, line 1: '1').\n"
    done = sleicl("init", rows, "--task", card)
    assert (done.status, done.err) == (0, note)
    data = json.loads(card.read_text())
    assert data["labels"] == ["1", "2.5", "true", "false"]
    card.write_text(json.dumps(data | {"labels": [1, 2.5, True, False], "description": "Which?"}))
    parrot.reply = lambda prompt: "1"
    done = sleicl(
        "evaluate", "--task", card, "--rows", rows, "--weak", "openai:w", *parrot.options, "--json", "--no-journal",
        "--arms", "zero-shot",
    )  # fmt: skip
    assert done.json()["arms"][0]["accuracy"] == 0.4
    assert note in done.err
    assert f"Note: {card}: 4 labels that are numbers, true or false are taken as text ('1').\n" in done.err


def test_one_label_and_contradictions_are_said(tmp_path: Path) -> None:
    rows, card = tmp_path / "r.csv", tmp_path / "card.toml"
    rows.write_text("text,answer\na,x\nb,x\nc,x\n", encoding="utf-8")
    done = sleicl("init", rows, "--task", card)
    assert "1 label: x." in done.out
    assert done.err == f"Note: {rows}: all rows have the answer 'x'; one label leaves nothing to decide.\n"
    one = sleicl("sample", "--task", card, "--rows", rows)
    assert f"Note: {card}: there is one label alone, so every answer is 'x'; name the others in labels.\n" in one.err

    card.write_text('name = "a"\ndescription = "b"\nlabels = ["x", "y"]\n', encoding="utf-8")
    rows.write_text("text,answer\na,x\nb,x\n A ,y\nB,x\n", encoding="utf-8")
    done = sleicl("sample", "--task", card, "--rows", rows)
    assert done.status == 0
    assert done.err == (
        f"Note: {rows}: 1 texts stand with different labels, such as 'a' with 'x' ({rows}, line 2) "
        f"and 'y' ({rows}, line 4).\n"
    )


def test_a_label_that_only_looks_like_the_cards_is_told_apart(tmp_path: Path) -> None:
    rows, card = tmp_path / "r.csv", tmp_path / "card.toml"
    card.write_text('name = "a"\ndescription = "b"\nlabels = ["café", "thé"]\n', encoding="utf-8")
    rows.write_text("text,answer\na,cafe\u0301\n", encoding="utf-8")
    done = sleicl("sample", "--task", card, "--rows", rows)
    assert done.status == 1
    assert "the card's label looks the same but has other characters, 'caf\\xe9' for 'cafe\\u0301'" in done.err


# ------------------------------------------------------------------ many labels


def test_150_labels_go_from_init_to_a_table(tmp_path: Path, parrot: Parrot) -> None:
    rows, card = tmp_path / "r.jsonl", tmp_path / "card.toml"
    many = [{"text": f"word{n} thing {turn}", "answer": f"intent {n}"} for turn in range(3) for n in range(150)]
    rows.write_text("".join(json.dumps(row) + "\n" for row in many), encoding="utf-8")
    done = sleicl("init", rows, "--task", card)
    assert done.err == f"Note: {rows}: 150 different answers, 3 to 3 rows each, are taken as labels.\n"
    assert "150 labels: intent 0, intent 1," in done.out and "..." in done.out and "intent 99" not in done.out
    train, test = tmp_path / "train.jsonl", tmp_path / "test.jsonl"
    train.write_text("".join(json.dumps(row) + "\n" for row in many[:300]), encoding="utf-8")
    test.write_text("".join(json.dumps(row) + "\n" for row in many[300:310]), encoding="utf-8")
    parrot.reply = lambda prompt: "intent 3"
    report = sleicl(
        "evaluate", "--task", card, "--rows", test, "--train", train, "--weak", "openai:w", *parrot.options,
        "--arms", "majority,probe,zero-shot", "--json", "--no-journal",
    ).json()  # fmt: skip
    found = {arm["arm"]: (arm["accuracy"], arm["valid"]) for arm in report["arms"]}
    assert found == {"majority": (0.1, 1.0), "probe": (found["probe"][0], 1.0), "zero-shot": (0.1, 1.0)}


def test_150_labels_have_a_prior() -> None:
    task = Task(name="many", description="Which?", labels=tuple(f"intent {n}" for n in range(150)))
    weak = Scorer(think=lambda prompt: {"intent 7": 0.5})
    train = [Example(f"text {n}", f"intent {n % 150}") for n in range(300)]
    for prior in ("none", "content-free", "mean"):
        chain = solver(weak, task, prior=prior, prior_texts=[row.text for row in train[:150]], train=train)
        said = chain.invoke("Which one?")
        assert said.valid and len(said.scores) == 150


def test_an_open_card_says_why(tmp_path: Path) -> None:
    rows = tmp_path / "r.csv"
    rows.write_text("text,answer\n" + "".join(f"q{n},answer {n}\n" for n in range(9)), encoding="utf-8")
    done = sleicl("init", rows, "--task", tmp_path / "card.toml")
    assert done.out.startswith(f"{tmp_path / 'card.toml'}: no labels (open-ended).")
    assert done.err == (
        f"Note: {rows}: 9 rows have 9 different answers, so the card is open-ended; "
        "if they are labels, add labels = [...] to it.\n"
    )


def test_rows_without_answers_make_a_card_too(tmp_path: Path) -> None:
    rows, card = tmp_path / "r.csv", tmp_path / "card.toml"
    rows.write_text("id,text\n1,a\n2,b\n", encoding="utf-8")
    done = sleicl("init", rows, "--task", card)
    assert (done.status, done.out) == (0, f"{card}: no labels (open-ended). {DESCRIBE}")
    assert done.err == (
        f"Note: {rows}: found no answers (columns id, text), so the card is open-ended; if there are labels, give "
        "--labels a,b,c or add labels = [...] to it. --answer-column names the column of answers.\n"
    )
    assert "labels" not in tomllib.loads(card.read_text(encoding="utf-8"))

    done = sleicl("init", rows, "--task", card, "--force", "--labels", "junk, fine")
    assert (done.status, done.out, done.err) == (0, f"{card}: 2 labels: junk, fine. {DESCRIBE}", "")
    assert tomllib.loads(card.read_text(encoding="utf-8"))["labels"] == ["junk", "fine"]


def test_given_labels_are_those_of_the_answers(tmp_path: Path) -> None:
    rows, card = tmp_path / "r.csv", tmp_path / "card.toml"
    rows.write_text("text,answer\na,junk\nb,fine\n", encoding="utf-8")
    command = ("init", rows, "--task", card, "--labels")
    assert sleicl(*command, "fine,junk,unclear").out.startswith(f"{card}: 3 labels: fine, junk, unclear. ")
    for labels, said in {
        "fine,Junk,": "--labels: found ('fine', 'Junk', ''); a label must not be blank",
        "fine,Fine": "--labels: found ('fine', 'Fine'); labels must differ by more than case and white space",
        "fine,spam": f"{rows}, line 2: found the label 'junk'; expected one of 'fine', 'spam'",
    }.items():
        done = sleicl(*command, labels, "--force")
        assert (done.status, done.out, done.err) == (1, "", f"sleicl: {said}\n")


# ------------------------------------------------------------------ questions that are no text


TASK = Task(name="desk", description="Which team?", labels=("billing", "technical"))
HALF = "character 7: found half of a surrogate pair, 0xd83d; expected valid Unicode"


def test_half_a_character_is_one_clear_error_and_fails_alone() -> None:
    bad, good = "smile \ud83d", "my bill"
    for weak in (Writer(reply=lambda prompt: "billing"), Scorer(think=lambda prompt: {"billing": 0.5})):
        chain = solver(weak, TASK, prior="none")
        with pytest.raises(InputError, match=HALF):
            chain.invoke(bad)
        with pytest.raises(InputError, match=HALF):
            asyncio.run(chain.ainvoke(bad))
        first, second, third = chain.batch([good, bad, good], return_exceptions=True)
        assert isinstance(second, InputError) and HALF in str(second)
        assert [getattr(said, "label", None) for said in (first, third)] == ["billing"] * 2


def test_half_a_character_in_a_search_or_an_example_is_refused_as_well() -> None:
    with pytest.raises(InputError, match="the example, character 2: found half of a surrogate pair"):
        Example("a\ud800", "x")
    assert "byte 0xff, which is not UTF-8" in sleicl("grimoires", "search", "what\udcff").err


def test_bytes_of_an_argument_that_are_no_utf_8_are_named(desk: Desk, parrot: Parrot) -> None:
    command = ("ask", "--task", desk.card, "--weak", "openai:w", *parrot.options, "--no-journal")
    for argument, stdin in (("Z\udcfcrich", ""), ("-", "Z\udcfcrich")):  # so Python hands such bytes on
        done = sleicl(*command, argument, stdin=stdin)
        assert (done.status, done.out, done.err) == (
            1, "", "sleicl: the question, character 2: found byte 0xfc, which is not UTF-8; expected valid Unicode\n",
        )  # fmt: skip
    assert parrot.requests == []


def run(*arguments: object, stdin: bytes = b"", **env: str) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-c", "from sleicl_chains.cli import main; main()", *map(str, arguments)]
    return subprocess.run(command, input=stdin, capture_output=True, env=environment(**env))


def test_stdin_that_is_no_utf_8_is_one_line(desk: Desk) -> None:
    command = ("ask", "--task", desk.card, "--weak", "openai:w", "--no-journal", "-")
    done = run(*command, stdin=b"Z\xfcrich", PYTHONIOENCODING="utf-8")
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr == b"sleicl: stdin, byte 2: found byte 0xfc, which is not UTF-8 text; give it as UTF-8\n"


def test_an_answer_that_stdout_cannot_hold_is_not_lost(
    tmp_path: Path, parrot: Parrot, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = tmp_path / "card.toml"
    card.write_text('name = "a"\ndescription = "Answer."\n', encoding="utf-8")
    parrot.reply = lambda prompt: "Zürich 日本 😀"
    command = ("ask", "--task", card, "--weak", "openai:w", *parrot.options, "--no-journal", "Where?")
    done = run(*command, PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stdout) == (0, b"Z\\xfcrich \\u65e5\\u672c \\U0001f600\n")
    assert b"Warning: stdout is ascii, which lacks some characters; they are written as escapes." in done.stderr

    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    print_json({"text": "Zürich 日本 😀"})
    sys.stdout.flush()
    assert json.loads(raw.getvalue()) == {"text": "Zürich 日本 😀"}


# ------------------------------------------------------------------ labels in any script


SCRIPTS = {
    "latin": ("Déjà vu", "naïve"),
    "cyrillic": ("спорт", "бизнес"),
    "greek": ("αθλητισμός", "οικονομία"),
    "arabic": ("رياضة", "اقتصاد"),
    "hebrew": ("ספורט", "עסקים"),
    "devanagari": ("खेल", "व्यापार"),
    "thai": ("กีฬา", "ธุรกิจ"),
    "han": ("体育", "茶"),
    "kana": ("スポーツ", "ビジネス"),
    "hangul": ("스포츠", "경제"),
    "georgian": ("სპორტი", "ბიზნესი"),
    "tamil": ("விளையாட்டு", "வணிகம்"),
}


@pytest.mark.parametrize("labels", SCRIPTS.values(), ids=SCRIPTS)
def test_labels_of_any_script_are_read(labels: tuple[str, str]) -> None:
    from unicodedata import normalize

    for label in labels:
        for form in ("NFC", "NFD", "NFKC"):
            written = normalize(form, label)
            for reply in (written, f"“{written}”.", f"Answer: {written}", f"{written}\n", f"\u200e{written}\u200b"):
                assert parse_label(reply, labels) == label, (form, reply)
        assert fold(f" {label.upper()}\u00a0") == fold(label)
    assert fold(labels[0]) != fold(labels[1])


@pytest.mark.parametrize(
    "label, reply",
    [
        ("don't know", "Don’t know."),
        ("don’t know", "don't know"),
        ("follow-up", "follow\u2011up"),
        ("follow–up", "Follow-up"),
        ("-1", "\u22121"),
        ('the "good" one', "the “good” one"),
        ("not\u00adice", "notice"),
        ("❤\ufe0f", "❤"),
    ],
)
def test_quotes_dashes_and_what_cannot_be_seen_do_not_matter(label: str, reply: str) -> None:
    assert parse_label(reply, (label, "other")) == label


# ------------------------------------------------------------------ few-shot from rows


def test_few_shot_takes_its_examples_from_the_rows(desk: Desk, parrot: Parrot) -> None:
    train = [Example(row["text"], row["answer"]) for row in map(json.loads, desk.train.read_text().splitlines())]
    weak = Writer(reply=lambda prompt: "billing")
    solver(weak, TASK, arm="few-shot", train=train).invoke("Where is my invoice?")
    (shown,) = weak.asked("reply")
    chosen = typical_examples(TASK, train, seed=0)
    assert len(chosen) == 8 and all(f"human: {row.text}\nai: {row.answer}" in shown for row in chosen)
    with pytest.raises(InputError, match=r"The arm 'few-shot' needs examples; none were given \(`examples` or `train`"):
        solver(weak, TASK, arm="few-shot")

    command = ("ask", "--task", desk.card, "--weak", "openai:w", *parrot.options, "--no-journal", "--arm", "few-shot")
    done = sleicl(*command, "--train", desk.train, "--seed", 3, "Where is my invoice?")
    assert (done.status, done.out) == (0, "billing\n")
    assert "Note: few-shot shows 4 k-means examples a label from --train.\n" in done.err
    asked = [text for role, text in parrot.shown(0) if role == "user"][:-1]
    assert asked == [row.text for row in typical_examples(TASK, train, seed=3)]
    assert sleicl(*command, "Where?").status == 1


# ------------------------------------------------------------------ statistics at the ends


def test_no_rows_leave_the_difference_open() -> None:
    assert paired_difference([], []) == (0.0, -1.0, 1.0)
    assert mcnemar([], []) == 1.0


def test_mcnemar_is_quick_and_exact_on_many_rows() -> None:
    """By the normal tail: z = 200 / sqrt(40000) = 1 less the half of continuity, p = 0.3197."""
    won, lost = 20_100, 19_900
    assert mcnemar([True] * won + [False] * lost, [False] * won + [True] * lost) == pytest.approx(0.3197, abs=2e-4)
