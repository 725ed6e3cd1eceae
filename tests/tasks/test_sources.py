"""Rows from elsewhere: LangChain's loaders, any mappings, and Parquet."""

import builtins
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from langchain_core.document_loaders import BaseLoader
from langchain_core.documents import Document

from sleicl_chains import Example, Task, examples_from_documents, examples_from_rows, load_examples
from sleicl_chains.errors import InputError, InputNote
from sleicl_chains.tasks.infer import infer_task
from tests.support.command import sleicl

MOODS = Task(name="moods", description="Which mood is it?", labels=("happy", "sad"))
STARS = Task(name="stars", description="How many stars?", labels=("0", "1", "2"))
ROWS = [{"text": "I won.", "answer": "happy"}, {"text": "It rains.", "answer": "sad"}]
EXAMPLES = [Example("I won.", "happy"), Example("It rains.", "sad")]


class Loader(BaseLoader):
    """What any package's loader is."""

    def lazy_load(self) -> Iterator[Document]:
        for row in ROWS:
            yield Document(row["text"], metadata={"mood": row["answer"], "source": "here"})


def table(folder: Path, rows: list[dict[str, Any]], **options: Any) -> Path:
    file = folder / "rows.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), file, **options)
    return file


def test_any_loader_gives_examples() -> None:
    task = MOODS.model_copy(update={"answer_column": "mood"})
    assert examples_from_documents(Loader(), task) == EXAMPLES == examples_from_documents(Loader().load(), task)


def test_any_mappings_give_examples() -> None:
    task = Task(name="m", description="?", labels=("happy", "sad"), text_column="sentence", answer_column="mood")
    rows = ({"sentence": row["text"], "mood": row["answer"], "id": 1} for row in ROWS)
    assert examples_from_rows(rows, task) == EXAMPLES


@pytest.mark.parametrize(
    ("row", "task", "message"),
    (
        (
            {"text": "a", "answer": 1},
            MOODS,
            "row 1: found the label '1'; expected one of 'happy', 'sad'. If numbers stand for labels, write the names; "
            "datasets has them in features",
        ),
        ({"text": "a", "answer": 7}, STARS, "row 1: found the label '7'; expected one of '0', '1', '2'"),
        ({"text": "a", "answer": "1"}, MOODS, "row 1: found the label '1'; expected one of 'happy', 'sad'"),
        ({"text": None, "answer": "sad"}, MOODS, "row 1: found null in 'text'; expected text. Put it in quotes, or "
         "leave the row out"),
        ("a", MOODS, "row 1: found a string; expected a mapping with a text and an answer"),
    ),
)  # fmt: skip
def test_what_is_no_row_is_said(row: Any, task: Task, message: str) -> None:
    with pytest.raises(InputError) as caught:
        examples_from_rows([row], task)
    assert str(caught.value) == message


def test_numbers_that_the_card_names_are_labels() -> None:
    with pytest.warns(InputNote, match="rows: 1 answers that are numbers, true or false are taken as text"):
        assert examples_from_rows([{"text": "Fine.", "answer": 2}], STARS) == [Example("Fine.", "2")]


def test_parquet_is_read_as_other_rows_are(tmp_path: Path) -> None:
    file = table(tmp_path, ROWS)
    assert load_examples(file, MOODS) == EXAMPLES
    assert infer_task(table(tmp_path, ROWS * 3)).labels == ("happy", "sad")
    many = [{"text": f"text {n}", "answer": "sad", "weight": n} for n in range(1000)]
    read = load_examples(table(tmp_path, many, row_group_size=100), MOODS)
    assert [example.text for example in read] == [row["text"] for row in many]


@pytest.mark.parametrize(
    ("rows", "message"),
    (
        ([*ROWS, {"text": None, "answer": "sad"}], "row 3: found null in 'text'; expected text"),
        ([{"text": "a", "answer": 0}], "row 1: found the label '0'; expected one of 'happy', 'sad'. If numbers stand"),
        ([{"sentence": "a", "answer": "sad"}], "row 1: the column 'text' is missing; found 'sentence', 'answer'."),
        ([], "the file holds no rows; expected at least one"),
    ),
)
def test_a_row_that_is_none_is_named(rows: list[dict[str, Any]], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        load_examples(table(tmp_path, rows), MOODS)
    assert message in str(caught.value) and str(caught.value).startswith(str(tmp_path / "rows.parquet"))


def test_what_is_no_parquet_is_said(tmp_path: Path) -> None:
    file = tmp_path / "rows.parquet"
    with pytest.raises(InputError, match="rows.parquet: there is no such file"):
        load_examples(file, MOODS)
    file.write_text("text,answer\n")
    with pytest.raises(InputError, match="rows.parquet: cannot be read .*expected rows as a Parquet file"):
        load_examples(file, MOODS)


def test_without_pyarrow_the_command_that_helps_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, real = table(tmp_path, ROWS), builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith("pyarrow"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(InputError, match=r"Parquet needs pyarrow: pip install 'sleicl-chains\[parquet\]'"):
        load_examples(file, MOODS)


def test_the_commands_take_parquet(tmp_path: Path) -> None:
    done = sleicl("init", table(tmp_path, ROWS * 3), "--task", tmp_path / "card.toml")
    assert done.status == 0 and "2 labels: happy, sad" in done.out, done.err
