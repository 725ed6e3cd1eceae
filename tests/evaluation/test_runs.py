"""A kept run, read again: the same table, the rows, and the texts that the rows leave out."""

import json
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from langchain_core.runnables import Runnable, RunnableLambda

from sleicl_chains.answering.recipes import Recipe, Shown, Verdict
from sleicl_chains.answers import Answer
from sleicl_chains.errors import RunError
from sleicl_chains.evaluation.evaluate import evaluate
from sleicl_chains.evaluation.report.runs import read_report, read_run
from sleicl_chains.evaluation.report.sources import SOURCES, Source, find_texts, note_sources
from sleicl_chains.files import Home
from sleicl_chains.grimoires.grimoire import Grimoire, Provenance, load_grimoire
from sleicl_chains.grimoires.store import GrimoireStore
from sleicl_chains.tasks.cards import Task
from sleicl_chains.tasks.rows import Example

SEEN = "moods-1234abcd"


def says(name: str, replies: Mapping[str, str | None], *, mode: str = "score", **about: Any) -> Runnable[str, Answer]:
    """An arm that answers each question as it is told, with a probability of .8."""

    def answer(question: str) -> Answer:
        label = replies[question]
        sure = 0.8 if label and mode != "generate" else None
        return Answer(label=label, text=label or "?", valid=label is not None, mode=mode, probability=sure, **about)

    return RunnableLambda(answer, name=name)


@pytest.fixture
def arms(examples: list[Example]) -> list[Runnable[str, Answer]]:
    """Right on rows: zero-shot 1 and 3; few-shot, which is generated, 1 to 3; simple 1, 2 and 4."""
    texts = [example.text for example in examples]
    always = dict.fromkeys(texts, "happy")
    few = dict(zip(texts, ["happy", "sad", "happy", None], strict=True))
    simple = dict(zip(texts, ["happy", "sad", "sad", "sad"], strict=True))
    return [
        says("zero-shot", always, cue="Answer:"), says("few-shot", few, mode="generate"),
        says("simple", simple, cue="Label:", grimoire=SEEN),
    ]  # fmt: skip


@pytest.fixture
def folder(arms: list[Runnable[str, Answer]], task: Task, examples: list[Example], tmp_path: Path) -> Path:
    evaluate(arms, examples, task=task, weak="toy", train_rows=4, run=tmp_path / "run")
    return tmp_path / "run"


def summary(folder: Path) -> Any:
    return json.loads((folder / "summary.json").read_text(encoding="utf-8"))


def test_a_run_is_read_as_it_was_reported(
    folder: Path, arms: list[Runnable[str, Answer]], task: Task, examples: list[Example]
) -> None:
    again = evaluate(arms, examples, task=task, weak="toy", train_rows=4, run=folder)
    assert read_report(folder) == again == read_run(folder).report


def test_what_a_run_knows(folder: Path) -> None:
    run = read_run(folder)
    assert run.labels == ("happy", "sad") and run.date.startswith("20")
    assert run.right == {
        "zero-shot": [True, False, True, False], "few-shot": [True, True, True, False],
        "simple": [True, True, False, True],
    }  # fmt: skip
    assert [arm.arm for arm in run.weak_arms] == ["few-shot", "simple", "zero-shot"]
    assert (run.grimoire("simple"), run.grimoire("zero-shot")) == (SEEN, None)
    assert (run.cues("simple"), run.cues("few-shot")) == (["Label:"], [])
    assert run.confidences("simple") == ([0.8] * 4, [True, True, False, True])
    assert run.confidences("few-shot") is None


def test_confusion_counts_no_answer_as_one(folder: Path) -> None:
    assert read_run(folder).confusion("few-shot") == {"happy": {"happy": 2}, "sad": {"sad": 1, None: 1}}


def test_a_grimoire_is_paired_with_the_best_arm_of_its_mode(folder: Path) -> None:
    """`few-shot` is the better one without a grimoire, but generated; `zero-shot` is scored as `simple` is."""
    run = read_run(folder)
    assert run.pair == ("simple", "zero-shot")
    places = [run.rows_right("simple", "zero-shot", ours=ours, theirs=not ours) for ours in (True, False)]
    assert places == [[1, 3], [2]]
    assert run.report.grimoire and run.pair == (run.report.grimoire.best_with, run.report.grimoire.best_without)


def test_where_no_two_arms_are_read_alike_the_best_of_each_kind_are_paired(
    arms: list[Runnable[str, Answer]], task: Task, examples: list[Example], tmp_path: Path
) -> None:
    evaluate(arms[1:], examples, task=task, run=tmp_path / "fewer")
    assert read_run(tmp_path / "fewer").pair == ("simple", "few-shot")


def test_a_run_of_an_earlier_version_is_read_with_defaults(folder: Path) -> None:
    """As version 0.1.0 wrote it, and with a key of a version to come."""
    found = summary(folder)
    for arm in found["arms"]:
        for name in ("calibration_error", "risk_area", "deferred", "strong_prompt_tokens_total", "failed", "unseen"):
            arm.pop(name)
        arm["to_come"] = 1
    found.pop("grimoire")
    (folder / "summary.json").write_text(json.dumps(found | {"to_come": 1}), encoding="utf-8")
    rows = [json.loads(line) for line in (folder / "rows.jsonl").read_text(encoding="utf-8").splitlines()]
    old = [{key: value for key, value in row.items() if key not in ("deferred", "cue")} for row in rows]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in old), encoding="utf-8")
    run = read_run(folder)
    assert (run.report.arms[2].accuracy, run.report.arms[2].deferred) == (0.75, 0.0)
    assert run.report.grimoire and run.report.grimoire.best_with == "simple"  # from the rows
    assert run.cues("simple") == [] and run.confidences("simple") == ([0.8] * 4, [True, True, False, True])


def test_an_open_ended_run_has_no_labels(task: Task, tmp_path: Path) -> None:
    said: Any = RunnableLambda(lambda q: Answer(label=None, text="Forty  Two.", valid=True), name="a")
    rows = [Example("6 x 7?", "forty two"), Example("7 x 7?", "49")]
    evaluate([said], rows, task=task.model_copy(update={"labels": ()}), run=tmp_path / "run")
    run = read_run(tmp_path / "run")
    assert (run.labels, run.right, run.confusion("a")) == ((), {"a": [True, False]}, {})


def test_a_text_with_a_line_separator_of_its_own_is_one_row(task: Task, tmp_path: Path) -> None:
    said: Any = RunnableLambda(lambda q: Answer(label=None, text="one\u2028two\u0085three", valid=True), name="a")
    evaluate([said], [Example("6 x 7?", "42")], task=task.model_copy(update={"labels": ()}), run=tmp_path / "run")
    assert read_run(tmp_path / "run").rows["a"][0].prediction == "one\u2028two\u0085three"


@pytest.mark.parametrize(
    "harm, complaint",
    [
        (lambda run: (run / "run.json").unlink(), "found no run.json; expected the folder of a run"),
        (lambda run: (run / "summary.json").unlink(), "has not finished; the same `sleicl evaluate` command again"),
        (lambda run: (run / "summary.json").write_text("{}"), "summary.json: found no report"),
        (lambda run: (run / "summary.json").write_text('{"arms": [1]}'), "summary.json: found no report"),
        (lambda run: (run / "summary.json").write_text('{"arms": []}'), "summary.json: found no report"),
        (lambda run: (run / "rows.jsonl").unlink(), "rows.jsonl: there is no such file"),
        (lambda run: (run / "rows.jsonl").write_text("[]\n"), "rows.jsonl, line 1: found no answered row"),
        (lambda run: (run / "summary.json").write_text('{"arms": [], "n": "few"}'), "no report (task: Field required)"),
        (lambda run: (run / "rows.jsonl").write_text(""), "found 0 rows of zero-shot; expected the 4 of the report"),
    ],
)
def test_what_is_no_finished_run_is_refused(folder: Path, harm: Any, complaint: str) -> None:
    harm(folder)
    with pytest.raises(RunError) as caught:
        read_run(folder)
    assert complaint in str(caught.value) and "\n" not in str(caught.value)


@pytest.fixture
def book(task: Task) -> Grimoire:
    return Grimoire(SEEN, task.name, "", "", task.labels, "", "Laughter is happy.", Provenance(strong_model="me"))


@pytest.fixture
def card(task: Task, tmp_path: Path) -> Path:
    (tmp_path / "card.json").write_text(task.model_dump_json(), encoding="utf-8")
    return tmp_path / "card.json"


@pytest.fixture
def table(examples: list[Example], tmp_path: Path) -> Path:
    lines = [json.dumps({"text": example.text, "answer": example.answer}) + "\n" for example in examples]
    (tmp_path / "rows.jsonl").write_text("".join(lines), encoding="utf-8")
    return tmp_path / "rows.jsonl"


@pytest.fixture
def noted(folder: Path, card: Path, table: Path, book: Grimoire, home: Home) -> Path:
    """A run whose grimoire is a file of its id beside the rows."""
    file = table.with_name(f"{SEEN}.md")
    file.write_text(book.to_markdown(), encoding="utf-8")
    note_sources(folder, rows=table, card=card, grimoires={SEEN: Source.of(book, str(file))}, home=home)
    return folder


def test_the_texts_of_a_run_are_found(noted: Path, examples: list[Example], book: Grimoire) -> None:
    found = find_texts(noted, read_run(noted))
    assert found.questions == {example.id: example.text for example in examples}
    assert (found.grimoires[SEEN].simple, found.missing) == (book.simple, [])
    assert stat.S_IMODE((noted / SOURCES).stat().st_mode) == 0o600


def test_a_grimoire_of_the_library_is_found_by_its_id(
    folder: Path, card: Path, table: Path, book: Grimoire, home: Home
) -> None:
    home.grimoires.mkdir(parents=True)
    (home.grimoires / f"{SEEN}.md").write_text(book.to_markdown(), encoding="utf-8")
    kept = GrimoireStore(home).get(SEEN)
    note_sources(folder, rows=table, card=card, grimoires={SEEN: Source.of(kept, SEEN)}, home=home)
    assert find_texts(folder, read_run(folder)).grimoires == {SEEN: kept}
    other = find_texts(folder, read_run(folder), Home(home.root / "other"))
    assert other.grimoires == {} and other.missing[0].startswith(f"The grimoire {SEEN} could not be found: ")


def test_the_grimoire_of_a_recipe_is_found_in_it(
    folder: Path, card: Path, table: Path, task: Task, home: Home, tmp_path: Path
) -> None:
    verdict = Verdict(finding="no difference shown")
    recipe = Recipe(
        task=task, weak="toy", model={}, arm="simple", mode="score", prior="none", verdict=verdict, rows=4,
        seed=0, grimoire=Shown.of("Laughter is happy.", id=SEEN),
    )  # fmt: skip
    recipe.save(tmp_path / "recipe.json")
    shown = recipe.shown_grimoire()
    assert shown
    source = Source.of_recipe(shown, tmp_path / "recipe.json")
    note_sources(folder, rows=table, card=card, grimoires={SEEN: source}, home=home)
    assert find_texts(folder, read_run(folder)).grimoires[SEEN].simple == "Laughter is happy."
    (tmp_path / "recipe.json").unlink()
    assert "recipe.json: there is no such file" in find_texts(folder, read_run(folder)).missing[0]


def test_a_run_without_sources_says_so(folder: Path) -> None:
    found = find_texts(folder, read_run(folder))
    assert (found.questions, found.grimoires) == ({}, {})
    assert found.missing == ["The run does not say where its texts are: it has no sources.json that can be read."]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"rows": 1, "card": "", "home": "", "grimoires": {}}'])
def test_sources_that_are_none_are_as_good_as_missing(noted: Path, text: str) -> None:
    (noted / SOURCES).write_text(text, encoding="utf-8")
    assert len(find_texts(noted, read_run(noted)).missing) == 1


@pytest.mark.parametrize("which", ["card", "rows", "file", "recipe", "store"])
def test_a_strangers_run_puts_no_word_of_another_file_on_the_page(noted: Path, which: str, tmp_path: Path) -> None:
    """Its folder says which files are read, and complaints quote what is wrong in them; only known hashes get in."""
    secret = tmp_path / "secret.json"
    secret.write_text('{"description": 1, "task": "hunter2", "hunter2": "hunter2"}', encoding="utf-8")
    (tmp_path / "grimoires").mkdir()
    (tmp_path / "grimoires" / "hunter2.md").write_text("---\nhunter2: 1\n---\n", encoding="utf-8")
    found = json.loads((noted / SOURCES).read_text(encoding="utf-8"))
    if which in ("card", "rows"):
        found[which] = str(secret)
    else:
        place = {"store": "hunter3"}.get(which, str(secret))
        found |= {"home": str(tmp_path), "grimoires": {SEEN: {"kind": which, "place": place, "sha256": "0"}}}
    (noted / SOURCES).write_text(json.dumps(found), encoding="utf-8")
    texts = find_texts(noted, read_run(noted))
    assert texts.missing and "hunter2" not in repr(texts)


def test_texts_that_have_moved_or_changed_are_missing_and_said_to_be(noted: Path, table: Path, card: Path) -> None:
    run = read_run(noted)
    table.rename(table.with_name("moved.jsonl"))
    assert "rows.jsonl: there is no such file" in find_texts(noted, run).missing[0]
    table.write_text('{"text": "Rain.", "answer": "sad"}\n', encoding="utf-8")
    found = find_texts(noted, run)
    assert found.questions == {} and found.missing[0].endswith("has changed and lacks 4 of the 4 rows.")
    card.unlink()
    assert "card.json: there is no such file" in find_texts(noted, run).missing[0]


def test_a_corrected_grimoire_is_not_taken_for_the_one_that_was_shown(noted: Path, table: Path) -> None:
    file = table.with_name(f"{SEEN}.md")
    file.write_text(file.read_text(encoding="utf-8").replace("Laughter", "A smile"), encoding="utf-8")
    assert load_grimoire(file).id == SEEN
    found = find_texts(noted, read_run(noted))
    assert found.grimoires == {} and found.missing[0].endswith("has other texts than the run was shown.")
