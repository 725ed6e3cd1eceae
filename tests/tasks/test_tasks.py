"""Task cards, rows and splits: what loads, and the one line that is said where something does not."""

import json
import os
import random
import subprocess
import sys
import time
import tomllib
import warnings
from collections import Counter
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from langchain_core.documents import Document
from pydantic import ValidationError

from sleicl_chains.errors import InputError
from sleicl_chains.tasks.cards import Task, card_text, load_task
from sleicl_chains.tasks.infer import infer_task
from sleicl_chains.tasks.labels import fold
from sleicl_chains.tasks.rows import Example, examples_from_documents, load_examples
from sleicl_chains.tasks.splits import Split, distinct, shuffled, split, stratified

MOODS = Task(name="moods", description="Which mood is it?", labels=("happy", "sad"))
OPEN = Task(name="open", description="Answer.")
CARD = {"name": "moods", "description": "Which mood is it?", "labels": ["happy", "sad"]}
NAMES = "name, task_type, description, labels, text_column, answer_column"
CUT = f"'{'x' * 37}...{'x' * 38}'"  # how a long row of x is quoted
NO_SIGN = "Expected '=' after a key in a key/value pair"
NAMES_INSTEAD = ". If numbers stand for labels, write the names; datasets has them in features"
MISSING = "The card can name other columns: text_column, answer_column"


def write(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def jsonl(*rows: object) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def pairs(examples: list[Example]) -> list[tuple[str, str]]:
    return [(example.text, example.answer) for example in examples]


def complaint(call: Callable[..., Any], *args: Any, **options: Any) -> str:
    with pytest.raises(InputError) as caught:
        call(*args, **options)
    return str(caught.value)


# ------------------------------------------------------------------ cards


@pytest.mark.parametrize("name", ["card.toml", "card.json", "CARD.JSON", "card"])
def test_a_card_loads_from_toml_and_json(tmp_path: Path, name: str) -> None:
    text = json.dumps(CARD) if name.lower().endswith("json") else card_text(MOODS)
    assert load_task(write(tmp_path, name, text)) == MOODS
    assert load_task(str(write(tmp_path, name, b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode()))) == MOODS


def test_what_a_card_leaves_out_has_a_default(tmp_path: Path) -> None:
    task = load_task(write(tmp_path, "card.toml", 'name = "a"\ndescription = "b"\n'))
    assert task.model_dump() == {
        "name": "a", "task_type": "classification", "description": "b", "labels": (),
        "text_column": "text", "answer_column": "answer",
    }  # fmt: skip


BAD_CARDS: dict[str, tuple[str, str | bytes | None, str]] = {
    "missing file": ("c.toml", None, "{}: there is no such file; expected a task card (TOML or JSON)"),
    "folder": (".", None, "{}: this is a folder; expected a task card (TOML or JSON)"),
    "empty": ("c.toml", "", f"{{}}: key 'name' is missing; expected keys: {NAMES}"),
    "empty json": (
        "c.json",
        "",
        "{}, line 1: not valid JSON (Expecting value, column 1); expected an object with name, description and labels",
    ),
    "missing key": ("c.toml", 'name = "a"', f"{{}}: key 'description' is missing; expected keys: {NAMES}"),
    "unknown key": (
        "c.toml",
        'name = "a"\ndescription = "b"\n"lab\\nels" = []',
        f"{{}}: unknown key 'lab\\nels'; expected keys: {NAMES}",
    ),
    "list": ("c.json", "[1]", "{}: found a list; expected an object with name, description and labels"),
    "null": ("c.json", "null", "{}: found null; expected an object with name, description and labels"),
    "text": ("c.json", '"a"', "{}: found a string; expected an object with name, description and labels"),
    "number": ("c.json", "1.5", "{}: found a number; expected an object with name, description and labels"),
    "broken json": (
        "c.json",
        '{"name": "a",\n "description": }',
        "{}, line 2: not valid JSON (Expecting value, column 17); expected an object with name, description and labels",
    ),
    "broken toml": (
        "c.toml",
        'name = "a"\ndescription "b"',
        f"{{}}: not valid TOML ({NO_SIGN} (at line 2, column 13)); expected a task card",
    ),
    "not a card": (
        "c.yaml",
        "name: a",
        f"{{}}: not valid TOML ({NO_SIGN} (at line 1, column 5)); expected a task card",
    ),
    "deep json": (
        "c.json",
        "[" * 200_000,
        "{}: not valid JSON (nested too deeply); expected an object with name, description and labels",
    ),
    "deep toml": ("c.toml", "a = " + "[" * 20_000, "{}: not valid TOML (nested too deeply); expected a task card"),
    "long number": (
        "c.json",
        "9" * 5_000,
        "{}: not valid JSON (a number of too many digits); expected an object with name, description and labels",
    ),
    "nul": (
        "c.toml",
        b'name = "a"\n\0',
        "{}, line 2: found byte 0x00, which is not UTF-8 text; expected a task card (TOML or JSON). "
        "Save it as UTF-8 (in a spreadsheet: as 'CSV UTF-8')",
    ),
    "null name": ("c.json", json.dumps(CARD | {"name": None}), "{}: key 'name': found None; expected text"),
    "blank name": ("c.json", json.dumps(CARD | {"name": " \n"}), "{}: key 'name': found ' \\n'; must not be blank"),
    "blank description": (
        "c.json",
        json.dumps(CARD | {"description": ""}),
        "{}: key 'description': found ''; must not be blank",
    ),
    "labels a text": (
        "c.json",
        json.dumps(CARD | {"labels": "happy"}),
        "{}: key 'labels': found 'happy'; expected a list of texts",
    ),
    "labels an object": (
        "c.json",
        json.dumps(CARD | {"labels": {"a": 1}}),
        "{}: key 'labels': found {'a': 1}; expected a list of texts",
    ),
    "labels null": (
        "c.json",
        json.dumps(CARD | {"labels": None}),
        "{}: key 'labels': found None; expected a list of texts",
    ),
    "label null": (
        "c.json",
        json.dumps(CARD | {"labels": ["a", None]}),
        "{}: key 'labels.1': found None; expected text",
    ),
    "labels that look the same": (
        "c.json",
        json.dumps(CARD | {"labels": ["caf\u00e9", "cafe\u0301"]}),
        "{}: key 'labels': found ['café', 'cafe\u0301']; "
        "the labels 'caf\\xe9' and 'cafe\\u0301' look the same; keep one of them",
    ),
    "labels with invisible differences": (
        "c.json",
        json.dumps(CARD | {"labels": ["no", "n\u200bo"]}),
        "{}: key 'labels': found ['no', 'n\\u200bo']; the labels 'no' and 'n\\u200bo' look the same; keep one of them",
    ),
    "half a surrogate pair": (
        "c.json",
        json.dumps(CARD | {"labels": ["a\ud800", "b"]}),
        "{}: key 'labels': found ['a\\ud800', 'b']; expected valid Unicode, without halves of surrogate pairs",
    ),
    "key twice": (
        "c.json",
        '{"name": "a", "name": "b"}',
        "{}: not valid JSON (the key 'name' stands twice); expected an object with name, description and labels",
    ),
    "label blank": (
        "c.json",
        json.dumps(CARD | {"labels": ["a", "\n"]}),
        "{}: key 'labels': found ['a', '\\n']; a label must not be blank",
    ),
    "labels alike": (
        "c.json",
        json.dumps(CARD | {"labels": ["no hate", "No\thate "]}),
        "{}: key 'labels': found ['no hate', 'No\\thate ']; labels must differ by more than case and white space",
    ),
    "a book for a name": (
        "c.json",
        json.dumps(CARD | {"name": ["x" * 1000] * 9}),
        f"{{}}: key 'name': found [{', '.join([CUT] * 6)}, ...]; expected text",
    ),
}


@pytest.mark.parametrize("name, content, message", BAD_CARDS.values(), ids=BAD_CARDS)
def test_a_bad_card_is_one_plain_line(tmp_path: Path, name: str, content: str | bytes | None, message: str) -> None:
    path = tmp_path / name if content is None else write(tmp_path, name, content)
    said = complaint(load_task, path)
    assert said == message.replace("{}", str(path), 1)
    assert len(said.splitlines()) == 1


def test_labels_lose_the_white_space_around_them() -> None:
    assert Task(name="a", description="b", labels=(" no  hate\n", "hate")).labels == ("no  hate", "hate")


def test_a_card_from_code_is_checked_and_frozen() -> None:
    with pytest.raises(ValidationError, match="a label must not be blank"):
        Task(name="a", description="b", labels=("x", " "))
    with pytest.raises(ValidationError, match="frozen"):
        MOODS.name = "other"


# ------------------------------------------------------------------ rows


ROWS = [('I laughed, and "laughed".', "happy"), ("Two\nlines; tab\there", "sad"), ("Ünïcödé 日本", "happy")]
AS_CSV = 'text,answer\n"I laughed, and ""laughed"".",happy\n"Two\nlines; tab\there",sad\nÜnïcödé 日本,happy\n'


@pytest.mark.parametrize(
    "name, content",
    {
        "jsonl": ("r.jsonl", jsonl(*({"text": text, "answer": answer} for text, answer in ROWS))),
        "jsonl, CRLF, blank lines": (
            "r.JSONL",
            "\r\n".join(json.dumps({"answer": answer, "text": text, "more": None}) + "\r\n" for text, answer in ROWS),
        ),
        "jsonl, BOM": ("r.ndjson", "\ufeff" + jsonl(*({"text": text, "answer": answer} for text, answer in ROWS))),
        "json": ("r.json", json.dumps([{"text": text, "answer": answer} for text, answer in ROWS], indent=1)),
        "csv": ("r.csv", AS_CSV),
        "csv, BOM": ("r.CSV", "\ufeff" + AS_CSV),
        "csv, blank lines": ("r.csv", "\n\n" + AS_CSV.replace("happy\n", "happy\n\n")),
        "csv, no last line end": ("r.csv", AS_CSV.rstrip("\n")),
        "csv, more columns": ("r.csv", 'id,text,x,answer,,\n1,"I laughed, and ""laughed"".",,happy,,\n'
                              '2,"Two\nlines; tab\there",,sad,,\n3,Ünïcödé 日本,, happy ,,\n'),
        "tsv": ("r.TSV", 'answer\ttext\nhappy\t"I laughed, and ""laughed""."\nsad\t"Two\nlines; tab\there"\n'
                "happy\tÜnïcödé 日本\n"),
    }.values(),
)  # fmt: skip
def test_rows_load_from_every_format(tmp_path: Path, name: str, content: str) -> None:
    assert pairs(load_examples(write(tmp_path, name, content), MOODS)) == ROWS


def test_a_csv_with_crlf_keeps_the_line_ends_inside_cells(tmp_path: Path) -> None:
    path = write(tmp_path, "r.csv", 'text,answer\r\n"one\r\ntwo",sad\r\nthree,sad\r\n')
    assert pairs(load_examples(path, MOODS)) == [("one\r\ntwo", "sad"), ("three", "sad")]


@pytest.mark.parametrize("odd", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c"], ids=ascii)
def test_only_line_feeds_and_carriage_returns_end_a_line(tmp_path: Path, odd: str) -> None:
    text = f"one{odd}two"
    rows = json.dumps({"text": text, "answer": "sad"}, ensure_ascii=False)
    if odd in rows:  # JSON itself allows these two unescaped
        assert pairs(load_examples(write(tmp_path, "r.jsonl", rows + "\n" + rows), MOODS)) == [(text, "sad")] * 2
    assert pairs(load_examples(write(tmp_path, "r.csv", f"text,answer\n{text},sad\n"), MOODS)) == [(text, "sad")]


def test_the_card_names_the_columns(tmp_path: Path) -> None:
    task = Task(name="a", description="b", labels=("x",), text_column="Frage, lang", answer_column="Ziel")
    assert pairs(load_examples(write(tmp_path, "r.csv", '"Frage, lang",Ziel\nWer?,x\n'), task)) == [("Wer?", "x")]


def test_an_open_task_takes_any_answer(tmp_path: Path) -> None:
    path = write(tmp_path, "r.jsonl", jsonl({"text": "6 * 7?", "answer": " forty two\n"}))
    assert pairs(load_examples(path, OPEN)) == [("6 * 7?", "forty two")]


LABELS = "expected one of 'happy', 'sad'"
WANTED = "expected rows as .jsonl, .json, .csv or .parquet"
UTF8 = ". Save it as UTF-8 (in a spreadsheet: as 'CSV UTF-8')"
QUOTES = "expected quotes around cells that hold quotes, commas or line ends, and inner quotes doubled"
GOOD = jsonl({"text": "a", "answer": "sad"})
BAD_ROWS: dict[str, tuple[str, str | bytes | None, str]] = {
    "missing file": ("r.jsonl", None, f"{{}}: there is no such file; {WANTED}"),
    "folder": (".", None, f"{{}}: this is a folder; {WANTED}"),
    "file in a file": ("file/r.csv", None, f"{{}}: cannot be read (Not a directory); {WANTED}"),
    "ending": ("r.xlsx", "x", f"{{}}: found the ending '.xlsx'; {WANTED}. Save the sheet as 'CSV UTF-8'"),
    "no ending": ("rows", "x", f"{{}}: found the ending ''; {WANTED}"),
    "cyrillic": ("r.csv", "text,answer\nпривет из города,sad".encode("cp1251"),
                 f"{{}}, line 2: found byte 0xef, which is not UTF-8 text; {WANTED}{UTF8}"),
    "cut utf-16": ("r.csv", "text,answer".encode("utf-16")[:-1],
                   f"{{}}, line 1: found byte 0xff, which is not UTF-8 text; {WANTED}{UTF8}"),
    "a spreadsheet named csv": ("r.csv", b"PK\x03\x04\x14\0\xff",
                                f"{{}}: found a spreadsheet or archive; {WANTED}{UTF8}"),
    "utf-16 without a mark": ("r.csv", "text,answer".encode("utf-16-le"),
                              f"{{}}, line 1: found byte 0x00, which is not UTF-8 text; {WANTED}{UTF8}"),
    "binary": ("r.csv", b"PNG\r\n\x1a\n\x00\x00\xff",
               f"{{}}, line 3: found byte 0xff, which is not UTF-8 text; {WANTED}{UTF8}"),
    "csv with a NUL": ("r.csv", "text,answer\na\0b,sad\n",
                       f"{{}}, line 2: found byte 0x00, which is not UTF-8 text; {WANTED}{UTF8}"),
    # ------------------------------------------------ nothing in it
    "empty jsonl": ("r.jsonl", "", "{}: the file holds no rows; expected at least one"),
    "blank jsonl": ("r.jsonl", "\ufeff \n\r\n", "{}: the file holds no rows; expected at least one"),
    "empty json": ("r.json", " \n", "{}: the file holds no rows; expected at least one"),
    "empty list": ("r.json", "[]", "{}: the file holds no rows; expected at least one"),
    "empty csv": ("r.csv", "", "{}: the file holds no rows; expected at least one"),
    "csv with a header alone": ("r.csv", "text,answer\n\n", "{}: the file holds no rows; expected at least one"),
    # ------------------------------------------------ JSON
    "broken jsonl": ("r.jsonl", GOOD + '\n{"text": }\n',
                     "{}, line 3: not valid JSON (Expecting value, column 10); expected one object a line"),
    "indented json as jsonl": ("r.jsonl", '{\n "text": "a"}',
                               "{}, line 1: not valid JSON (Expecting property name enclosed in double quotes, "
                               "column 2); expected one object a line"),
    "null in jsonl": ("r.jsonl", GOOD + "null", "{}, line 2: found null; expected an object with a text and an answer"),
    "list in jsonl": ("r.jsonl", GOOD + "[]", "{}, line 2: found a list; expected an object with a text and an answer"),
    "text in jsonl": ("r.jsonl", '"a"', "{}, line 1: found a string; expected an object with a text and an answer"),
    "number in jsonl": ("r.jsonl", "NaN", "{}, line 1: found a number; expected an object with a text and an answer"),
    "true in jsonl": ("r.jsonl", "true",
                      "{}, line 1: found true or false; expected an object with a text and an answer"),
    "deep jsonl": ("r.jsonl", GOOD + "[" * 200_000,
                   "{}, line 2: not valid JSON (nested too deeply); expected one object a line"),
    "deep json": ("r.json", '{"a":' * 200_000,
                  "{}: not valid JSON (nested too deeply); expected a list of objects"),
    "long number": ("r.jsonl", '{"text": ' + "1" * 5000 + "}",
                    "{}, line 1: not valid JSON (a number of too many digits); expected one object a line"),
    "object for a list": ("r.json", '{"text": "a"}', "{}: found an object; expected a list of objects"),
    "null for a list": ("r.json", "null", "{}: found null; expected a list of objects"),
    "broken json": ("r.json", '[\n{"text": "a"},\n{"text: 1}]',
                    "{}, line 3: not valid JSON (Unterminated string starting at, column 2); "
                    "expected a list of objects"),
    "row in json": ("r.json", f"[{GOOD}, [1]]",
                    "{}, row 2: found a list; expected an object with a text and an answer"),
    # ------------------------------------------------ columns
    "missing column": ("r.jsonl", jsonl({"text": "a", "label": "sad"}),
                       f"{{}}, line 1: the column 'answer' is missing; found 'text', 'label'. {MISSING}"),
    "missing column in json": ("r.json", "[{}]",
                               f"{{}}, row 1: the column 'text' is missing; found nothing. {MISSING}"),
    "column with a line end": ("r.csv", '"te\nxt",answer\na,sad\n',
                               f"{{}}, line 3: the column 'text' is missing; found 'te\\nxt', 'answer'. {MISSING}"),
    "many columns": ("r.jsonl", jsonl({f"c{n}": 1 for n in range(20)}),
                     "{}, line 1: the column 'text' is missing; found "
                     + ", ".join(f"'c{n}'" for n in range(12)) + f" .... {MISSING}"),
    "null text": ("r.jsonl", jsonl({"text": None, "answer": "sad"}),
                  "{}, line 1: found null in 'text'; expected text. Put it in quotes, or leave the row out"),
    "number as answer": ("r.jsonl", jsonl({"text": "a", "answer": 1}),
                         f"{{}}, line 1: found the label '1'; {LABELS}{NAMES_INSTEAD}"),
    "true as answer": ("r.jsonl", jsonl({"text": "a", "answer": True}),
                       f"{{}}, line 1: found the label 'true'; {LABELS}"),
    "null as answer": ("r.jsonl", jsonl({"text": "a", "answer": None}),
                       "{}, line 1: found null in 'answer'; expected text. Give the row an answer, or leave it out"),
    "NaN as answer": ("r.jsonl", '{"text": "a", "answer": NaN}',
                      "{}, line 1: found a number in 'answer'; expected text. Give the row an answer, or leave it out"),
    "list as answer": ("r.jsonl", jsonl({"text": "a", "answer": ["sad"]}),
                       "{}, line 1: found a list in 'answer'; expected text. Join it into one text"),
    "object as answer": ("r.jsonl", jsonl({"text": "a", "answer": {"a": 1}}),
                         "{}, line 1: found an object in 'answer'; expected text. Join it into one text"),
    "key twice": ("r.jsonl", GOOD + '{"text": "a", "answer": "sad", "text": "b"}',
                  "{}, line 2: not valid JSON (the key 'text' stands twice); expected one object a line"),
    "lists beside other keys": ("r.json", '{"version": 1, "data": []}',
                                "{}: found an object; expected a list of objects. Save the list under 'data' alone"),
    "list as text": ("r.jsonl", jsonl({"text": ["a"], "answer": "sad"}),
                     "{}, line 1: found a list in 'text'; expected text. Put it in quotes, or leave the row out"),
    "blank text": ("r.csv", "text,answer\n  ,sad\n", "{}, line 2: found nothing in 'text'; expected text"),
    "blank answer": ("r.csv", "text,answer\na,\n", "{}, line 2: found nothing in 'answer'; expected text"),
    "half a surrogate pair": ("r.jsonl", r'{"text": "a\ud800", "answer": "sad"}',
                              "{}, line 1, character 2: found half of a surrogate pair, 0xd800; "
                              "expected valid Unicode"),
    # ------------------------------------------------ labels
    "unknown label": ("r.jsonl", GOOD + jsonl({"text": "a", "answer": "calm"}),
                      f"{{}}, line 2: found the label 'calm'; {LABELS}"),
    "label of another case": ("r.jsonl", jsonl({"text": "a", "answer": "Sad"}),
                              f"{{}}, line 1: found the label 'Sad'; did you mean 'sad'? {LABELS}"),
    "label with a line end": ("r.jsonl", jsonl({"text": "a", "answer": "hap\r\npy\u2028"}),
                              f"{{}}, line 1: found the label 'hap\\r\\npy'; did you mean 'happy'? {LABELS}"),
    "a book for a label": ("r.csv", "text,answer\na," + "x" * 100_000,
                           f"{{}}, line 2: found the label {CUT}; {LABELS}"),
    "label after multi-line cells": ("r.csv", 'text,answer\r\n"a\r\n\r\nb",sad\r\n\r\n"c\r\nd",calm\r\n',
                                     f"{{}}, line 6: found the label 'calm'; {LABELS}"),
    # ------------------------------------------------ CSV
    "too few cells": ("r.csv", "text,answer\na,sad\nb\n",
                      "{}, line 3: found 1 cells; expected the header's 2. Quote cells that hold commas"),
    "too many cells": ("r.csv", 'text,answer\n"a\nb",sad\nOh, no,sad\n',
                       "{}, line 4: found 3 cells; expected the header's 2. Quote cells that hold commas"),
    "column twice": ("r.csv", "\ntext,answer,text\na,sad,b\n",
                     "{}, line 2: found the column 'text' more than once; expected different names"),
    "quote never closed": ("r.csv", 'text,answer\na,sad\n"b,sad\nc,sad\n',
                           f"{{}}, line 3: not valid CSV (unexpected end of data); {QUOTES}"),
    "quote inside": ("r.csv", 'text,answer\n"Oh" he said,sad\n',
                     f"{{}}, line 2: not valid CSV (',' expected after '\"'); {QUOTES}"),
    "huge cell": ("r.csv", "text,answer\n" + "x" * 200_000 + ",sad\n",
                  f"{{}}, line 2: not valid CSV (field larger than field limit (131072)); {QUOTES}"),
}  # fmt: skip


@pytest.mark.parametrize("name, content, message", BAD_ROWS.values(), ids=BAD_ROWS)
def test_a_bad_row_file_is_one_plain_line(tmp_path: Path, name: str, content: str | bytes | None, message: str) -> None:
    write(tmp_path, "file", "")
    path = tmp_path / name if content is None else write(tmp_path, name, content)
    said = complaint(load_examples, path, MOODS)
    assert said == message.replace("{}", str(path), 1)
    assert len(said.splitlines()) == 1


def test_many_labels_are_not_all_listed(tmp_path: Path) -> None:
    task = Task(name="a", description="b", labels=tuple(f"label{n}" for n in range(99)))
    said = complaint(load_examples, write(tmp_path, "r.csv", "text,answer\na,lebel7\n"), task)
    shown = ", ".join(f"'label{n}'" for n in range(12))
    assert (
        said
        == f"{tmp_path}/r.csv, line 2: found the label 'lebel7'; did you mean 'label7'? expected one of {shown} ..."
    )


def test_100_000_rows_load(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"text": f"The text of row {n}, in about as many words as usual.", "answer": "sad"} for n in range(100_000)]
    files = {
        "r.jsonl": jsonl(*rows),
        "r.csv": "text,answer\n" + "".join(f'"{row["text"]}",sad\n' for row in rows),
    }
    for name, content in files.items():
        path = write(tmp_path, name, content)
        started = time.perf_counter()
        examples = load_examples(path, MOODS)
        with capsys.disabled():
            print(f" {name}: {len(examples):,} rows in {time.perf_counter() - started:.2f} s", end="")
        assert len({example.id for example in examples}) == 100_000


def test_an_id_is_made_of_the_text_and_the_answer() -> None:
    """The first sixteen digits of what `printf 'a\\0b' | sha256sum` prints."""
    assert Example("a", "b").id == "59b271ae1bbcb1d3"
    assert len({Example("a", "b").id, Example("b", "a").id, Example("ab", "").id, Example("A", "b").id}) == 4


# ------------------------------------------------------------------ documents


def test_documents_become_examples() -> None:
    task = Task(**{**MOODS.model_dump(), "answer_column": "mood"})
    documents = (Document(text, metadata={"mood": mood, "source": "x", "text": "no"}) for text, mood in ROWS)
    assert pairs(examples_from_documents(documents, task)) == ROWS
    assert examples_from_documents([], task) == []


@pytest.mark.parametrize(
    "document, message",
    [
        (Document("a"), f"document 2: the column 'answer' is missing; found 'text'. {MISSING}"),
        (Document("a", metadata={"answer": 3}), f"document 2: found the label '3'; {LABELS}{NAMES_INSTEAD}"),
        (Document(" ", metadata={"answer": "sad"}), "document 2: found nothing in 'text'; expected text"),
        (Document("a", metadata={"answer": "calm"}), f"document 2: found the label 'calm'; {LABELS}"),
    ],
)
def test_a_document_that_is_no_example_is_one_plain_line(document: Document, message: str) -> None:
    good = Document("a", metadata={"answer": "sad"})
    assert complaint(examples_from_documents, [good, document], MOODS) == message


# ------------------------------------------------------------------ splitting


def rows_of(labels: dict[str, int]) -> list[Example]:
    return [Example(f"{label} {n}", label) for label, count in labels.items() for n in range(count)]


def test_fold_forgets_case_and_white_space_alone() -> None:
    assert fold("  Die STRASSE\u00a0ist\r\n\tlang ") == fold("die Straße ist lang") == "die strasse ist lang"
    assert fold("a.b") != fold("ab")


def test_distinct_keeps_the_first_of_each_text() -> None:
    rows = [Example("A  b", "x"), Example("a B", "y"), Example("ab", "x"), Example("A b\n", "x")]
    assert distinct(rows) == [rows[0], rows[2]]


def test_every_prefix_of_a_stratified_order_has_nearly_the_shares_of_the_labels() -> None:
    """Of 20 rows with shares .5, .3 and .2, a prefix of n holds n times that, give or take one row."""
    order = stratified(rows_of({"a": 10, "b": 6, "c": 4}), seed=3)
    for n in range(1, 21):
        found = Counter(example.answer for example in order[:n])
        assert all(abs(found[label] - share * n) <= 1 for label, share in {"a": 0.5, "b": 0.3, "c": 0.2}.items())


def test_the_seed_changes_the_order_and_nothing_else() -> None:
    rows = rows_of({"a": 10, "b": 10})
    for ordered in (shuffled, stratified):
        assert ordered(rows, 1) != ordered(rows, 2)
        assert Counter(ordered(rows, 1)) == Counter(ordered(rows, 2)) == Counter(rows)


def test_parts_are_disjoint_and_stratified() -> None:
    parts = split(rows_of({"a": 30, "b": 10}), seed=0, sizes=(20, 12, 8))
    assert [len(part) for part in parts] == [20, 12, 8]
    assert len(set().union(*parts)) == 40
    assert [Counter(example.answer for example in part) for part in parts] == [
        {"a": 15, "b": 5},
        {"a": 9, "b": 3},
        {"a": 6, "b": 2},
    ]


@pytest.mark.parametrize("seed", range(5))
def test_duplicates_never_cross_parts(seed: int) -> None:
    """40 texts, each four times: as it is, in capitals, with other white space, and with another answer."""
    rows = [
        twin
        for n in range(40)
        for twin in (
            Example(f"text {n}", "a"),
            Example(f"TEXT {n}", "a"),
            Example(f" text\n\t{n} ", "a"),
            Example(f"text {n}", "b"),
        )
    ]
    parts = split(rows, seed=seed, sizes=(0.5, 0.25, 0.25))
    folded = [{fold(example.text) for example in part} for part in parts]
    assert [len(texts) for texts in folded] == [len(part) for part in parts] == [20, 10, 10]
    assert not any(one & other for one, other in combinations(folded, 2))


@pytest.mark.parametrize(
    "sizes, counts",
    [
        ((4, 3, 2), (4, 3, 2)),
        ((4,), (4, 0, 0)),
        ((), (0, 0, 0)),
        ((0.5, 0.3, 0.2), (50, 30, 20)),
        ((0.29, 0.57, 0.14), (29, 57, 14)),  # 0.29 * 100 is a little less than 29
        ((1.0,), (100, 0, 0)),
        ((1, 1, 1), (1, 1, 1)),
        ((2.0, 0.5), (2, 50, 0)),
        ({"test": 20, "write": 0.1}, (10, 0, 20)),
        ({}, (0, 0, 0)),
        ((100, 0, 0), (100, 0, 0)),
    ],
)
def test_sizes_are_rows_or_shares(sizes: Any, counts: tuple[int, int, int]) -> None:
    assert tuple(map(len, split(rows_of({"a": 50, "b": 50}), seed=0, sizes=sizes))) == counts


@pytest.mark.parametrize(
    "sizes, message",
    [
        ((60, 50), "sizes: 110 rows asked for; found 100 distinct ones in 101"),
        ((0.7, 0.4), "sizes: 110 rows asked for; found 100 distinct ones in 101"),
        ((-1,), "sizes: found -1; expected a whole number of rows or a share from 0 to 1"),
        ((2.5,), "sizes: found 2.5; expected a whole number of rows or a share from 0 to 1"),
        ((float("nan"),), "sizes: found nan; expected a whole number of rows or a share from 0 to 1"),
        ((float("inf"),), "sizes: found inf; expected a whole number of rows or a share from 0 to 1"),
        ((1, 2, 3, 4), "sizes: found (1, 2, 3, 4); expected at most write, dev and test"),
        ({"train": 3}, "sizes: found {'train': 3}; expected at most write, dev and test"),
    ],
)
def test_sizes_that_cannot_be_had_are_one_plain_line(sizes: Any, message: str) -> None:
    rows = rows_of({"a": 50, "b": 50})
    assert complaint(split, [*rows, Example("A 0", "a")], seed=0, sizes=sizes) == message


ORDERS = """
import json, sys
from sleicl_chains.tasks.rows import Example
from sleicl_chains.tasks.splits import shuffled, split, stratified
rows = [Example(*row) for row in json.load(sys.stdin)]
parts = split(rows, seed=7, sizes=(0.5, 0.3, 0.2))
print(json.dumps([[row.text for row in part] for part in (shuffled(rows, 7), stratified(rows, 7), *parts)]))
"""


def test_orders_are_the_same_in_every_process_and_whatever_the_files_order() -> None:
    rows = rows_of({"a": 9, "b": 5, "c": 2})
    twins = [Example("A 0", "a"), Example("a  1", "b"), Example("a 1", "c")]
    given = pairs([*rows, *twins])
    expected: list[list[str]] | None = None
    for hash_seed in ("0", "1", "2"):
        random.Random(hash_seed).shuffle(given)
        done = subprocess.run(
            [sys.executable, "-c", ORDERS],
            input=json.dumps(given),
            capture_output=True,
            text=True,
            env=os.environ | {"PYTHONHASHSEED": hash_seed},
            check=True,
        )
        found = json.loads(done.stdout)
        expected = expected or found
        assert found == expected
    assert expected is not None
    parts = split([*rows, *twins], seed=7, sizes=(0.5, 0.3, 0.2))
    assert [[row.text for row in part] for part in parts] == expected[2:]


def test_the_order_is_pinned() -> None:
    """Sorted by what `printf '0:x 0\\0a' | sha256sum` and so on print; another order would change every sample."""
    rows = [Example(f"x {n}", "ab"[n % 2]) for n in range(6)]
    assert [row.text for row in shuffled(rows, 0)] == ["x 4", "x 5", "x 1", "x 0", "x 3", "x 2"]
    assert split(rows, seed=0, sizes=(1, 2)) == Split([rows[4]], [rows[5], rows[0]], [])


# ------------------------------------------------------------------ a first card


ODD_LABELS = [
    'with "quotes"', "back\\slash", "tri'''ple", '"""', "line\nend", "tab\there", "\x7f delete", "\x01 control",
    "\x85 next line", "\u2028 separator", "日本語", "😀", "a, b", "[x]", "#no comment", "{brace}", "null", "-1", "ß",
]  # fmt: skip


def test_the_card_that_is_written_loads_again_whatever_the_labels_hold(tmp_path: Path) -> None:
    rows = [{"question": f"{n} {label}", "Label": label} for n in range(2) for label in ODD_LABELS]
    task = infer_task(write(tmp_path, 'my "odd" data.jsonl', jsonl(*rows)))
    assert task.model_dump() == {
        "name": 'my "odd" data',
        "task_type": "classification",
        "description": "Say what is to be decided about the text, and what each answer means.",
        "labels": tuple(label.strip() for label in ODD_LABELS),
        "text_column": "question",
        "answer_column": "Label",
    }
    card = write(tmp_path, "card.toml", card_text(task))
    assert load_task(card) == task
    assert list(tomllib.loads(card_text(task))) == [
        "name", "task_type", "description", "labels", "text_column", "answer_column",
    ]  # fmt: skip
    assert len(load_examples(tmp_path / 'my "odd" data.jsonl', load_task(card))) == len(rows)


def test_a_card_reads_like_one_that_a_person_wrote(tmp_path: Path) -> None:
    task = infer_task(write(tmp_path, "moods.csv", "id,text,answer\n1,a,sad\n2,b,happy\n3,c,sad\n4,d,sad\n"))
    assert card_text(task) == (
        'name = "moods"\n'
        'task_type = "classification"\n'
        'description = "Say what is to be decided about the text, and what each answer means."\n'
        'labels = ["sad", "happy"]\n'
        'text_column = "text"\n'
        'answer_column = "answer"\n'
    )


@pytest.mark.parametrize(
    "answers, is_open",
    [
        (["a", "b"] * 2, False),
        (["a", "b", "c"], True),  # mostly different
        ([f"answer {n}" for n in range(50)] * 2, False),
        ([f"answer {n}" for n in range(150)] * 2, False),  # many, but each repeats
        ([f"answer {n}" for n in range(51)] + ["answer 0", "answer 1"] * 30, True),  # a long tail
        (["Yes.", "yes."], True),  # alike, but no labels are made of them
    ],
)
def test_many_or_mostly_different_answers_make_an_open_task(tmp_path: Path, answers: list[str], is_open: bool) -> None:
    rows = jsonl(*({"text": f"text {n}", "answer": answer} for n, answer in enumerate(answers)))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        task = infer_task(write(tmp_path, "r.jsonl", rows))
    assert len(said) == (is_open or len(set(answers)) > 50)
    assert task.labels == (() if is_open else tuple(dict.fromkeys(answers)))
    assert task.task_type == ("question answering" if is_open else "classification")
    assert load_task(write(tmp_path, "card.toml", card_text(task))) == task


@pytest.mark.parametrize("name", ["r.csv", "r.tsv", "r.json", "r.jsonl"])
def test_columns_may_be_told(tmp_path: Path, name: str) -> None:
    columns = {"text": "wrong", "answer": "wrong", "Frage\n1": "a", "Ziel": "x"}
    csv = 'text,answer,"Frage\n1",Ziel\nw,w,a,x\nw,w,b,x\nw,w,c,y\nw,w,d,y\n'
    content = {
        "r.csv": csv,
        "r.tsv": csv.replace(",", "\t"),
        "r.json": json.dumps([columns, columns | {"Ziel": "y"}] * 2),
        "r.jsonl": jsonl(*[columns, columns | {"Ziel": "y"}] * 2),
    }[name]
    task = infer_task(write(tmp_path, name, content), text_column="Frage\n1", answer_column="Ziel")
    assert (task.text_column, task.answer_column, task.labels) == ("Frage\n1", "Ziel", ("x", "y"))
    assert load_task(write(tmp_path, "card.toml", card_text(task))) == task


BAD_FIRST_ROWS: dict[str, tuple[str, str | bytes | None, dict[str, str], str]] = {
    "missing file": ("r.csv", None, {}, f"{{}}: there is no such file; {WANTED}"),
    "folder": (".", None, {}, f"{{}}: this is a folder; {WANTED}"),
    "ending": ("r.xlsx", b"PK\x03\x04", {}, f"{{}}: found the ending '.xlsx'; {WANTED}. Save the sheet as 'CSV UTF-8'"),
    "empty": ("r.csv", "text,answer\n", {}, "{}: the file holds no rows; expected at least one"),
    "no text column": (
        "r.csv",
        '"a\nb",answer\nx,y\n',
        {},
        "{}: found the columns a b, answer; say which one with --text-column",
    ),
    "an answer that is missing": (
        "r.jsonl",
        jsonl({"text": "a"}, {"text": "b", "answer": "x"}),
        {},
        f"{{}}, line 1: the column 'answer' is missing; found 'text'. {MISSING}",
    ),
    "an empty text without answers": (
        "r.csv",
        "id,text\n1,\n",
        {},
        "{}, line 2: found nothing in 'text'; expected text",
    ),
    "wrong column told": (
        "r.csv",
        "text,b\nx,y\n",
        {"answer_column": "c"},
        f"{{}}, line 2: the column 'c' is missing; found 'text', 'b'. {MISSING}",
    ),
    "list for an answer": (
        "r.jsonl",
        jsonl({"text": "a", "label": [0]}),
        {},
        "{}, line 1: found a list in 'label'; expected text. Join it into one text",
    ),
    "labels that look the same": (
        "r.csv",
        "text,answer\na,don't\nb,don’t\nc,don't\nd,don’t\n",
        {},
        "{}: found the answers \"don't\" and 'don\\u2019t', which look the same; write both with the same characters",
    ),
    "labels alike": (
        "r.csv",
        "text,answer\na,Yes\nb,no\nc,yes\nd,no\ne,no\nf,no\n",
        {},
        "{}: found the answers 'Yes' and 'yes'; expected labels that differ by more than case and white space",
    ),
}


@pytest.mark.parametrize("name, content, options, message", BAD_FIRST_ROWS.values(), ids=BAD_FIRST_ROWS)
def test_rows_of_which_no_card_can_be_made_are_one_plain_line(
    tmp_path: Path, name: str, content: str | bytes | None, options: dict[str, str], message: str
) -> None:
    path = tmp_path / name if content is None else write(tmp_path, name, content)
    said = complaint(infer_task, path, **options)
    assert said == message.replace("{}", str(path), 1)
    assert len(said.splitlines()) == 1
