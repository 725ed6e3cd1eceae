"""Rows as a stream: what is wrong with a row is told, and costs no other row."""

import io
from pathlib import Path

import pytest

from sleicl_chains.errors import InputError, InputNote
from sleicl_chains.tasks import streams
from sleicl_chains.tasks.streams import Stream, Streamed, count_rows, stream_pipe, stream_rows


def streamed(folder: Path, name: str, data: bytes) -> tuple[Stream, list[Streamed]]:
    (folder / name).write_bytes(data)
    with stream_rows(folder / name) as stream:
        return stream, list(stream.rows)


def test_a_table_is_read_cell_by_cell_and_its_broken_rows_are_told(tmp_path: Path) -> None:
    text = b'text,n\none,1\n"two\nlines",2\n,\nthree\n"never closed,4\nfive,5\n"a"b,6\n'
    stream, rows = streamed(tmp_path, "a.csv", text)
    assert (stream.form, stream.columns, stream.sign) == ("table", ("text", "n"), ",")
    assert [(row.line, row.columns or row.problem.partition(".")[0]) for row in rows] == [
        (2, {"text": "one", "n": "1"}),
        (3, {"text": "two\nlines", "n": "2"}),
        (6, "found 1 cells; expected the header's 2"),
        (7, "not valid CSV (',' expected after '\"')"),
        (8, {"text": "five", "n": "5"}),
        (9, "not valid CSV (',' expected after '\"')"),
    ]
    assert [row.raw for row in rows if row.problem] == ["three\n", '"never closed,4\n', '"a"b,6\n']
    assert count_rows(tmp_path / "a.csv") == 6


def test_a_quote_that_is_never_closed_costs_its_line_alone(tmp_path: Path) -> None:
    lines = [f"row {number},{number}\n" for number in range(50_000)]
    lines[7] = '"' + lines[7]
    _, rows = streamed(tmp_path, "a.csv", ("text,n\n" + "".join(lines)).encode())
    assert len(rows) == 50_000 and [row.line for row in rows if row.problem] == [9]
    assert [int(row.columns["n"]) for row in rows if row.columns] == [n for n in range(50_000) if n != 7]


def test_signs_and_encodings_are_told_as_everywhere(tmp_path: Path) -> None:
    with pytest.warns(InputNote, match=r"a.csv: read as Windows-1252, for it is not UTF-8"):
        stream, rows = streamed(tmp_path, "a.csv", "sep=;\ntext;n\nh\xe4llo;1\n".encode("cp1252"))
    assert (stream.sign, rows) == (";", [Streamed(3, {"text": "h\xe4llo", "n": "1"})])
    with pytest.warns(InputNote, match=r"b.csv: read as UTF-16"):
        stream, rows = streamed(tmp_path, "b.csv", "text\tn\nh\xe4llo\t1\n".encode("utf-16"))
    assert (stream.sign, rows) == ("\t", [Streamed(2, {"text": "h\xe4llo", "n": "1"})])
    _, rows = streamed(tmp_path, "c.csv", "\ufefftext\nh\xe4llo\n".encode())
    assert rows == [Streamed(2, {"text": "h\xe4llo"})]
    with pytest.raises(InputError, match="d.csv: found a zero byte, which no text holds"):
        streamed(tmp_path, "d.csv", b"text\na\0b\n")


def test_a_byte_that_is_no_text_costs_its_row(tmp_path: Path) -> None:
    _, rows = streamed(tmp_path, "a.csv", b"text\none\n\x01\xff\ntwo\n")
    assert [row.columns.get("text") for row in rows] == ["one", None, "two"]
    assert "found byte 0xff, which is not UTF-8" in rows[1].problem


def test_a_long_line_costs_its_row_and_is_not_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "_LONGEST", 100)
    _, rows = streamed(tmp_path, "a.jsonl", b'{"text": "one"}\n{"text": "' + b"x" * 500 + b'"}\n{"text": "two"}\n')
    assert [(row.line, row.columns.get("text"), len(row.raw)) for row in rows] == [
        (1, "one", 0),
        (2, None, 0),
        (3, "two", 0),
    ]
    _, rows = streamed(tmp_path, "a.csv", b"text\none\n" + b"x" * 500 + b"\ntwo\n")
    assert [(row.line, row.columns.get("text")) for row in rows] == [(2, "one"), (3, None), (4, "two")]
    assert rows[1].problem.startswith("found a line of more than")


def test_a_list_is_read_whole_whatever_its_ending(tmp_path: Path) -> None:
    with pytest.warns(InputNote, match="taken as one list of objects"):
        stream, rows = streamed(tmp_path, "a.jsonl", b'[{"text": "one"}, {"text": "two"}]')
    assert (stream.form, [row.columns["text"] for row in rows]) == ("list", ["one", "two"])
    assert streamed(tmp_path, "b.json", b'[{"text": "one"}]')[1] == [Streamed(1, {"text": "one"})]


@pytest.mark.parametrize(
    ("name", "data", "complaint"),
    [
        ("a.xlsx", b"x", "found the ending '.xlsx'; expected rows as .csv, .tsv, .jsonl, .json or .parquet"),
        ("a.csv", b"", "the file holds no rows"),
        ("a.csv", b"\n\n", "the file holds no rows"),
        ("a.csv", b"a,a\n1,2\n", "line 1: found the column 'a' more than once"),
        ("a.csv", b"a,,\n1,2,3\n", "line 1: found 2 columns without a name"),
        ("a.csv", b'"a"b\n1\n', "line 1: not valid CSV"),
        ("a.parquet", b"PAR1", "cannot be read"),
    ],
)
def test_a_file_without_usable_rows_is_refused(tmp_path: Path, name: str, data: bytes, complaint: str) -> None:
    with pytest.raises(InputError) as raised:
        streamed(tmp_path, name, data)
    assert complaint in str(raised.value) and str(raised.value).startswith(str(tmp_path / name))


def test_a_pipe_or_a_folder_is_no_file_to_wait_for(tmp_path: Path) -> None:
    import os

    os.mkfifo(tmp_path / "pipe.csv")
    with pytest.raises(InputError, match="this is a pipe or a device"):
        stream_rows(tmp_path / "pipe.csv")
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(InputError, match="cannot be read"):
        stream_rows(tmp_path / "folder.csv")


def test_stdin_is_a_table_or_one_object_a_line() -> None:
    for data, form in ((b"text\nx\n", "table"), (b'{"text": "x"}\n', "lines"), (b"\xef\xbb\xbftext\nx\n", "table")):
        for pipe in (io.BytesIO(data), io.BufferedReader(io.BytesIO(data))):
            stream = stream_pipe(pipe)
            assert (stream.form, [row.columns for row in stream.rows]) == (form, [{"text": "x"}])
