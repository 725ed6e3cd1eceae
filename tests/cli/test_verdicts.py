"""What is said of grimoires, through the real command line: where it may be said, and what stands beside it."""

import json
import shlex
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from langchain_core.embeddings import DeterministicFakeEmbedding

from sleicl_chains.answering.recipes import Recipe, Verdict, told_by
from sleicl_chains.evaluation.summary import ArmResult, Report, compare
from sleicl_chains.evaluation.table import ArmBuilder
from sleicl_chains.evaluation.words import situation, verdict
from sleicl_chains.files import Home
from sleicl_chains.grimoires.grimoire import Grimoire, Provenance
from sleicl_chains.models.names import weak_model
from sleicl_chains.models.reading import Reading, keep_reading
from sleicl_chains.tasks.cards import Task, load_task
from sleicl_chains.tasks.rows import Example, text_id
from tests.support.command import Desk, Done, Parrot, rows, sleicl
from tests.support.fake_models import Scorer, Stater, Writer
from tests.support.openai_server import Reply

HELPS = "A grimoire helps on these rows."
UNKNOWN = "which rows the grimoire was written from is not known"


class Pupil(Parrot):
    """Answers rightly with the grimoire in sight, and wrongly without."""

    def __init__(self, answers: dict[str, str]) -> None:
        super().__init__(lambda text: "")
        self.answers = answers

    def __enter__(self) -> "Pupil":
        super().__enter__()
        return self

    def _answer(self, request: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        right = self.answers[request["messages"][-1]["content"]]
        other = "technical" if right == "billing" else "billing"
        said = right if "Money is billing." in json.dumps(request["messages"]) else other
        self.reply = lambda text: Reply(said)
        return super()._answer(request)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk.at(tmp_path / "my desk")


@pytest.fixture
def pupil(monkeypatch: pytest.MonkeyPatch) -> Iterator[Pupil]:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-none")
    with Pupil({row["text"]: row["answer"] for row in rows("test", 4)}) as server:
        yield server


def guide(desk: Desk, provenance: str) -> Path:
    file = desk.folder / "guide.md"
    front = f"task: desk\nprovenance: {provenance}\n"
    file.write_text(f"---\n{front}---\n\n# Simple grimoire\n\nMoney is billing.\n", encoding="utf-8")
    return file


def evaluated(desk: Desk, pupil: Pupil, *more: object) -> Done:
    source = ("--task", desk.card, "--rows", desk.test, "--weak", "openai:m", *pupil.options)
    return sleicl("evaluate", *source, *more)


def everywhere(desk: Desk, pupil: Pupil, *more: object) -> dict[str, str]:
    """Return what is said of one evaluation in each place that says it."""
    run = desk.folder / "run"
    said = {"terminal": evaluated(desk, pupil, *more, "--run", run).out}
    found = evaluated(desk, pupil, *more, "--run", run, "--json").json()
    said["json"] = "\n".join([*found["notes"], *found["verdict"]])
    assert sleicl("report", run).status == 0 == sleicl("report", run, "--no-text").status
    said |= {name: (run / f"{name}.html").read_text(encoding="utf-8") for name in ("report", "report-no-text")}
    found = sleicl("report", run, "--json").json()
    said["report as json"] = "\n".join([*found["notes"], *found["verdict"]])
    return {place: text.replace("&#39;", "'") for place, text in said.items()}


def mine() -> Example:
    return Example(**rows("test", 4)[0])


def copy_of(row: Example) -> Example:
    """A near-copy: two added spaces, another case, and a corrected label."""
    return Example(f"  {row.text.upper()} ", "technical" if row.answer == "billing" else "billing")


def test_a_grimoire_of_other_rows_gets_a_verdict(desk: Desk, pupil: Pupil) -> None:
    shown = guide(desk, f"{{examples: [{Example(**rows('train', 1)[0]).id}]}}")
    for place, text in everywhere(desk, pupil, "--grimoire", shown).items():
        assert HELPS in text and UNKNOWN not in text and "its figures flatter it" not in text, place


@pytest.mark.parametrize(
    "provenance", [f"{{examples: [{mine().id}]}}", f"{{text_ids: [{text_id(copy_of(mine()).text)}]}}"]
)
def test_a_grimoire_of_evaluated_rows_or_near_copies_gets_none_in_any_place(
    desk: Desk, pupil: Pupil, provenance: str
) -> None:
    texts = everywhere(desk, pupil, "--grimoire", guide(desk, provenance))
    for place, text in texts.items():
        assert "the grimoire was written from 1 of the evaluated rows: its figures flatter it" in text, place
        assert "No verdict on grimoires: of the 8 evaluated rows simple was made from 1; simple against" in text, place
        assert HELPS not in text, place
    assert "Money is billing." in texts["report"] and "Money is billing." not in texts["report-no-text"]


@pytest.mark.parametrize("provenance", ["{}", "{rows: any of train.jsonl}"])
def test_what_a_grimoire_was_written_from_is_said_to_be_unknown(desk: Desk, pupil: Pupil, provenance: str) -> None:
    for place, text in everywhere(desk, pupil, "--grimoire", guide(desk, provenance)).items():
        assert UNKNOWN in text and HELPS in text and "train.jsonl" not in text, place


def test_one_of_no_rows_is_known_and_json_can_name_them(desk: Desk, pupil: Pupil) -> None:
    for about in ({"sampler": "none"}, {"examples": ["0" * 16]}, {"text_ids": ["0" * 16]}):
        file = desk.folder / "guide.json"
        file.write_text(json.dumps({"task": "desk", "simple": "Money is billing.", **about}), encoding="utf-8")
        assert UNKNOWN not in evaluated(desk, pupil, "--grimoire", file).out
    file.write_text(json.dumps({"task": "desk", "simple": "Money is billing.", "examples": [mine().id]}), "utf-8")
    assert "written from 1 of the evaluated rows" in evaluated(desk, pupil, "--grimoire", file).out


def recipe(desk: Desk, pupil: Pupil, **about: Any) -> Path:
    task = load_task(desk.card)
    options: dict[str, Any] = {"base_url": pupil.base_url}
    found = Recipe(
        task=task, weak="openai:m", options=options, model=told_by(weak_model("openai:m", **options)), arm="zero-shot",
        mode="generate", prior="none", verdict=Verdict(finding="no difference shown"), rows=4, seed=0,
        **about,
    )  # fmt: skip
    found.save(desk.folder / "recipe.json")
    return desk.folder / "recipe.json"


def test_a_recipe_learned_from_near_copies_is_found_out(desk: Desk, pupil: Pupil) -> None:
    shown = guide(desk, "{sampler: none}")
    near = copy_of(mine())
    assert near.id != mine().id
    file = recipe(desk, pupil, learned_from=[near.id], learned_texts=[text_id(near.text)])
    for place, text in everywhere(desk, pupil, "--grimoire", shown, "--recipe", file, "--arms", "simple").items():
        assert "the recipe was learned from 1 of the evaluated rows: its figures flatter it" in text, place
        assert "No verdict on grimoires: of the 8 evaluated rows recipe was made from 1; simple against" in text, place
    for place, text in everywhere(desk, pupil, "--grimoire", shown, "--recipe", file).items():
        # The recipe, which has seen a row, is left out.
        assert f"{HELPS} simple, the best arm with a grimoire, against zero-shot" in text, place


def test_the_hint_names_a_run_that_is_found(
    desk: Desk, pupil: Pupil, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    home = ("--home", tmp_path / "a home")
    for place in (["--run", "x y/run 1"], ["--run=-x"], [*home], []):
        done = evaluated(desk, pupil, *place)
        assert done.status == 0, done.err
        hint = done.err.splitlines()[-1].partition("a page of them: ")[2].removesuffix(")")
        assert sleicl(*shlex.split(hint)[1:]).status == 0, hint


def test_training_rows_that_are_evaluated_are_seen_by_what_learns(task: Task, examples: list[Example]) -> None:
    space = DeterministicFakeEmbedding(size=4)
    near = [Example(copy_of(examples[0]).text, "sad"), Example("It snows.", "happy"), Example("It rains.", "sad")]
    builder = ArmBuilder(task, Scorer(think=lambda p: {"happy": 1.0}), space, train=near, prior="content-free")
    names = ["majority", "probe", "zero-shot", "few-shot", "knn", "zero-shot+blend", "mine"]
    assert [builder.seen(name, examples) for name in names] == [1, 1, 0, 1, 1, 1, 0]
    builder.prior = None
    assert builder.seen("zero-shot", examples) == 1
    builder.texts = ["It hails."]  # then the priors are of these, but for the one that is fitted on rows
    assert [builder.seen(name, examples) for name in ("zero-shot", "few-shot", "knn")] == [0, 1, 1]
    builder.prior = "affine"
    assert builder.seen("zero-shot", examples) == 1
    builder.leaked(examples)
    assert "1 of the evaluated rows are training rows too: what learns from those is flattered" in builder.notes


# ------------------------------------------------------------------ what suits the rows that one has


class Feeler(Stater):
    """Says how long its state is, as the embedded models do."""

    state_size: int = 2


BLEND = "a reading fitted on all of them (--mode blend)"


@pytest.mark.parametrize("rows", [0, 1, 99, 100, 200])
def test_what_suits_so_many_rows(rows: int) -> None:
    for gives_state in (True, False):
        line = situation(rows, gives_state=gives_state)
        assert line.startswith(f"what suits {rows or 'no'} labelled rows: ") and "\n" not in line
        assert ("the grimoire alone" in line) is ("(--texts)" in line) is ("as examples" not in line) is (rows == 0)
        assert (BLEND in line) is (rows >= 100 and gives_state)


def noted(task: Task, weak: Writer, arms: list[str], home: Home, rows: int = 0) -> list[str]:
    """Return the notes of a table that has a grimoire."""
    shown = Grimoire("g", "moods", "", "", task.labels, "Sobs are sad.", "Tears are sad.", Provenance())
    train = [Example(f"text {at}", "sad") for at in range(rows)]
    space = DeterministicFakeEmbedding(size=4)
    builder = ArmBuilder(task, weak, space, train=train, grimoire=shown, home=home)
    builder.build(arms)
    return builder.notes


@pytest.mark.parametrize("rows", [0, 1, 100])
@pytest.mark.parametrize("weak", [Scorer, Feeler])
def test_a_table_that_shows_a_grimoire_says_what_suits_so_many_rows(
    weak: type[Scorer], rows: int, task: Task, home: Home
) -> None:
    line = situation(rows, gives_state=weak is Feeler)
    assert noted(task, weak(), ["zero-shot", "simple"], home, rows).count(line) == 1
    assert noted(task, weak(), ["simple", "profound"], home, rows).count(line) == 1
    if rows:
        assert noted(task, weak(), ["profound+few-shot"], home, rows).count(line) == 1
    assert not [note for note in noted(task, weak(), ["zero-shot"], home, rows) if "suits" in note]


def test_what_suits_is_said_of_labels_that_are_scored_alone(task: Task, home: Home) -> None:
    assert not [note for note in noted(task, Writer(), ["simple"], home) if "suits" in note]
    words = Task(name="moods", description="Name the mood.")
    assert not [note for note in noted(words, Scorer(), ["simple"], home) if "suits" in note]


def test_of_a_model_that_is_known_to_fail_that_is_said_instead(task: Task, home: Home) -> None:
    reads = Reading(0.8, 0.7, 0.9, 0.25, 96, 0.25, 0.55, 0.4, 0.7, "score", "questions")
    fails = replace(reads, score=0.25, low=0.17, difference=0.0, difference_low=-0.1)
    for known, said in ((reads, situation(0, gives_state=False)), (fails, f"Scorer {fails}; a larger model may")):
        keep_reading(Scorer(), known, home)
        notes = noted(task, Scorer(), ["simple"], home)
        assert [note for note in notes if "suits" in note or "guides" in note] == [said]
    assert not [note for note in noted(task, Scorer(), ["zero-shot"], home) if "guides" in note]


# ------------------------------------------------------------------ which arms are compared


def arm(name: str, mode: str = "score", seen: int = 0, prior: str = "mean", right: float = 0.0) -> ArmResult:
    return ArmResult(
        name, mode, prior, right, 0, 1, None, 1, None, None, None, None, 1, 1, seen=seen,
        grimoire="g" if name == "recipe" else None,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("arms", "pair", "said"),
    [
        ({arm("zero-shot"): 1, arm("simple"): 8}, "simple zero-shot", HELPS),
        ({arm("zero-shot"): 8, arm("simple"): 1}, "simple zero-shot", "Grimoires hurt on these rows."),
        (
            {arm("zero-shot"): 1, arm("few-shot", "generate"): 9, arm("simple"): 8}, "simple zero-shot",
            f"{HELPS} simple, with a grimoire, against zero-shot, without, leaving aside few-shot (read by generate",
        ),
        (
            {arm("zero-shot"): 1, arm("recipe", "blend", prior="none"): 9, arm("simple"): 8}, "simple zero-shot",
            "leaving aside recipe (read by blend)",
        ),
        ({arm("zero-shot"): 1, arm("profound", seen=3): 9, arm("simple"): 8}, "simple zero-shot", "(made from 3"),
        (
            {arm("few-shot", "generate", prior="none"): 1, arm("simple"): 9}, "simple few-shot",
            "No verdict on grimoires: simple is read by score / mean and few-shot is read by generate, so their",
        ),
        (
            {arm("zero-shot", seen=2): 1, arm("simple", seen=2): 9}, "simple zero-shot",
            "No verdict on grimoires: of the 10 evaluated rows simple was made from 2 and zero-shot was made from 2;",
        ),
    ],
)  # fmt: skip
def test_like_is_compared_with_like(arms: dict[ArmResult, int], pair: str, said: str) -> None:
    right = {one.arm: [True] * hits + [False] * (10 - hits) for one, hits in arms.items()}
    known = [ArmResult(**(vars(one) | {"accuracy": hits / 10})) for one, hits in arms.items()]
    found = compare(right, known)
    assert found and (found.best_with, found.best_without) == tuple(pair.split())
    (line,) = verdict(Report("t", 10, "w", 0, None, known, found))
    assert said in line and (line.startswith(("A grimoire", "Grimoires")) != line.startswith("No verdict"))
