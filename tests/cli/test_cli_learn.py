"""`sleicl learn`, and `evaluate` and `ask` with its recipe, with the real small model."""

import json
from importlib.metadata import version
from pathlib import Path

import pytest

from sleicl_chains.answering.recipes import Recipe, Verdict
from sleicl_chains.evaluation.words import recipe_verdict
from tests.support.command import LABELS, Desk, Done, Parrot, by_length, learning, rows, sleicl, write_rows
from tests.support.openai_server import Reply

VERDICT = {
    "finding", "best_with", "best_without", "difference", "low", "high", "p", "n", "why", "probe", "chosen"
}  # fmt: skip
TRIAL = {"name", "grimoire", "n", "accuracy", "macro_f1", "loss", "prompt_tokens", "dropped"}


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


def test_learn_tells_the_cost_first_and_the_outcome_last(desk: Desk, guide: Path, shared: Path, tmp_path: Path) -> None:
    file = tmp_path / "recipe.json"
    done = by_real_model(desk, file, shared, "--grimoire", guide)
    assert done.status == 0
    first, *_ = done.err.splitlines()
    assert first.startswith("16 rows to choose on, 0 to confirm; 2 prompts: up to 32 questions to the weak model")
    last = done.err.splitlines()[-1]
    assert last.startswith(f"Written: {file}") and last.endswith(
        f"sleicl evaluate --task {desk.card} --rows TEST --recipe {file}"
    )
    assert (
        "too few for a verdict (40 are needed)" in done.out and "desk: embedded:smollm2, 16 labelled rows" in done.out
    )
    assert "zero-shot / mean" in done.out and "simple (" in done.out


def test_its_json_has_these_keys_and_no_training_rows(desk: Desk, guide: Path, shared: Path, tmp_path: Path) -> None:
    found = by_real_model(desk, tmp_path / "recipe.json", shared, "--grimoire", guide, "--json").json()
    assert set(found) == {
        "format", "task", "weak", "options", "model", "arm", "mode", "prior", "cue", "lists_labels", "embeddings",
        "embeddings_fingerprint", "calibration", "verdict", "trials", "warnings", "rows", "layout",
        "seed", "date", "versions",
    }  # fmt: skip
    assert set(found["verdict"]) == VERDICT and all(set(trial) == TRIAL for trial in found["trials"])
    assert len(Recipe.load(tmp_path / "recipe.json").learned_texts) == 16
    assert (found["verdict"]["finding"], found["verdict"]["n"], found["rows"]) == ("no difference shown", 0, 16)
    assert {trial["name"].split(" ")[0] for trial in found["trials"]} >= {"zero-shot", "zero-shot+hidden", "simple"}
    assert not [text for text in desk.texts("train") if text in json.dumps(found)]


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


# ------------------------------------------------------------------ the verdict in words


@pytest.mark.parametrize(
    ("found", "words"),
    [
        ({"finding": "helps", "low": 0.05, "high": 0.3, "p": 0.01}, "+0.100 [+0.050, +0.300], p = 0.010."),
        ({"low": -0.1, "high": 0.3, "p": 0.3}, "+0.100 [-0.100, +0.300], p = 0.300."),
        ({"low": 0.05, "high": 0.3, "p": 0.125}, "The interval is all on one side, but the exact test does not agree;"),
        ({"low": 0.05, "high": 0.3, "p": 0.01}, "but the rows to choose on do not agree; more rows would tell."),
        (
            {"difference": 0.0, "low": 0.0, "high": 0.0, "p": 1.0},
            "Both are right on the same rows, which is not to say",
        ),
    ],
)
def test_the_verdict_says_why_nothing_is_shown(recipe: Path, found: dict[str, object], words: str) -> None:
    given = {"finding": "no difference shown", "best_with": "a", "best_without": "b", "difference": 0.1, "n": 40}
    verdict = Verdict(**(given | found))  # type: ignore[arg-type]
    (line, _) = recipe_verdict(Recipe.load(recipe).model_copy(update={"verdict": verdict}))
    assert words in line and ("interval is" in line or "Both are" in line) == (not line.endswith("0."))


def test_the_verdict_says_how_good_the_recipe_is_where_it_was_not_chosen(recipe: Path) -> None:
    """Wilson: 30 of 40 is .598 to .858."""
    for probe, words in ((0.7, "on 0.700."), (0.75, "on 0.750, which does as well or better.")):
        verdict = Verdict(finding="no difference shown", n=40, why="no grimoire", chosen=0.75, probe=probe)
        (_, line) = recipe_verdict(Recipe.load(recipe).model_copy(update={"verdict": verdict}))
        assert "On the 40 rows set aside it is right on 0.750 [0.598, 0.858], the probe," in line
        assert line.endswith(words)


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
