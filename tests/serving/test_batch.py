"""Files answered row by row: nothing lost, doubled or overwritten, whatever the rows are and wherever it stops."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from langchain_core.runnables import RunnableLambda

from sleicl_chains.answers import Answer
from sleicl_chains.errors import InputError, OptionError, ServerDown
from sleicl_chains.serving import outputs
from sleicl_chains.serving.asking import Asking, Outcome
from sleicl_chains.serving.batch import answer_file, answer_pipe
from sleicl_chains.tasks.parquet import parquet_rows
from tests.support.batch_stub import stub

ROOT = Path(__file__).parent.parent.parent
TABLE = (
    'id,text\n1,four\n2,"a ""q"", and\na second line"\n3,\n4,endless story\n'
    '5,x,y\n6,cut it\n7,"never closed\n8,last\r\n'
)
ANSWERED = (
    "id,text,answer,probability,valid,error\r\n"
    "1,four,even,0.2,true,\r\n"
    '2,"a ""q"", and\na second line",even,0.04,true,\r\n'
    "6,cut it,,,false,the reply was cut\r\n"
    "8,last,even,0.2,true,\r\n"
)
BAD = [
    {"line": 5, "reason": "found nothing in 'text'; expected text", "row": {"id": "3", "text": ""}},
    {"line": 6, "reason": "the prompt is too long", "row": {"id": "4", "text": "endless story"}},
    {"line": 7, "reason": "found 3 cells; expected the header's 2. Quote cells that hold commas", "row": "5,x,y\n"},
    {"line": 9, "reason": "not valid CSV (unexpected end of data)", "row": '7,"never closed\n'},
]
LINES = (
    '{"text": "four", "n": 1, "more": [true]}\n\n{"text": "b", "text": "c"}\nno json\n[1]\n{"n": 2}\n'
    '{"text": "\\ud800"}\n'
    '{"text": "five!", "n": null}\n'
)


def told(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return written(tmp_path / "in.csv", TABLE)


def written(file: Path, text: str) -> Path:
    file.write_text(text, encoding="utf-8", newline="")
    return file


def asking(**more: Any) -> Asking:
    return Asking(**{"chain": stub(), **more})


def complaint(*arguments: Any, **more: Any) -> str:
    with pytest.raises(InputError) as raised:
        answer_file(*arguments, **more)
    return str(raised.value)


# ------------------------------------------------------------------ what is written


def test_a_table_keeps_its_columns_and_gets_four_and_bad_rows_go_to_a_file_of_their_own(
    table: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.csv"
    found = answer_file(asking(), table, out)
    assert out.read_bytes().decode() == ANSWERED
    assert told(tmp_path / "out.csv.bad.jsonl") == BAD
    assert (found.rows, found.answered, found.kept, found.invalid, found.bad) == (8, 4, 0, 1, 4)
    assert found.first_bad == f"line 5: {BAD[0]['reason']}"


def test_rows_of_json_keep_their_values_and_their_order(tmp_path: Path) -> None:
    source, out = written(tmp_path / "in.jsonl", LINES), tmp_path / "out.jsonl"
    answer_file(asking(), source, out, bad=tmp_path / "bad.jsonl")
    assert out.read_text(encoding="utf-8").splitlines() == [
        '{"text": "four", "n": 1, "more": [true], "answer": "even", "probability": 0.2, "valid": true, "error": null}',
        '{"text": "five!", "n": null, "answer": "odd", "probability": 0.166667, "valid": true, "error": null}',
    ]
    reasons = [(row["line"], row["reason"].partition(";")[0]) for row in told(tmp_path / "bad.jsonl")]
    assert reasons == [
        (3, "not valid JSON (the key 'text' stands twice)"),
        (4, "not valid JSON (Expecting value, column 1)"),
        (5, "found a list"),
        (6, "the column 'text' is missing"),
        (7, "the row, character 11: found half of a surrogate pair, 0xd800"),
    ]


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl", "parquet"])
@pytest.mark.parametrize("concurrency", [1, 3])
def test_every_form_is_written_from_every_form(ending: str, concurrency: int, tmp_path: Path) -> None:
    first = written(tmp_path / "a.csv", "id;text\n1;one\n2;three\n")
    for source in (first, tmp_path / "b.parquet", tmp_path / "c.jsonl", tmp_path / "d.tsv"):
        if source != first:
            answer_file(asking(prefix=f"{source.stem}_"), first, source)
        out = tmp_path / f"out-{source.stem}.{ending}"
        assert answer_file(asking(concurrency=concurrency), source, out).answered == 2
        assert (tmp_path / f"{out.name}.batch.json").exists() and not (tmp_path / f"{out.name}.rows.jsonl").exists()
        rows = read(out)
        assert [[row[name] for name in ("id", "text", "answer")] for row in rows] == [
            ["1", "one", "odd"],
            ["2", "three", "odd"],
        ]
        assert list(rows[0])[-4:] == ["answer", "probability", "valid", "error"]


def read(file: Path) -> list[dict[str, Any]]:
    if file.suffix == ".parquet":
        return list(parquet_rows(file))
    if file.suffix == ".jsonl":
        return told(file)
    import csv

    sign = csv.Sniffer().sniff(file.read_text(encoding="utf-8").splitlines()[0], delimiters=",;\t").delimiter
    with file.open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines, delimiter=sign))


def test_a_table_of_semicolons_stays_one_and_a_parquet_file_keeps_its_types(tmp_path: Path) -> None:
    import datetime
    import decimal

    import pyarrow
    import pyarrow.parquet

    answer_file(asking(), written(tmp_path / "in.csv", "a;text\n1,5;hm\n"), tmp_path / "out.csv")
    assert (tmp_path / "out.csv").read_text(encoding="utf-8").splitlines()[1] == "1,5;hm;even;0.333333;true;"
    kept = {"day": datetime.date(2026, 1, 2), "price": decimal.Decimal("1.50"), "raw": b"\0\1", "tags": ["a"]}
    table = pyarrow.Table.from_pylist([{"text": "one", **kept}, {"text": " ", **kept}, {"text": "two", **kept}])
    pyarrow.parquet.write_table(table, tmp_path / "in.parquet")
    answer_file(asking(), tmp_path / "in.parquet", tmp_path / "out.parquet")
    found = pyarrow.parquet.read_table(tmp_path / "out.parquet")
    assert found.schema.types[:5] == table.schema.types
    assert [{name: row[name] for name in kept} for row in found.to_pylist()] == [kept, kept]
    assert [row["text"] for row in found.to_pylist()] == ["one", "two"]
    assert [row["line"] for row in told(tmp_path / "out.parquet.bad.jsonl")] == [2]
    again = answer_file(Asking(broken()), tmp_path / "in.parquet", tmp_path / "out.parquet")
    assert (again.kept, again.answered, again.bad) == (2, 2, 1)


def test_a_pipe_goes_into_a_pipe() -> None:
    out, bad = io.BytesIO(), io.BytesIO()
    found = answer_pipe(asking(), io.BytesIO(b"text;n\nfour;1\n;2\n"), out, bad)
    assert out.getvalue() == b"text;n;answer;probability;valid;error\r\nfour;1;even;0.2;true;\r\n"
    assert json.loads(bad.getvalue())["line"] == 3 and (found.rows, found.answered, found.bad) == (2, 1, 1)
    out = io.BytesIO()
    answer_pipe(asking(), io.BytesIO(b'{"text": "four"}\n'), out, bad)
    assert json.loads(out.getvalue())["answer"] == "even"
    with pytest.raises(InputError, match="stdin: found one list of objects; write one object a line"):
        answer_pipe(asking(), io.BytesIO(b'[\n{"text": "four"}]'), out, bad)
    with pytest.raises(InputError, match="stdin: found Parquet, which is read from its end"):
        answer_pipe(asking(), io.BytesIO(b"PAR1...."), out, bad)


def test_progress_knows_how_many_rows_there_are(table: Path, tmp_path: Path) -> None:
    heard: list[tuple[str, int, int]] = []
    answer_file(asking(progress=lambda *told: heard.append(told)), table, tmp_path / "out.csv")
    assert [(what, total) for what, _, total in heard] == [("answers", 8)] * 5
    assert [done for _, done, _ in heard] == sorted(done for _, done, _ in heard) and heard[-1][1] == 8


# ------------------------------------------------------------------ what is refused


def test_what_cannot_work_is_refused_before_the_first_question(table: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    before = Asking(broken())
    assert complaint(before, table, table).endswith("the rows are read from this file; name another one to write")
    assert complaint(before, table, out, bad=table).startswith(f"{table}: the rows are read from this file")
    assert complaint(before, tmp_path / "no.csv", out).startswith(f"{tmp_path / 'no.csv'}: there is no such file")
    assert complaint(before, table, tmp_path / "out.xlsx").startswith(
        f"{tmp_path / 'out.xlsx'}: found the ending '.xlsx'"
    )
    assert complaint(before, table, tmp_path / "gone" / "out.csv").endswith("make it first")
    wrong = Asking(broken(), text_column="body")
    assert (
        complaint(wrong, table, out) == f"{table}: the column 'body' is missing; found id, text. Name it: --text-column"
    )
    clash = written(tmp_path / "clash.csv", "text,answer\na,b\n")
    with pytest.raises(OptionError, match="has a column 'answer' already, which would be added; --prefix model_ adds"):
        answer_file(before, clash, out)
    assert complaint(before, written(tmp_path / "empty.csv", "text\n"), tmp_path / "e.csv").startswith(
        "the input holds no"
    )
    blank = written(tmp_path / "blank.csv", "text,n\n,1\n,2\n")
    assert complaint(before, blank, tmp_path / "b.csv") == (
        "none of 2 rows could be asked; the first bad one is line 2: found nothing in 'text'; expected text"
    )
    assert not out.exists()


def test_where_nothing_was_answered_nothing_is_left_to_be_in_the_way(table: Path, tmp_path: Path) -> None:
    with pytest.raises(ServerDown):
        answer_file(Asking(broken()), table, tmp_path / "out.csv")
    assert [file.name for file in tmp_path.iterdir()] == ["in.csv"]


def test_files_beside_the_output_that_were_changed_are_told(table: Path, tmp_path: Path) -> None:
    out, bad, card = (tmp_path / f"out.csv{more}" for more in ("", ".bad.jsonl", ".batch.json"))
    answer_file(asking(), table, out)
    for file, text in ((bad, "[]\n"), (bad, "no json\n"), (bad, "{}\n"), (card, "[]"), (card, "{")):
        before = file.read_text(encoding="utf-8")
        file.write_text(text, encoding="utf-8")
        with pytest.raises(InputError) as raised:
            answer_file(asking(), table, out)
        assert str(file) in str(raised.value) or "it was begun with another recipe" in str(raised.value)
        assert out.read_bytes().decode() == ANSWERED
        file.write_text(before, encoding="utf-8")


def test_a_device_is_never_taken_away(table: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert "is no regular file" in complaint(asking(), table, tmp_path / "out.csv", bad=tmp_path / "pipe", force=True)
    assert (tmp_path / "pipe").exists()
    assert "cannot go to one file" in complaint(asking(), table, tmp_path / "o.csv", bad=tmp_path / "o.csv")


def broken() -> RunnableLambda[str, Answer]:
    def fail(question: str) -> Answer:
        raise ServerDown("no server answers")

    return RunnableLambda(fail).with_config(metadata={"settings": "stub"})  # type: ignore[return-value]


def test_a_file_of_somebody_else_is_never_overwritten_unless_told_to(table: Path, tmp_path: Path) -> None:
    out = written(tmp_path / "out.csv", "mine\n")
    assert complaint(asking(), table, out).endswith("it was not begun by this command; --force replaces it")
    assert out.read_text(encoding="utf-8") == "mine\n"
    answer_file(asking(), table, out, force=True)
    assert out.read_bytes().decode() == ANSWERED
    other = asking(chain=stub().with_config(metadata={"settings": "other"}))
    assert "it was begun with another recipe, model or option" in complaint(other, table, out)
    assert "another recipe, model or option" in complaint(asking(text_column="id"), table, out)
    for text, why in (
        (ANSWERED.replace("four", "five"), "its row 1 is not the one of line 2 of the input"),
        (ANSWERED + "9,new,odd,0.1,true,\r\n", "it has more rows than the input"),
        ("text,id\r\n", "it has other columns"),
    ):
        written(out, text)
        assert complaint(asking(), table, out) == f"{out}: is there already, and {why}; --force replaces it"
        assert out.read_bytes().decode() == text


def test_a_file_for_bad_rows_that_is_somebody_elses_stays(table: Path, tmp_path: Path) -> None:
    out, mine = tmp_path / "out.csv", written(tmp_path / "mine.txt", "no line end")
    answer_file(asking(), table, out)
    assert "begun with another recipe, model or option" in complaint(asking(), table, out, bad=mine)
    out.unlink()
    assert complaint(asking(), table, out, bad=mine).startswith(f"{mine}: is there already")
    assert mine.read_text(encoding="utf-8") == "no line end"


def test_where_the_output_was_taken_away_another_recipe_begins_anew(tmp_path: Path) -> None:
    source, out = written(tmp_path / "in.csv", "text\none\n"), tmp_path / "out.csv"
    assert answer_file(asking(), source, out).bad_file == ""
    out.unlink()
    assert answer_file(asking(text_column="text", prefix="m_"), source, out).kept == 0
    assert out.read_text(encoding="utf-8").startswith("text,m_answer")


def test_a_finished_parquet_file_is_not_taken_for_answers_to_other_rows(tmp_path: Path) -> None:
    source, out = written(tmp_path / "in.jsonl", '{"text": "one"}\n'), tmp_path / "out.parquet"
    answer_file(asking(), source, out)
    assert answer_file(Asking(broken()), source, out).kept == 1
    for other in (written(source, '{"text": "two"}\n'), io.BytesIO(b'{"text": "two"}\n')):
        assert complaint(asking(), other, out) == (
            f"{out}: is there already, and it was made of other rows; --force replaces it"
        )


def test_a_second_process_at_the_same_output_is_refused(table: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.csv"

    def again(question: str) -> Answer:
        assert "another process is writing it" in complaint(asking(), table, out)
        return Answer(label="even", text="even", valid=True)

    answer_file(Asking(RunnableLambda(again)), table, out)
    assert sorted(file.name for file in tmp_path.iterdir() if file.name.startswith(".")) == []


def test_rows_of_json_that_a_table_cannot_hold_are_bad_ones(tmp_path: Path) -> None:
    rows = [{"text": "one", "n": {"a": None}}, {"text": "two", "z": 1}, {"text": "s" * 131_073}, {"text": "three"}]
    source = written(tmp_path / "in.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    answer_file(asking(), source, tmp_path / "out.csv")
    assert (tmp_path / "out.csv").read_text(encoding="utf-8").splitlines()[1:] == [
        'one,"{""a"": null}",odd,0.25,true,', "three,,odd,0.166667,true,",
    ]  # fmt: skip
    assert [row["reason"].partition(";")[0] for row in told(tmp_path / "out.csv.bad.jsonl")] == [
        "has a column 'z', which the first row lacks", "has more than 131,072 characters in a cell",
    ]  # fmt: skip


# ------------------------------------------------------------------ what survives


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_cut_in_the_middle_of_anything_it_ends_the_same(ending: str, table: Path, tmp_path: Path) -> None:
    out = tmp_path / f"out.{ending}"
    answer_file(asking(), table, out)
    whole, bad = out.read_bytes(), (tmp_path / f"{out.name}.bad.jsonl").read_bytes()
    for cut in (*range(0, len(whole), 7), len(whole) - 1, len(whole)):
        out.write_bytes(whole[:cut])
        found = answer_file(asking(), table, out)
        assert out.read_bytes() == whole and (tmp_path / f"{out.name}.bad.jsonl").read_bytes() == bad, cut
        assert (found.answered, found.invalid, found.bad) == (4, 1, 4)
    assert answer_file(Asking(broken()), table, out).kept == 4  # nothing is asked again


def test_a_failing_model_keeps_what_was_answered_and_the_next_call_goes_on(table: Path, tmp_path: Path) -> None:
    out, asked = tmp_path / "out.csv", []

    def fails_at(word: str) -> Callable[[str], Answer]:
        def answer(question: str) -> Answer:
            asked.append(question)
            if question.startswith(word):
                raise ServerDown("no server answers")
            found: Answer = stub().invoke(question)
            return found

        return answer

    for word, done in (("cut", 2), ("last", 3), ("none", 4)):
        chain = RunnableLambda(fails_at(word)).with_config(metadata={"settings": "stub"})
        if word != "none":
            with pytest.raises(ServerDown):
                answer_file(Asking(chain), table, out)
            assert out.read_bytes().decode() == ANSWERED[: len(out.read_bytes())]
        else:
            assert answer_file(Asking(chain), table, out).kept == done - 1
    assert out.read_bytes().decode() == ANSWERED and told(tmp_path / "out.csv.bad.jsonl") == BAD
    assert [question[:4] for question in asked] == ["four", 'a "q', "endl", "cut ", "cut ", "last", "last"]


def test_an_input_that_grew_is_answered_further(tmp_path: Path) -> None:
    source, out = written(tmp_path / "in.csv", "text\none\n"), tmp_path / "out.csv"
    answer_file(asking(), source, out)
    written(source, "text\none\nthree\n")
    assert (answer_file(asking(), source, out).kept, len(out.read_text(encoding="utf-8").splitlines())) == (1, 3)


def many(folder: Path, count: int) -> Path:
    """Write rows of which some are bad, some hold line ends, and some get no valid answer."""
    kinds = ("plain {n}", '"two\nlines {n}"', '"say ""{n}"""', "", "cut {n}", "endless {n}", "too,many {n}")
    lines = [f"{n},{kinds[n % len(kinds)].format(n=n)}\n" for n in range(count)]
    return written(folder / "many.csv", "id,text\n" + "".join(lines))


def killed(source: Path, out: Path, times: int, each: int) -> None:
    """Start answering and kill it so often, each time once the output has grown by so many bytes; then let it end."""
    command = [sys.executable, "-m", "tests.support.batch_stub", str(source), str(out)]
    for turn in range(times + 1):
        before = out.stat().st_size if out.exists() else 0
        process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)})
        try:
            end = time.monotonic() + 120
            while turn < times and time.monotonic() < end and process.poll() is None:
                if out.exists() and out.stat().st_size > before + each:
                    process.send_signal(signal.SIGKILL)
                    break
                time.sleep(0.001)
            assert process.wait(120) == (-signal.SIGKILL if turn < times else 0), f"turn {turn}"
        finally:
            process.kill()
            process.wait()


def check_killed(folder: Path, count: int, times: int, each: int) -> None:
    source = many(folder, count)
    whole = answer_file(asking(), source, folder / "whole.csv")
    killed(source, folder / "out.csv", times, each)
    for name in ("{}.csv", "{}.csv.bad.jsonl"):
        assert (folder / name.format("out")).read_bytes() == (folder / name.format("whole")).read_bytes()
    assert whole.rows == count and whole.answered + whole.bad == count and whole.bad > count / 3
    card = json.loads((folder / "out.csv.batch.json").read_text(encoding="utf-8"))["outcome"]
    assert (card["rows"], card["answered"], card["bad"]) == (count, whole.answered, whole.bad) and card["kept"] > 0


def test_killed_twice_over_two_hundred_rows_nothing_is_lost_or_doubled(tmp_path: Path) -> None:
    check_killed(tmp_path, 200, times=2, each=1000)


@pytest.mark.slow
def test_killed_ten_times_over_two_thousand_rows_nothing_is_lost_or_doubled(tmp_path: Path) -> None:
    check_killed(tmp_path, 2000, times=10, each=3000)


def test_bad_rows_are_always_written_before_later_good_ones() -> None:
    class Heard(io.BytesIO):
        def __init__(self, name: str, log: list[str]) -> None:
            super().__init__()
            self.name, self.log = name, log

        def write(self, data: Any) -> int:
            self.log.append(self.name)
            return super().write(data)

    log: list[str] = []
    writer = outputs.Writer(Heard("rows", log), Heard("bad", log))
    writer.row("1\n")
    writer.bad("2\n")
    writer.row("3\n")
    assert log == []
    writer.flush()
    assert log == ["bad", "rows"]


def test_an_outcome_is_what_json_says() -> None:
    assert set(Outcome().to_dict()) == {
        "rows", "answered", "kept", "invalid", "bad", "first_bad", "output", "bad_file", "seconds"
    }  # fmt: skip
