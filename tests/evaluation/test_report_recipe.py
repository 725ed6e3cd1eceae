"""`sleicl report` of a recipe: its test as a page, row by row, and the texts where the rows are named."""

import json
import stat
from pathlib import Path

import pytest

from sleicl_chains.answering.recipes import TestedRow as Row  # pytest would collect the name
from sleicl_chains.errors import InputError, RunError
from sleicl_chains.evaluation.report.recipes import run_of
from sleicl_chains.evaluation.words import recipe_verdict
from tests.support.command import sleicl
from tests.support.recipes import ROWS, after_a_test

FILE = Path("recipe.json")


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    after_a_test().save(tmp_path / "desk.json")
    return tmp_path / "desk.json"


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps({"text": one.text, "answer": one.answer}) + "\n" for one in ROWS), "utf-8")
    return file


def test_its_run_compares_the_pair_that_was_named() -> None:
    """zero-shot is better than the pair's prompt without a grimoire, and is not taken for it."""
    run = run_of(after_a_test(), FILE)
    assert run.pair == ("simple+few-shot", "few-shot") and run.report.n == 4 and run.report.train_rows == 8
    assert {arm.arm: (arm.accuracy, arm.valid, arm.difference) for arm in run.report.arms} == {
        "few-shot": (0.5, 1.0, None), "simple+few-shot": (0.5, 1.0, None), "zero-shot": (0.75, 0.75, None)
    }  # fmt: skip
    places = [run.rows_right(*run.pair, ours=a, theirs=b) for a in (True, False) for b in (False, True)]
    assert places == [[0], [1], [3], [2]]
    assert [run.grimoire(arm) for arm in run.rows] == [None, "desk-1", None]
    assert list(run.verdict) == recipe_verdict(after_a_test())


def test_the_page_shows_the_pair_row_by_row(recipe: Path, rows: Path) -> None:
    done = sleicl("report", recipe, "--rows", rows)
    page = recipe.with_name("desk.report.html")
    assert (done.status, done.out, done.err) == (0, f"{page}\n", "")
    assert stat.S_IMODE(page.stat().st_mode) == 0o600
    text = page.read_text("utf-8")
    assert "simple+few-shot fixes <strong>1</strong> and breaks <strong>1</strong> of the 4 rows" in text
    parts = ("Fixed: 1", "The bill is &lt;wrong&gt;", "Broken: 1", "Refund me", "Unchanged: 2", "Right under both: 1",
             "It crashes", "Wrong under both: 1", "No sound")  # fmt: skip
    places = [text.index(part) for part in parts]
    assert places == sorted(places)
    assert text.count("<details>") == 2 and "<details open" not in text
    assert "Verdict on the grimoire: no difference shown. simple+few-shot (desk-1) against few-shot" in text
    assert "Next:" not in text and "Differences are against few-shot; p holds for all of them together and" in text
    assert "each row is answered by a reader that was fitted on others" in text and "There are no arms" not in text


def test_without_its_rows_the_page_goes_without_texts_and_says_how_to_get_them(recipe: Path, rows: Path) -> None:
    done = sleicl("report", recipe)
    how = "A recipe does not hold the texts of its test: --rows FILE, with the labelled rows, shows them."
    assert (done.status, done.err) == (0, f"{how}\n")
    text = recipe.with_name("desk.report.html").read_text("utf-8")
    assert how in text and f"row {ROWS[0].id}" in text and ROWS[1].text not in text
    some = rows.read_text("utf-8").splitlines()[:3]
    rows.write_text("\n".join(some), "utf-8")
    lacks = f"{rows} lacks 1 of the 4 rows of the test; name the rows that were learned from."
    assert sleicl("report", recipe, "--rows", rows).err == f"The questions could not be found: {lacks}\n"
    gone = sleicl("report", recipe, "--rows", rows.with_name("gone.jsonl"))
    assert gone.status == 1 and "gone.jsonl: there is no such file" in gone.err


def test_a_page_to_publish_has_no_text_and_no_row(recipe: Path, rows: Path, tmp_path: Path) -> None:
    assert sleicl("report", recipe, "--no-text", "--rows", rows).out == f"{tmp_path / 'desk.report-no-text.html'}\n"
    text = (tmp_path / "desk.report-no-text.html").read_text("utf-8")
    assert "Verdict on the grimoire" in text and not [row for row in ROWS if row.id in text or row.text in text]


def test_its_json_is_a_report_with_the_verdict(recipe: Path, rows: Path, tmp_path: Path) -> None:
    found = sleicl("report", recipe, "--rows", rows, "--out", tmp_path / "page.html", "--json").json()
    assert (found["page"], found["missing"], found["n"]) == (str(tmp_path / "page.html"), [], 4)
    assert found["verdict"] == recipe_verdict(after_a_test())
    assert found["grimoire"]["best_with"] == "simple+few-shot" and found["grimoire"]["p"] == 1.0


def test_a_recipe_without_a_test_says_to_learn_again(tmp_path: Path) -> None:
    with pytest.raises(
        RunError, match=r"^recipe\.json: found no rows of a test in the recipe; .*learn` again, with 40"
    ):
        run_of(after_a_test(tested=[]), FILE)
    after_a_test(tested=[]).save(tmp_path / "old.json")
    done = sleicl("report", tmp_path / "old.json")
    assert done.status == 1 and done.err.count("\n") == 1 and not (tmp_path / "old.report.html").exists()


def test_rows_that_were_tampered_with_are_refused() -> None:
    first, *others = after_a_test().tested
    lacking = Row(row=first.row, gold=first.gold, said={"few-shot": ("billing", 0.5)})
    for tested in ([first, lacking], [lacking], [lacking.model_copy(update={"said": {}}), *others]):
        with pytest.raises(InputError, match="not all answered by the same prompts"):
            run_of(after_a_test(tested=tested), FILE)


def test_where_no_grimoire_was_given_nothing_is_compared() -> None:
    untested = {"pair": None, "difference": None, "low": None, "high": None, "p": None, "why": "no grimoire was given"}
    run = run_of(after_a_test(verdict=untested, also_tried=[]), FILE)
    assert run.pair is None and run.tried is None
    assert run.verdict[0] == "Verdict on the grimoire: none. Nothing was tested: no grimoire was given."


def test_rows_go_with_a_recipe_alone(tmp_path: Path, rows: Path) -> None:
    done = sleicl("report", tmp_path, "--rows", rows)
    assert done.status == 2 and "--rows goes with the file of a recipe" in done.err
