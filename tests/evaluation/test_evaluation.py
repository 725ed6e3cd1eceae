"""Tables: every output counts, rows are on disk, a stopped run goes on."""

import json
from pathlib import Path
from typing import Any

import pytest
from langchain_core.runnables import Runnable, RunnableLambda

from sleicl_chains.answers import Answer
from sleicl_chains.errors import InputError, ModelError, PromptTooLong, RejectedReply, RunError
from sleicl_chains.evaluation.baselines import majority
from sleicl_chains.evaluation.evaluate import evaluate, run_name
from sleicl_chains.evaluation.summary import Report
from sleicl_chains.tasks.cards import Task
from sleicl_chains.tasks.rows import Example

SAID = {
    "I laughed all day.": "happy",
    "Nobody came to the party.": "happy",
    "What a sunny morning!": "happy",
    "My dog is ill.": None,
}


def always(label: str | None, **about: Any) -> Answer:
    return Answer(label=label, text=label or "dunno", valid=label is not None, seconds=0.5, **about)


def scripted(name: str, asked: list[str] | None = None) -> Runnable[str, Answer]:
    """A solver that is right on rows 1 and 3, wrong on 2, and unparsable on 4."""

    def answer(question: str) -> Answer:
        if asked is not None:
            asked.append(question)
        return always(SAID[question], mode="generate", usage={"prompt_tokens": 7})

    return RunnableLambda(answer, name=name)


def zero(question: str) -> Answer:
    return always("sad", mode="score", coverage=0.5)


def test_the_whole_table(task: Task, examples: list[Example]) -> None:
    """Of four rows: majority 2, zero-shot 2, simple 2 right, 1 wrong, 1 unparsable.

    Wilson for 2 of 4: (.5 + .4802) / 1.9604 = .5 -+ .349996. F1 of `simple`: happy 2*2/(2+3) = .8,
    sad 0/(2+0) = 0; mean .4. F1 of always sad: sad 2*2/(2+4) = 2/3, happy 0; mean 1/3.
    """
    arms = {"majority": majority(task, examples), "zero-shot": RunnableLambda(zero), "simple": scripted("simple")}
    report = evaluate(arms, examples, task=task, weak="toy", train_rows=4)
    found = report.to_dict()
    rows = {row["arm"]: row for row in found.pop("arms")}
    about = {"task": "moods", "n": 4, "weak": "toy", "train_rows": 4, "majority": 0.5, "run": "", "notes": []}
    assert found == about | {"grimoire": {
        "best_with": "simple", "best_without": "zero-shot", "difference": 0.0, "low": -1.0, "high": 1.0, "p": 1.0,
    }}  # fmt: skip
    simple = {key: pytest.approx(value, abs=1e-5) if isinstance(value, float) else value for key, value in {
        "arm": "simple", "mode": "generate", "prior": "none", "accuracy": 0.5, "low": 0.15004, "high": 0.84996,
        "macro_f1": 0.4, "valid": 0.75, "coverage": None, "difference": 0.0, "difference_low": -1.0,
        "difference_high": 1.0, "prompt_tokens_total": 28, "seconds_total": 2.0, "failed": 0, "unseen": 0.0,
        "calibration_error": None, "risk_area": None, "deferred": 0.0, "strong_prompt_tokens_total": 0,
        "strong_reply_tokens_total": 0, "grimoire": None, "seen": 0,
    }.items()}  # fmt: skip
    assert rows["simple"] == simple
    assert found == json.loads(json.dumps(found))
    assert (rows["zero-shot"]["difference"], rows["zero-shot"]["coverage"]) == (None, 0.5)
    assert rows["zero-shot"]["macro_f1"] == pytest.approx(1 / 3)
    assert rows["majority"]["difference"] == 0.0


def test_without_zero_shot_there_is_no_difference(task: Task, examples: list[Example]) -> None:
    report = evaluate([scripted("simple")], examples, task=task)
    assert (report.arms[0].arm, report.arms[0].difference, report.majority) == ("simple", None, None)


def test_a_prompt_that_is_too_long_and_a_rejected_reply_count_as_wrong(task: Task, examples: list[Example]) -> None:
    def answer(question: str) -> Answer:
        if "laughed" in question:
            raise PromptTooLong("The prompt has 9 tokens; the context holds 8.")
        if "party" in question:
            raise RejectedReply("empty")
        return always("happy")

    for concurrency in (1, 3):
        (arm,) = evaluate([RunnableLambda(answer, name="a")], examples, task=task, max_concurrency=concurrency).arms
        assert (arm.accuracy, arm.valid, arm.failed) == (0.25, 0.5, 2)


def test_any_other_failure_stops_the_run_and_a_rerun_asks_only_the_rest(
    task: Task, examples: list[Example], tmp_path: Path
) -> None:
    asked: list[str] = []
    down = True

    def answer(question: str) -> Answer:
        if down and len(asked) == 2:
            raise ModelError("the server is gone")
        asked.append(question)
        return always("happy")

    chain: Any = RunnableLambda(answer, name="a")
    with pytest.raises(ModelError, match="the server is gone"):
        evaluate([chain], examples, task=task, run=tmp_path / "run")
    down = False
    report = evaluate([chain], examples, task=task, run=tmp_path / "run")
    assert sorted(asked) == sorted(example.text for example in examples)
    assert report.arms == evaluate([chain], examples, task=task).arms


def test_a_row_cut_off_by_a_kill_is_asked_again(task: Task, examples: list[Example], tmp_path: Path) -> None:
    whole = evaluate([scripted("a")], examples, task=task, run=tmp_path / "run")
    file = tmp_path / "run" / "rows.jsonl"
    file.write_bytes(file.read_bytes()[:-20])
    asked: list[str] = []
    assert evaluate([scripted("a", asked)], examples, task=task, run=tmp_path / "run") == whole
    assert asked == ["My dog is ill."]
    assert len(file.read_text().splitlines()) == 4


def test_a_finished_run_is_read_and_another_arm_can_join_it(
    task: Task, examples: list[Example], tmp_path: Path
) -> None:
    asked: list[str] = []
    evaluate([scripted("a", asked)], examples, task=task, run=tmp_path / "run")
    report = evaluate([scripted("a", asked), scripted("b", asked)], examples, task=task, run=tmp_path / "run")
    assert (len(asked), [arm.arm for arm in report.arms]) == (8, ["a", "b"])


def test_a_folder_of_another_evaluation_is_refused(task: Task, examples: list[Example], tmp_path: Path) -> None:
    def with_settings(digits: str) -> Any:
        return scripted("a").with_config(metadata={"arm": "a", "settings": digits})

    evaluate([with_settings("1")], examples, task=task, run=tmp_path / "run")
    with pytest.raises(RunError, match="run holds a run with other settings; give another folder with --run"):
        evaluate([with_settings("2")], examples, task=task, run=tmp_path / "run")
    with pytest.raises(RunError, match="holds a run with other rows"):
        evaluate([with_settings("1")], examples[:2], task=task, run=tmp_path / "run")


def test_rows_on_disk_hold_no_question(task: Task, examples: list[Example], tmp_path: Path) -> None:
    evaluate([scripted("a")], examples, task=task, run=tmp_path / "run")
    text = (tmp_path / "run" / "rows.jsonl").read_text()
    assert not any(example.text in text for example in examples)
    assert json.loads(text.splitlines()[1]) == {
        "arm": "a", "row": examples[1].id, "gold": "sad", "prediction": "happy", "valid": True, "mode": "generate",
        "prior": "none", "grimoire": None, "note": "", "probability": None, "coverage": None, "scores": {},
        "reply": "happy", "usage": {"prompt_tokens": 7}, "seconds": 0.5, "deferred": False,
    }  # fmt: skip


@pytest.mark.parametrize("mode", ["score", "hidden", "fusion", "blend"])
def test_a_row_on_disk_says_under_which_cue_it_was_read(
    task: Task, examples: list[Example], tmp_path: Path, mode: str
) -> None:
    said: Any = RunnableLambda(lambda q: always("sad", mode=mode, cue="Label:"), name="a")
    evaluate([said], examples, task=task, run=tmp_path / "run")
    (first, *_) = (tmp_path / "run" / "rows.jsonl").read_text().splitlines()
    assert json.loads(first)["cue"] == "Label:"


def test_what_was_deferred_is_counted_with_its_cost(task: Task, examples: list[Example]) -> None:
    """Rows 1 and 2 are the weak model's, at .9 and .6: one right, one wrong. The strong one answers the rest, unsure.

    Calibration, a bin a row: (|.9 - 1| + |.6 - 0|) / 2 = .35. Risk: 0 of the surest, 1/2 of both; mean .25.
    """
    weak = {examples[0].text: 0.9, examples[1].text: 0.6}

    def answer(question: str) -> Answer:
        if question in weak:
            return always("happy", mode="score", probability=weak[question], usage={"prompt_tokens": 7})
        usage = {"prompt_tokens": 7, "strong_prompt_tokens": 100, "strong_reply_tokens": 2}
        return always("happy", mode="score", deferred=True, usage=usage)

    (arm,) = evaluate([RunnableLambda(answer, name="recipe")], examples, task=task).arms
    assert (arm.deferred, arm.prompt_tokens_total) == (0.5, 28)
    assert (arm.strong_prompt_tokens_total, arm.strong_reply_tokens_total) == (200, 4)
    assert arm.calibration_error == pytest.approx(0.35) and arm.risk_area == pytest.approx(0.25)


def test_a_recipe_with_a_grimoire_is_an_arm_with_one(task: Task, examples: list[Example]) -> None:
    right = {example.text: example.answer for example in examples}
    recipe: Any = RunnableLambda(lambda q: always(right[q], grimoire="moods-1234abcd"), name="recipe")
    found = evaluate([recipe, RunnableLambda(zero, name="zero-shot")], examples, task=task).grimoire
    assert found and (found.best_with, found.best_without, found.difference) == ("recipe", "zero-shot", 0.5)
    plain: Any = RunnableLambda(lambda q: always(right[q]), name="recipe")
    assert evaluate([plain, RunnableLambda(zero, name="zero-shot")], examples, task=task).grimoire is None


def test_equal_rows_each_count(task: Task) -> None:
    twice = [Example("Rain.", "sad"), Example("Rain.", "sad"), Example("Sun.", "happy")]
    (arm,) = evaluate([RunnableLambda(zero, name="a")], twice, task=task).arms
    assert arm.accuracy == pytest.approx(2 / 3)


def test_open_ended_answers_are_compared_without_case_and_full_stop(task: Task) -> None:
    said: Any = RunnableLambda(lambda q: Answer(label=None, text="Forty  Two.", valid=True), name="a")
    open_task = task.model_copy(update={"labels": ()})
    (arm,) = evaluate([said], [Example("6 x 7?", "forty two"), Example("7 x 7?", "49")], task=open_task).arms
    assert (arm.accuracy, arm.macro_f1) == (0.5, None)


def test_concurrent_answers_land_on_their_own_rows(task: Task, examples: list[Example]) -> None:
    one = evaluate([scripted("a")], examples, task=task)
    assert evaluate([scripted("a")], examples, task=task, max_concurrency=4) == one


def test_nothing_to_do_is_an_error(task: Task, examples: list[Example]) -> None:
    with pytest.raises(InputError, match="found 0 rows and 1 arms"):
        evaluate([scripted("a")], [])
    with pytest.raises(InputError, match="arms of different names"):
        evaluate([scripted("a"), scripted("a")], examples)


def test_a_run_has_one_name(task: Task, examples: list[Example]) -> None:
    name = run_name(task, {"a": scripted("a")}, examples)
    assert name == run_name(task, {"a": scripted("a")}, examples) and name.startswith("moods-")
    assert name != run_name(task, {"a": scripted("a")}, examples[:3])


def test_progress_is_told(task: Task, examples: list[Example]) -> None:
    seen: list[tuple[str, int, int]] = []
    report = evaluate([scripted("a")], examples, task=task, progress=lambda *step: seen.append(step))
    assert isinstance(report, Report) and seen == [("a", done, 4) for done in (1, 2, 3, 4)]
