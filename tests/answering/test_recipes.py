"""Recipes: one file that answers by itself, and refuses what it was not learned for."""

import json
import math
from pathlib import Path
from typing import Any, ClassVar, cast

import pytest

from sleicl_chains.answering.recipes import AlsoTried, Choice, Recipe, Shown, Verdict
from sleicl_chains.answering.recipes import TestedRow as Row  # pytest would collect the name
from sleicl_chains.answering.solver import solver
from sleicl_chains.errors import InputError, RecipeMismatch
from sleicl_chains.evaluation.table import ArmBuilder
from sleicl_chains.tasks.cards import Task
from sleicl_chains.tasks.rows import Example
from tests.support.fake_models import Scorer, Stater, Writer, question_of

LABELS = ("happy", "sad")
TASK = Task(name="moods", task_type="sentiment analysis", description="Classify the mood.", labels=LABELS)
SHOWN = [Shown.of("I laughed {all} day.", "happy"), Shown.of("Nobody came.", "sad")]
GUIDE = Shown.of("Tears are sad; «naïve» 体育.", id="moods-1")


LINEAR: dict[str, Any] = {
    "kind": "linear", "labels": list(LABELS), "blocks": ["state"], "mean": [0.0] * 4, "scale": [1.0] * 4,
    "weights": [[1.0] * 4, [-1.0] * 4], "offsets": [0.0, 0.0], "all_labels": list(LABELS),
}  # fmt: skip


SCORED = LINEAR | {"blocks": ["scores"], "mean": [0.0] * 2, "scale": [1.0] * 2, "weights": [[1.0] * 2, [-1.0] * 2]}


def weak(kind: type[Writer] = Scorer) -> Any:
    return kind() if kind is Writer else cast(type[Scorer], kind)(think=lambda prompt: {"happy": 0.8, "sad": 0.2})


def recipe(kind: type[Writer] = Scorer, **changes: Any) -> Recipe:
    given: dict[str, Any] = {
        "task": TASK, "weak": "fake", "model": weak(kind).identity, "arm": "simple+few-shot", "mode": "score",
        "prior": "mean", "cue": "Mood:", "grimoire": GUIDE, "examples": SHOWN,
        "reader": {"kind": "prior", "prior": {"happy": 0.9, "sad": 0.1}}, "calibration": (2.0, 0.5),
        "verdict": Verdict(
            finding="helps", pair=("simple+few-shot", "few-shot"), grimoire="moods-1", difference=0.1, low=0.02,
            high=0.2, p=0.01, n=40, smallest_shown=0.12, tested="score", level=0.01, fixed=5, broken=1,
            accuracy=(0.8, 0.7), rows_known=False,
        ),
        "also_tried": [AlsoTried(arm="zero-shot", difference=-0.05, p=0.4, n=40)],
        "choice": Choice(
            arm="simple+few-shot", mode="score", expected=0.05, ground="taken", accuracy=0.8, probe=0.6, n=40
        ),
        "tested": [Row(row="0" * 16, gold="sad", said={"few-shot": ("happy", 0.6), "simple+few-shot": (None, 0)})],
        "rows": 100, "seed": 7,
    }  # fmt: skip
    return Recipe(**{**given, **changes})


def bare(kind: type[Writer], **changes: Any) -> Recipe:
    """Return one that generates, without anything shown."""
    empty: dict[str, Any] = {"reader": None, "calibration": None, "cue": "", "grimoire": None, "examples": []}
    return recipe(kind, arm="zero-shot", mode="generate", prior="none", **empty, **changes)


def saved(found: Recipe, folder: Path) -> Path:
    found.save(folder / "recipe.json")
    return folder / "recipe.json"


def changed(file: Path, *, key: str, value: Any, within: str = "") -> Path:
    """Change one thing in a file as a person might."""
    data = json.loads(file.read_text(encoding="utf-8"))
    target = data[within] if within else data
    (target[0] if isinstance(target, list) else target)[key] = value
    file.write_text(json.dumps(data), encoding="utf-8")
    return file


# ------------------------------------------------------------------ files


def test_a_recipe_comes_back_from_its_file_and_answers_the_same(tmp_path: Path) -> None:
    """.8 / .9 to .2 / .1 is .89 to 2; sigmoid(2 * logit(share) + .5) of "sad"."""
    first = recipe()
    again = Recipe.load(saved(first, tmp_path))
    assert again == first
    said, same = (solver(one, model=weak()).invoke("It rains.") for one in (first, again))
    assert said.scores == same.scores == pytest.approx({"happy": 0.8 / 0.9 / (0.8 / 0.9 + 2), "sad": 18 / 26})
    odds = (18 / 8) ** 2 * 2.718281828**0.5
    assert said.probability == same.probability == pytest.approx(odds / (1 + odds))
    assert (said.label, said.cue, said.grimoire, said.arm) == ("sad", "Mood:", "moods-1", "recipe")


def test_the_file_is_readable_text_and_the_same_every_time(tmp_path: Path) -> None:
    text = saved(recipe(), tmp_path).read_text(encoding="utf-8")
    assert "Tears are sad; «naïve» 体育." in text and text.endswith("}\n")
    assert saved(Recipe.load(tmp_path / "recipe.json"), tmp_path).read_text(encoding="utf-8") == text
    assert [file.name for file in tmp_path.iterdir() if file.suffix] == ["recipe.json"]


@pytest.mark.parametrize(
    ("within", "key"), [("grimoire", "text"), ("examples", "text"), ("examples", "answer"), ("grimoire", "sha256")]
)
def test_a_changed_text_is_refused(tmp_path: Path, within: str, key: str) -> None:
    file = changed(saved(recipe(), tmp_path), within=within, key=key, value="happy, always")
    with pytest.raises(RecipeMismatch, match=r"recipe\.json: the text '.*' was changed after learning") as caught:
        Recipe.load(file)
    assert "run `sleicl learn` again" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "not valid JSON"),
        ("just words", "not valid JSON"),
        ("[]", "the file: "),
        ("{}", "task: Field required"),
        ('{"task": 1}', "task: "),
        (r'{"task": "\ud800"}', "half of a surrogate pair"),
    ],
)
def test_what_is_no_recipe_is_refused_in_one_line(tmp_path: Path, text: str, complaint: str) -> None:
    file = tmp_path / "recipe.json"
    file.write_text(text)
    with pytest.raises(InputError) as caught:
        Recipe.load(file)
    assert complaint in str(caught.value) and str(caught.value).startswith(str(file)) and "\n" not in str(caught.value)
    assert str(caught.value).endswith("expected a recipe as `sleicl learn` writes it")


@pytest.mark.parametrize(
    ("key", "value", "complaint"),
    [
        ("arm", "one-shot", "arm: Input should be 'zero-shot'"),
        ("colour", "red", "colour: Extra inputs are not permitted"),
        ("format", 2, "format: Input should be 1"),
        ("calibration", [1.0], "calibration."),
        ("reader", {"kind": "oracle"}, "a fitted reader cannot be read (unknown kind 'oracle')"),
        ("reader", {"kind": "prior", "prior": {"happy": 1.0}}, "the reader"),
        ("reader", {"kind": "affine", "labels": ["happy"], "slopes": [1.0], "offsets": [0.0]}, "the reader"),
        ("reader", SCORED | {"mean": [0.0] * 3}, "a fitted reader cannot be read (means, scales and weights of 2 diff"),
        ("reader", SCORED | {"weights": [["much"] * 2] * 2}, "a fitted reader cannot be read (weights.0.0: Input"),
        ("reader", SCORED | {"weights": [[1.0] * 2]}, "a fitted reader cannot be read (2 labels with 1 rows"),
        ("reader", SCORED | {"offsets": [0.0]}, "a fitted reader cannot be read (2 labels with 2 rows of weigh"),
        ("reader", SCORED | {"scale": [1.0, 0.0]}, "a fitted reader cannot be read (scale.1: Input should be greater"),
        ("reader", SCORED | {"scale": [1.0, 1e-300]}, "a fitted reader cannot be read (scale.1: Input should be gr"),
        ("reader", SCORED | {"mean": [0.0, math.nan]}, "a fitted reader cannot be read (mean.1: Input should be a fin"),
        ("reader", SCORED | {"offsets": [0.0, math.inf]}, "a fitted reader cannot be read (offsets.1: Input should"),
        ("reader", SCORED | {"weights": [[1e308] * 2] * 2}, "a fitted reader cannot be read (weights.0.0: Input"),
        ("reader", SCORED | {"labels": ["sad", "sad"]}, "a fitted reader cannot be read (2 labels with"),
        ("reader", SCORED | {"blocks": ["scores", "scores"]}, "a fitted reader cannot be read (means, scales"),
        ("reader", SCORED | {"blocks": ["mood"]}, "a fitted reader cannot be read (blocks.0: Input should be 'scor"),
        ("reader", {"kind": "prior", "prior": {"happy": 1.5, "sad": 0.1}}, "a fitted reader cannot be read (prior.h"),
        ("reader", {"kind": "affine", "labels": list(LABELS), "slopes": [1.0], "offsets": [0.0] * 2}, "a fitted rea"),
        ("calibration", [math.nan, 0.0], "calibration.0: Input should be"),
        ("calibration", [1.0, 1e308], "calibration.1: Input should be"),
        ("calibration", [-1.0, 0.0], "calibration.0: Input should be"),
        ("rows", math.inf, "rows: Input should be"),
        ("verdict", {"finding": "helps", "p": -1}, "verdict.p: Input should be greater"),
        (
            "choice",
            {"arm": "few-shot", "mode": "score", "ground": "", "accuracy": 1.5, "n": 4},
            "choice.accuracy: In",
        ),
        ("tested", [{"row": "a", "gold": "sad", "said": {"probe": ["sad", 0.5]}}], "tested.0.said.probe"),
        ("tested", [{"row": "a", "gold": "sad", "said": {"knn": ["sad", 7.0]}}], "tested.0.said.knn.1: Input should"),
        ("reader", LINEAR, "the reader reads the state, which the mode 'score' does not look at"),
        ("reader", {"kind": "blend", "parts": [LINEAR, "more"]}, "a fitted reader cannot be read (a blend"),
        ("reader", {"kind": "blend"}, "a fitted reader cannot be read (a blend of no parts)"),
        ("reader", {"kind": "blend", "parts": []}, "a fitted reader cannot be read (a blend of no parts)"),
        ("reader", {"kind": "blend", "parts": 7}, "a fitted reader cannot be read ("),
    ],
)
def test_a_spoilt_recipe_is_refused_when_it_is_loaded(tmp_path: Path, key: str, value: Any, complaint: str) -> None:
    file = changed(saved(recipe(), tmp_path), key=key, value=value)
    with pytest.raises(InputError) as caught:
        Recipe.load(file)
    assert str(caught.value).startswith(f"{file}: {complaint}") and "\n" not in str(caught.value)


def test_a_recipe_of_states_comes_back(tmp_path: Path) -> None:
    fusion = LINEAR | {"blocks": ["scores", "state", "vector"]}
    blend = {"kind": "blend", "parts": [LINEAR, LINEAR | {"blocks": ["vector"]}]}
    readers = {"hidden": LINEAR, "fusion": fusion, "blend": blend}
    for mode, reader in readers.items():
        first = recipe(Stater, mode=mode, prior="none", reader=reader, embeddings="wordllama")
        assert Recipe.load(saved(first, tmp_path)) == first
    with pytest.raises(InputError, match="the reader reads the vector, which the mode 'hidden' does not look at"):
        Recipe.load(saved(recipe(Stater, mode="hidden", prior="none", reader=blend), tmp_path))


def test_a_missing_file_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gone\.json: there is no such file; expected a recipe"):
        Recipe.load(tmp_path / "gone.json")


# ------------------------------------------------------------------ models


def test_another_model_is_refused_before_it_is_asked() -> None:
    other = Scorer(think=lambda prompt: {"happy": 1.0})
    strange = recipe(model={"weights": "of something else"})
    for use in (lambda: solver(strange, model=other), lambda: strange.prompt("It rains.", other)):
        with pytest.raises(RecipeMismatch) as caught:
            use()
        assert str(caught.value) == (
            "The recipe was learned for fake with weights of something; found weights fake Scorer. "
            "Its numbers hold for no other model: run `sleicl learn` for this one"
        )
    assert other.calls == []


def test_other_embeddings_of_the_same_name_are_refused() -> None:
    with pytest.raises(RecipeMismatch, match="learned with other embeddings of the name wordllama"):
        recipe(embeddings="wordllama", embeddings_fingerprint="256-abc").steps(weak())


def test_the_sizes_of_the_evidence_are_checked_before_the_first_question(tmp_path: Path) -> None:
    """An embedding has as many numbers as its fingerprint says, a state as many as the model says."""
    told: dict[str, Any] = {"mode": "fusion", "prior": "none", "embeddings": "wordllama"}
    reader = LINEAR | {"blocks": ["vector"]}
    with pytest.raises(InputError, match=r"the reader reads 4 numbers of an embedding; the embeddings give 256"):
        Recipe.load(saved(recipe(reader=reader, embeddings_fingerprint="256-abc", **told), tmp_path))
    with pytest.raises(InputError, match="the reader reads an embedding; the recipe names no embeddings"):
        Recipe.load(saved(recipe(reader=reader, **{**told, "embeddings": ""}), tmp_path))

    class Sized(Stater):
        state_size: ClassVar[int] = 6

    model = Sized(think=lambda prompt: {})
    found = recipe(Sized, mode="hidden", prior="none", reader=LINEAR, model=model.identity)
    with pytest.raises(RecipeMismatch, match="reads 4 numbers of the model's state; fake gives 6"):
        solver(found, model=model)
    assert model.calls == []


def test_evidence_of_another_size_is_no_answer() -> None:
    """NumPy would stretch one number over all."""
    short = recipe(Stater, mode="hidden", prior="none", reader=LINEAR, calibration=None)
    with pytest.raises(InputError, match="the reader reads 4 numbers; the model and the embeddings give 2"):
        solver(short, model=Stater(feel=lambda prompt: [0.5])).invoke("It rains.")


@pytest.mark.parametrize(("offset", "chance"), [(-1e6, 0.0), (1e6, 1.0)])
def test_the_largest_numbers_that_a_recipe_may_hold_do_not_overflow(offset: float, chance: float) -> None:
    said = solver(recipe(calibration=(1e6, offset)), model=weak()).invoke("It rains.")
    assert said.probability is not None and 0 <= said.probability <= 1
    assert solver(recipe(calibration=(0.0, offset)), model=weak()).invoke("It rains.").probability == chance


# ------------------------------------------------------------------ the prompt


def test_the_prompt_of_scores_is_what_is_scored() -> None:
    model = weak()
    found = recipe()
    prompt = found.prompt("It {rains}.", model)
    assert model.calls == []
    solver(found, model=model).invoke("It {rains}.")
    assert model.calls == [("score", prompt)]
    assert prompt == (
        "system: You are an expert in sentiment analysis. Classify the mood.\n"
        "Answer with one of: happy, sad.\n\nTears are sad; «naïve» 体育.\n"
        "human: I laughed {all} day.\nai: Mood: happy\nhuman: Nobody came.\nai: Mood: sad\n"
        "human: It {rains}.\nai: Mood:"
    )


def test_the_prompt_of_states_is_what_they_are_read_at() -> None:
    """Once where the question ends, which is a beginning of the prompt, and once at its end."""
    model = Stater(feel=lambda prompt: [0.5, 0.25])
    found = recipe(Stater, mode="hidden", prior="none", reader=LINEAR, calibration=None)
    prompt = found.prompt("It rains.", model)
    said = solver(found, model=model).invoke("It rains.")
    assert model.calls == [("state", prompt.removesuffix("\nai: Mood:")), ("state", prompt)]
    assert said.label == "happy" and said.probability == pytest.approx(1 / (1 + 2.718281828**-3))


def test_the_prompt_of_words_is_what_is_answered() -> None:
    model = Writer(reply=lambda prompt: "sad")
    found = bare(Writer)
    assert solver(found, model=model).invoke("It rains.").label == "sad"
    (sent,) = model.asked("reply")
    assert found.prompt("It rains.", model) == sent.replace("\nhuman: ", "\n\nhuman: ")
    assert question_of(sent) == "It rains."


def test_a_neighbours_prompt_shows_the_nearest_but_not_the_question() -> None:
    from sleicl_chains.models.embedders import embedder, fingerprint

    rows = [Shown.of(text, "sad") for text in ("rain and storm", "it rains again", "a cake", "sunshine", "my dog")]
    found = recipe(
        arm="knn", grimoire=None, examples=rows, embeddings="wordllama", embeddings_fingerprint=fingerprint(embedder())
    )
    prompt = found.prompt("It rains AGAIN", weak())
    assert prompt.count("\nhuman: ") == 5 and "it rains again" not in prompt
    assert prompt.endswith("human: rain and storm\nai: Mood: sad\nhuman: It rains AGAIN\nai: Mood:")


def test_a_recipe_is_named_by_what_it_does() -> None:
    names = [recipe().name, recipe(mode="hidden").name, recipe(mode="fusion", arm="knn").name, bare(Writer).name]
    assert names == ["simple+few-shot", "simple+few-shot+hidden", "knn+fusion", "zero-shot"]


def test_nobody_else_may_read_a_recipe_file(tmp_path: Path) -> None:
    """It may hold training rows."""
    assert saved(recipe(), tmp_path).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("change", ["description", "cue", "template"])
def test_a_prompt_that_is_laid_out_otherwise_is_refused(change: str, monkeypatch: pytest.MonkeyPatch) -> None:
    first = recipe()
    kept = first.model_copy(update={"layout": first.layout_under(weak())})
    assert solver(kept, model=weak()).invoke("It rains.").valid
    if change == "description":
        kept = kept.model_copy(update={"task": TASK.model_copy(update={"description": "Classify the weather."})})
    elif change == "cue":
        kept = kept.model_copy(update={"cue": "Answer:"})
    else:
        monkeypatch.setattr("sleicl_chains.prompts._filled", lambda *given: "Other words.")
    with pytest.raises(RecipeMismatch, match="no longer the one that it was learned with"):
        solver(kept, model=weak())


def test_beside_a_recipe_what_it_decides_is_refused() -> None:
    with pytest.raises(InputError, match="a recipe says itself what is shown"):
        solver(recipe(), model=weak(), arm="simple")  # type: ignore[call-overload]
    with pytest.raises(InputError, match="`model` goes with a recipe"):
        solver(weak(), TASK, model=weak())  # type: ignore[call-overload]


def test_rows_that_a_recipe_was_learned_from_are_said_to_flatter_it(task: Task) -> None:
    seen, new = Example("Nobody came.", "sad"), Example("I sang.", "happy")
    known = recipe().model_copy(update={"learned_from": [seen.id]})
    builder = ArmBuilder(TASK, weak(), cast(Any, None), recipe=known)
    assert builder.leaked([new]) == 0 and builder.notes == []
    assert builder.leaked([seen, new]) == 1
    assert builder.notes == ["the recipe was learned from 1 of the evaluated rows: its figures flatter it"]
