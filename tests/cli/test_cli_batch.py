"""`sleicl batch` and `sleicl recipe show` as a user types them."""

import json
from pathlib import Path

import pytest

from sleicl_chains.files import Home
from sleicl_chains.models.llamacpp.model import EmbeddedModel
from sleicl_chains.models.names import weak_model
from tests.support.command import Done, Parrot, sleicl
from tests.support.recipes import recipe_of

ROWS = "id,text\n1,My invoice\n2,\n3,The app crashes\n"
WEAK = "openai:weak-1"


@pytest.fixture
def recipe(parrot: Parrot, tmp_path: Path) -> Path:
    parrot.reply = lambda text: "billing" if "invoice" in text else "technical" if "app" in text else "I cannot say"
    weak = weak_model(WEAK, base_url=parrot.base_url)
    recipe_of(weak, WEAK).save(tmp_path / "recipe.json")
    return tmp_path / "recipe.json"


@pytest.fixture
def table(tmp_path: Path) -> Path:
    (tmp_path / "in.csv").write_text(ROWS, encoding="utf-8")
    return tmp_path / "in.csv"


def batch(recipe: Path, parrot: Parrot, *more: object, stdin: str = "") -> Done:
    return sleicl("batch", recipe, *more, "--weak", WEAK, *parrot.options, stdin=stdin)


def test_batch_answers_a_table_and_says_what_became_of_it(recipe: Path, parrot: Parrot, table: Path) -> None:
    out = table.with_name("out.csv")
    done = batch(recipe, parrot, table, "-o", out)
    assert out.read_text(encoding="utf-8").splitlines() == [
        "id,text,answer,probability,valid,error", "1,My invoice,billing,,true,", "3,The app crashes,technical,,true,",
    ]  # fmt: skip
    assert (done.status, done.out) == (
        0,
        f"{out}: 2 of 3 rows answered, 1 bad row in {out}.bad.jsonl. First bad row, line 3: found nothing in 'text'; "
        "expected text.\n",
    )
    again = batch(recipe, parrot, table, "-o", out, "--json").json()
    assert (again["rows"], again["answered"], again["kept"], again["bad"], len(parrot.requests)) == (3, 2, 2, 1, 2)


def test_without_a_recipe_a_grimoire_and_a_model_do(parrot: Parrot, table: Path) -> None:
    parrot.reply = lambda text: "billing" if "invoice" in text else "I cannot say"
    out, weak = table.with_name("out.jsonl"), ["--weak", WEAK, *parrot.options]
    done = sleicl("batch", "support-d090011a", table, "-o", out, *weak)
    assert done.status == 0, done.err
    first, second = (json.loads(line) for line in out.read_text(encoding="utf-8").splitlines())
    assert (first["answer"], first["valid"], first["error"]) == ("billing", True, None)
    assert (second["answer"], second["valid"]) == (None, False) and second["error"]
    assert "billing" in parrot.shown(0)[0][1], "the grimoire's own task is asked, its text in front"
    other = sleicl("batch", "spam-abd35001", table, "-o", out, *weak)
    assert (other.status, len(parrot.requests)) == (1, 2) and "--force" in other.err
    bare = sleicl("batch", "support-d090011a", table, "-o", out)
    assert bare.status == 2 and "a grimoire names no model, so give one: --weak MODEL" in bare.err


def test_batch_reads_stdin_and_writes_stdout(recipe: Path, parrot: Parrot) -> None:
    done = batch(recipe, parrot, "-", "-o", "-", "--prefix", "m_", "--concurrency", 2, stdin=ROWS)
    assert done.out.splitlines() == [
        "id,text,m_answer,m_probability,m_valid,m_error",
        "1,My invoice,billing,,true,",
        "3,The app crashes,technical,,true,",
    ]
    bad, summary = done.err.splitlines()
    assert json.loads(bad)["line"] == 3 and summary.startswith(
        "-: 2 of 3 rows answered, 1 bad row. First bad row, line 3"
    )


def test_batch_names_other_columns_and_refuses_what_clashes(recipe: Path, parrot: Parrot, tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text('{"body": "Who?", "answer": "billing"}\n', encoding="utf-8")
    clash = batch(recipe, parrot, source, "-o", tmp_path / "out.jsonl", "--text-column", "body")
    assert (clash.status, clash.err) == (
        2,
        f"sleicl: {source}: has a column 'answer' already, which would be added; --prefix model_ adds model_answer\n",
    )
    done = batch(recipe, parrot, source, "-o", tmp_path / "out.jsonl", "--text-column", "body", "--prefix", "model_")
    assert done.status == 0 and done.out.endswith("1 of 1 rows answered, 1 without a valid answer.\n")
    assert json.loads((tmp_path / "out.jsonl").read_text(encoding="utf-8")) == {
        "body": "Who?", "answer": "billing", "model_answer": None, "model_probability": None, "model_valid": False,
        "model_error": "the reply gives no answer: 'I cannot say'",
    }  # fmt: skip


def test_batch_of_a_recipe_from_elsewhere_wants_its_model_named(recipe: Path, parrot: Parrot, table: Path) -> None:
    done = sleicl("batch", recipe, table, "-o", table.with_name("out.csv"))
    assert done.status == 1 and "repeat it: --weak openai:weak-1" in done.err and parrot.requests == []


def test_batch_misused_ends_with_two(recipe: Path, parrot: Parrot, table: Path) -> None:
    for more in (["-o", "-", "--json"], ["-o", "-", "--force"], ["-o", table.with_name("out.xlsx")]):
        assert batch(recipe, parrot, table, *more).status == 2
    assert parrot.requests == []


def test_batch_opens_no_model_for_files_that_cannot_be_used(recipe: Path, table: Path) -> None:
    for rows, out in ((table.with_name("gone.csv"), "out.csv"), (table, "in.csv"), (table, "gone/out.csv")):
        done = sleicl("batch", recipe, rows, "-o", table.parent / out)  # the model is not named
        assert done.status == 1 and done.err.startswith(f"sleicl: {table.parent}"), done.err


def test_batch_with_the_embedded_model(weak: EmbeddedModel, home_with_weights: Home, table: Path) -> None:
    reader = {"kind": "prior", "prior": {"billing": 0.5, "technical": 0.5}}
    found = recipe_of(weak, "embedded:smollm2", mode="score", prior="mean", cue="Answer:", reader=reader)
    found.save(table.with_name("recipe.json"))
    table.write_text(f"{ROWS}4,{'endless ' * 9000}\n", encoding="utf-8")
    done = sleicl("batch", table.with_name("recipe.json"), table, "-o", table.with_name("out.jsonl"))
    assert done.status == 0, done.err
    rows = [json.loads(line) for line in table.with_name("out.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [row["id"] for row in rows] == ["1", "3"]
    bad = [json.loads(line) for line in table.with_name("out.jsonl.bad.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [row["line"] for row in bad] == [3, 5] and "The prompt has" in bad[1]["reason"]
    assert all(row["valid"] and 0.5 <= row["probability"] < 1 and row["error"] is None for row in rows)


def test_recipe_show_says_what_it_does_and_what_it_holds(recipe: Path) -> None:
    done = sleicl("recipe", "show", recipe)
    assert done.status == 0
    assert done.out.splitlines()[:6] == [
        "Task:      desk (topic classification), 2 labels: billing, technical",
        "Asks:      openai:weak-1",
        "Shows:     the task's description, the simple text of the grimoire desk-1, 2 examples; then the question",
        "Reads:     from the model's own words",
        "Learned:   from 2 labelled rows, seed 0",
        "Holds:     2 training rows as text",
    ]
    assert "Verdict on the grimoire: none. Nothing was tested." in done.out
    assert done.out.splitlines()[-1] == (
        f"To use it: sleicl ask --recipe {recipe} QUESTION, or a whole file: sleicl batch {recipe} IN.csv -o OUT.csv"
    )
    found = sleicl("recipe", "show", recipe, "--json").json()
    assert found["grimoire"] == {"id": "desk-1", "form": "simple", "characters": 91} and found["training_rows"] == 2
    assert "My invoice is wrong" not in json.dumps(found)
    assert sleicl("recipe", "show", recipe.with_name("gone.json")).status == 1
