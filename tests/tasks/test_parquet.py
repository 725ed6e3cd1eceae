"""Parquet: what is written is read again, types of JSON are found, and what is no such file is refused."""

import sys
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from sleicl_chains.errors import InputError
from sleicl_chains.tasks import parquet
from sleicl_chains.tasks.parquet import parquet_columns, parquet_rows, write_parquet

ADDED = ("answer", "probability", "valid", "error")


def test_rows_of_json_get_the_types_that_hold_them_all(tmp_path: Path) -> None:
    def rows() -> list[dict[str, Any]]:
        answer = {"answer": "a", "probability": None, "valid": True, "error": None}
        wide = {"n": 1, "real": 1, "mixed": 1, "none": None, "list": [1], "late": None}
        return [
            {**(wide if at < 600 else {"n": 2, "real": 2.5, "mixed": "two", "late": "x"}), **answer}
            for at in range(700)
        ]

    file = tmp_path / "a.parquet"
    write_parquet(file, rows, ADDED)
    found = list(parquet_rows(file))
    assert parquet_columns(file) == ("n", "real", "mixed", "none", "list", "late", *ADDED)
    assert [str(kind) for kind in pyarrow.parquet.read_schema(file).types] == [
        "int64", "double", "string", "string", "list<element: int64>", "string", "string", "double", "bool", "string",
    ]  # fmt: skip
    assert len(found) == 700 and (found[0]["mixed"], found[699]["mixed"], found[0]["real"]) == ("1", "two", 1.0)
    assert found[699] == {
        "n": 2, "real": 2.5, "mixed": "two", "none": None, "list": None, "late": "x", "answer": "a",
        "probability": None, "valid": True, "error": None,
    }  # fmt: skip
    assert [one.name for one in tmp_path.iterdir()] == ["a.parquet"]


def test_objects_without_a_key_are_written_as_text(tmp_path: Path) -> None:
    answer = dict.fromkeys(ADDED)
    write_parquet(tmp_path / "a.parquet", lambda: [{"a": {}, "b": [{}], "c": {"x": 1}, **answer}], ADDED)
    assert list(parquet_rows(tmp_path / "a.parquet")) == [{"a": "{}", "b": "[{}]", "c": {"x": 1}, **answer}]


def test_what_fails_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(Exception, match="bool"):
        write_parquet(tmp_path / "a.parquet", lambda: [{"answer": "a", "valid": "no"}], ADDED)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("data", [b"", b"text\na\n", b"PAR1", b"PAR1 of nonsense PAR1"])
def test_another_file_is_refused_in_one_line(tmp_path: Path, data: bytes) -> None:
    file = tmp_path / "a.parquet"
    file.write_bytes(data)
    with pytest.raises(InputError, match="expected rows as a Parquet file") as raised:
        list(parquet_rows(file))
    assert str(raised.value).startswith(f"{file}: cannot be read") and "\n" not in str(raised.value)


def test_a_damaged_page_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"text": ["some words"] * 1000}), file)
    data = bytearray(file.read_bytes())
    data[20:60] = b"\xff" * 40
    file.write_bytes(data)
    with pytest.raises(InputError, match="cannot be read"):
        list(parquet_rows(file))


def test_rows_that_would_unfold_too_far_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"text": ["x" * 1000] * 5000}), file, use_dictionary=False)
    assert file.stat().st_size < 2**20 and len(list(parquet_rows(file))) == 5000
    monkeypatch.setattr(parquet, "ROWS_LIMIT", 2**20)
    with pytest.raises(InputError, match="a group of rows unfolds to more than 1 MiB"):
        list(parquet_rows(file))


def test_without_pyarrow_the_command_that_helps_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(InputError, match=r"Parquet needs pyarrow: pip install 'sleicl-chains\[parquet\]'"):
        list(parquet_rows(tmp_path / "a.parquet"))
