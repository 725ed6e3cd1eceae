"""`sleicl learn`, and `evaluate` and `ask` with its recipe, with the real small model."""

import json
from importlib.metadata import version
from pathlib import Path

import pytest

from sleicl_chains.answering.recipes import Recipe
from sleicl_chains.evaluation.words import recipe_verdict
from sleicl_chains.tasks.rows import Example
from tests.support.command import LABELS, Desk, Done, Parrot, by_length, learning, rows, sleicl, write_rows
from tests.support.openai_server import Reply

VERDICT = {
    "finding", "pair", "grimoire", "difference", "low", "high", "p", "n", "smallest_shown", "tested", "level", "fixed",
    "broken", "accuracy", "rows_known", "why",
}  # fmt: skip


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    return Desk.at(tmp_path_factory.mktemp("desk"), train=8)


@pytest.fixture(scope="module")
def guide(desk: Desk) -> Path:
    file = desk.folder / "guide.json"
    file.write_text(json.dumps({"task": "desk", "simple": "Money is billing."}), encoding="utf-8")
    return file


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-none")


def by_real_model(desk: Desk, recipe: Path, home: Path, *more: object) -> Done:
    """Learn with the real small model; the first call of a module takes the time, others have its journal."""
    return sleicl(*learning(desk, recipe, "--weak", "embedded:smollm2", "--home", home, *more))


# ------------------------------------------------------------------ with the real model


@pytest.fixture
def recipe(desk: Desk, guide: Path, shared: Path, tmp_path: Path) -> Path:
    done = by_real_model(desk, tmp_path / "recipe.json", shared, "--grimoire", guide)
    assert done.status == 0, done.err
    return tmp_path / "recipe.json"


def test_too_few_rows_are_not_tested_and_one_prompt_is_taken(
    desk: Desk, guide: Path, shared: Path, tmp_path: Path
) -> None:
    file = tmp_path / "recipe.json"
    done = by_real_model(desk, file, shared, "--grimoire", guide)
    assert done.status == 0
    few = "16 labelled rows are too few for a verdict (40 are needed)"
    assert done.err.splitlines()[0] == (
        f"Plan: no test, since {few}; one prompt is taken by what is known of other tasks."
    )
    assert done.err.splitlines()[-1] == f"Written: {file}; it holds 6 training rows as text"
    first, second, last = done.out.splitlines()
    assert first == f"Verdict on the grimoire: none. Nothing was tested: {few}."
    assert second.startswith("The recipe: few-shot, read by score; ") and " of 10 rows that its reader was " in second
    assert last == f"Next: on rows of their own: sleicl evaluate --task {desk.card} --rows TEST --recipe {file}"


def test_its_json_has_these_keys_and_no_training_rows(desk: Desk, guide: Path, shared: Path, tmp_path: Path) -> None:
    found = by_real_model(desk, tmp_path / "recipe.json", shared, "--grimoire", guide, "--json").json()
    assert set(found) == {
        "format", "task", "weak", "options", "model", "arm", "mode", "prior", "cue", "lists_labels", "embeddings",
        "embeddings_fingerprint", "calibration", "verdict", "also_tried", "choice", "warnings", "rows", "layout",
        "seed", "date", "versions", "grimoire", "training_rows",
    }  # fmt: skip
    assert set(found["verdict"]) == VERDICT and found["also_tried"] == []
    assert set(found["choice"]) == {"arm", "mode", "expected", "ground", "accuracy", "probe", "n"}
    assert len(Recipe.load(tmp_path / "recipe.json").learned_texts) == 16
    assert (found["verdict"]["finding"], found["verdict"]["n"], found["rows"]) == ("no difference shown", 0, 16)
    assert not [text for text in desk.texts("train") if text in json.dumps(found)]
    assert sleicl("recipe", "show", tmp_path / "recipe.json", "--json").json() == found


def test_shots_and_thorough_are_passed_on(desk: Desk, guide: Path, tmp_path: Path) -> None:
    """48 rows: without examples all stay, and the grimoire's pair is against zero-shot; knn is asked about a half."""
    many = write_rows(tmp_path / "many.jsonl", rows("train", 24))
    file = tmp_path / "recipe.json"
    with Parrot(by_length) as server:
        weak = ["--weak", "openai:m", *server.options, "--no-journal", "--grimoire", guide, "--rows", many]
        done = sleicl("learn", "--task", desk.card, "--recipe", file, *weak, "--shots", 0, "--thorough")
        assert done.status == 0, done.err
        asked = len(server.requests)
    plan, calls, *_ = done.err.splitlines()
    assert plan.startswith("Plan: simple (desk-")
    assert plan.endswith(") against zero-shot, read by generate, on 48 of 48 labelled rows.")
    assert calls == "Also tried: knn. 120 questions to the weak model, up to 120 calls." and asked == 120
    found = Recipe.load(file)
    assert found.verdict.tested == "right" and found.verdict.level == 0.05 and len(found.tested) == 48
    lines = done.out.splitlines()
    assert lines[:5] == recipe_verdict(found, lines[4].removeprefix("Next: "))
    assert lines[4].startswith(f"Next: sleicl report {file} shows the pair row by row; on rows of their own: sleicl ")
    assert lines[6] == "Also tried, against zero-shot; p holds for all of them together and shows something below 0.05"
    assert lines[-1].split()[:2] == ["knn", "24"]
    shown = sleicl("recipe", "show", file).out
    assert "\n".join(lines[:4]) in shown and "\n".join(lines[5:]) in shown
    assert sleicl("report", file, "--rows", many, "--json").json()["n"] == 48
    assert "Invalid value for '--shots'" in sleicl(*learning(desk, file, *weak, "--shots", -1)).err


def test_a_recipe_is_evaluated_beside_the_other_arms(desk: Desk, recipe: Path, shared: Path) -> None:
    source = ["--task", desk.card, "--rows", desk.test, "--train", desk.train, "--home", shared]
    report = sleicl("evaluate", *source, "--recipe", recipe, "--json").json()
    assert [arm["arm"] for arm in report["arms"]] == ["majority", "probe", "zero-shot", "few-shot", "recipe"]
    assert report["weak"] == "embedded:smollm2" and report["n"] == 8
    assert report["arms"][-1]["valid"] == 1 and report["arms"][-1]["accuracy"] >= 0.5
    assert any(note.startswith("recipe: ") for note in report["notes"])
    for named in ("recipe", "majority", "recipe,majority"):
        some = sleicl("evaluate", *source, "--recipe", recipe, "--arms", named, "--json").json()
        figures = {arm["arm"]: arm["accuracy"] for arm in some["arms"]}
        assert set(figures) == {*named.split(","), "recipe"} and figures["recipe"] == report["arms"][-1]["accuracy"]


def test_a_recipe_answers_questions_without_a_card(desk: Desk, recipe: Path, shared: Path) -> None:
    question = desk.texts("test")[0]
    done = sleicl("ask", question, "--recipe", recipe, "--home", shared)
    assert done.status == 0 and done.out.strip() in LABELS
    found = sleicl("ask", "-", "--recipe", recipe, "--home", shared, "--json", stdin=question).json()
    assert found["label"] == done.out.strip() and 0 < found["probability"] < 1
    assert (found["mode"], found["deferred"]) == (Recipe.load(recipe).mode, False)


def test_an_unsure_answer_of_a_recipe_goes_to_another_model(recipe: Path, shared: Path) -> None:
    with Parrot(lambda text: Reply("technical", prompt_tokens=50, completion_tokens=2)) as server:
        to = ["--defer-below", 1, "--to", "openai:big", "--home", shared, "--json"]
        # The address is that of the recipe's own model, so the strong one's goes by the environment.
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("OPENAI_BASE_URL", server.base_url)
            found = sleicl("ask", "Where is it?", "--recipe", recipe, *to).json()
        assert len(server.requests) == 1
    assert (found["label"], found["deferred"], found["probability"]) == ("technical", True, None)
    assert (found["usage"]["strong_prompt_tokens"], found["usage"]["strong_reply_tokens"]) == (50, 2)


# ------------------------------------------------------------------ misuse


def test_without_rows_of_their_own_to_train_on_it_says_so(desk: Desk, shared: Path) -> None:
    source = ["--task", desk.card, "--rows", desk.test, "--train", desk.test, "--weak", "embedded:smollm2"]
    status, line = complaint("evaluate", *source, "--home", shared, "--arms", "majority")
    assert status == 1 and line.endswith("are among the evaluated ones; put some of them in a file of their own")


def test_a_file_that_is_no_json_is_no_recipe(desk: Desk, shared: Path) -> None:
    status, line = complaint("ask", "Hm?", "--recipe", desk.card, "--home", shared)
    assert status == 1 and line.startswith(f"sleicl: {desk.card}, line ") and "not valid JSON (" in line


def test_its_version_is_that_of_the_package() -> None:
    assert sleicl("--version").out == f"sleicl-chains {version('sleicl-chains')}\n"


def complaint(*command: object) -> tuple[int, str]:
    """Return the status and the one line of a command that fails."""
    done = sleicl(*command)
    lines = [line for line in done.err.splitlines() if line.startswith("sleicl: ")]
    assert done.out == "" and len(lines) == 1 and "Traceback" not in done.err, done.err
    return done.status, lines[0]


def test_learn_refuses_what_cannot_work_before_any_call(desk: Desk, guide: Path, tmp_path: Path) -> None:
    file, gone = tmp_path / "recipe.json", tmp_path / "gone" / "recipe.json"
    one_label = write_rows(tmp_path / "one.jsonl", [row for row in rows("train", 10) if row["answer"] == "billing"])
    with Parrot(by_length) as server:
        weak = ["--weak", "openai:m", *server.options]
        both = ["--strong", "openai:big", "--grimoire", guide]
        assert complaint(*learning(desk, file, *weak, *both)) == (
            2, "sleicl: --strong writes a grimoire and --grimoire names one; give one of the two"
        )  # fmt: skip
        assert complaint(*learning(desk, gone, *weak)) == (
            1, f"sleicl: {gone}: there is no folder {gone.parent}; make it first"
        )  # fmt: skip
        status, line = complaint(*learning(desk, tmp_path, *weak))
        assert status == 1 and str(tmp_path) in line and "folder" in line
        status, line = complaint("learn", "--task", desk.card, "--rows", one_label, "--recipe", file, *weak)
        assert status == 1 and "10 labelled rows with 1 different answers; expected at least 8 rows" in line
        many = write_rows(tmp_path / "many.jsonl", rows("train", 48))
        budget = ["--rows", many, "--strong", "openai:big", "--budget", 10]
        status, line = complaint("learn", "--task", desk.card, "--recipe", file, *weak, *budget)
        assert status == 1 and "the budget is 10" in line
        assert server.requests == []
    assert not file.exists()


def test_a_grimoire_of_all_rows_leaves_none_to_learn_from(desk: Desk, tmp_path: Path) -> None:
    ids = [Example(row["text"], row["answer"]).id for row in rows("train", 8)]
    guide = tmp_path / "guide.json"
    guide.write_text(json.dumps({"task": "desk", "simple": "Money is billing.", "examples": ids}), encoding="utf-8")
    with Parrot(by_length) as server:
        weak = ["--weak", "openai:m", *server.options, "--grimoire", guide, "--home", tmp_path]
        assert complaint(*learning(desk, tmp_path / "recipe.json", *weak)) == (
            1, "sleicl: learn: of 16 labelled rows 0 are left that the grimoires were not written from; expected 2 or "
            "more, and 20 for a verdict"
        )  # fmt: skip
        assert server.requests == []


@pytest.mark.parametrize(
    "option", [["--arm", "simple"], ["--mode", "score"], ["--prior", "mean"], ["--grimoire", "desk-1"]]
)
def test_what_a_recipe_decides_is_no_option_beside_it(recipe: Path, shared: Path, option: list[str]) -> None:
    assert complaint("ask", "Hm?", "--recipe", recipe, "--home", shared, *option) == (
        2,
        f"sleicl: {option[0]} does not go with --recipe, which says what is shown and how answers are read",
    )


def test_a_recipe_for_something_else_is_refused(desk: Desk, recipe: Path, shared: Path, tmp_path: Path) -> None:
    source = ["--rows", desk.test, "--recipe", recipe, "--home", shared]
    other = tmp_path / "other.toml"
    other.write_text(desk.card.read_text().replace('"technical"]', '"technical", "sales"]'))
    status, line = complaint("evaluate", "--task", other, *source)
    assert status == 1 and line.endswith(
        "was learned for the labels billing, technical; the card has billing, technical, sales"
    )
    with Parrot(by_length) as server:
        weak = ["--weak", "openai:m", *server.options]
        status, line = complaint("ask", "Hm?", "--recipe", recipe, "--home", shared, *weak)
        assert status == 1 and "The recipe was learned for embedded:smollm2" in line and server.requests == []
    assert complaint("ask", "Hm?", "--recipe", tmp_path / "gone.json")[0] == 1
    assert complaint("ask", "Hm?")[0] == 2
