"""Learning a recipe: the verdict on a grimoire where the truth is known, and what the recipe then holds."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from langchain_core.embeddings import Embeddings

from sleicl_chains.answering.arms import Arm
from sleicl_chains.answering.fitting import fit_linear
from sleicl_chains.answering.priors import mean_shares, prior_texts
from sleicl_chains.answering.readers import BlendReader, PriorReader, Reader
from sleicl_chains.answering.recipes import Recipe
from sleicl_chains.answering.solver import solver
from sleicl_chains.errors import InputError, PromptTooLong
from sleicl_chains.files import Home
from sleicl_chains.grimoires.grimoire import Grimoire, Provenance
from sleicl_chains.learning import choice
from sleicl_chains.learning.crossfit import folds
from sleicl_chains.learning.cut import FEWEST_ROWS, cut
from sleicl_chains.learning.plan import Plan, forms_of
from sleicl_chains.learning.verdict import LEVELS
from sleicl_chains.models.journal import Journal
from sleicl_chains.models.reading import Reading, keep_reading
from sleicl_chains.tasks.cards import Task
from sleicl_chains.tasks.rows import Example, text_id
from tests.support.fake_models import Scorer, Stater, question_of
from tests.support.learn_task import (
    CLUE,
    GUIDE,
    LABELS,
    SPACE,
    TASK,
    door,
    guess,
    knows,
    learned,
    number,
    only_with_grimoire,
    only_without,
    rows,
    scorer,
    whatever_is_shown,
    writer,
)
from tests.support.openai_server import OpenAIServer

EITHER = pytest.mark.parametrize("make", [scorer, writer], ids=["scored", "generated"])
ANY = pytest.mark.parametrize("make", [scorer, writer, lambda said: felt(said)], ids=["scored", "generated", "blended"])
NOTHING = "no difference shown"
BOTH = Grimoire("doors-2", "doors", "", "", LABELS, f"{GUIDE} At length.", GUIDE, Provenance())


@pytest.fixture(autouse=True)
def one_strength(monkeypatch: pytest.MonkeyPatch) -> None:
    """Five times as fast; how a strength is chosen is tested with the linear reader."""
    monkeypatch.setattr("sleicl_chains.answering.fitting.STRENGTHS", (3.0,))


@pytest.fixture(autouse=True)
def gains(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Nothing is known of other tasks, unless a test says something."""
    found: list[dict[str, Any]] = []
    monkeypatch.setattr(choice, "_gains", lambda: found)
    return found


def felt(said: Any) -> Stater:
    """Return a model whose scores know nothing and whose state knows what is said."""

    def feel(prompt: str) -> list[float]:  # where the question ends no turn has begun
        whole = prompt if "\nai: " in prompt[prompt.rfind("\nhuman: ") :] else prompt + "\nai: "
        return [1.0 if said(whole) == "left" else -1.0, len(question_of(whole)) / 10, 0.5]

    return Stater(think=lambda prompt: {label: 1.0 for label in LABELS}, feel=feel)


@ANY
def test_a_grimoire_that_alone_tells_the_labels_apart_helps_and_is_taken(make: Any) -> None:
    recipe = learned(make(only_with_grimoire))
    found = recipe.verdict
    assert (found.finding, found.n, found.pair) == ("helps", 92, ("simple+few-shot", "few-shot"))
    assert found.difference is not None and found.low is not None and found.p is not None
    assert 0.2 < found.difference < 0.7 and 0 < found.low < found.difference and found.p < min(LEVELS.values())
    assert found.grimoire == "doors-1" and found.accuracy and found.accuracy[0] >= 0.85
    assert found.fixed - found.broken == pytest.approx(found.difference * 92)
    assert recipe.choice and recipe.choice.arm == recipe.arm and recipe.arm in ("simple", "simple+few-shot")
    assert recipe.choice.accuracy is not None and recipe.choice.accuracy >= 0.85 and recipe.choice.n == 92
    assert ("told from probabilities" in recipe.choice.ground) == (found.tested == "score")
    assert recipe.grimoire and (recipe.grimoire.text, recipe.grimoire.id) == (GUIDE, "doors-1")


@EITHER
def test_where_the_prompt_changes_nothing_no_grimoire_is_taken(make: Any) -> None:
    recipe = learned(make(whatever_is_shown))
    assert (recipe.verdict.finding, recipe.verdict.difference, recipe.verdict.p) == (NOTHING, 0.0, 1.0)
    assert (recipe.verdict.fixed, recipe.verdict.broken) == (0, 0)
    assert recipe.grimoire is None and not recipe.shown.shows_grimoire
    assert all((one.difference, one.p) == (0.0, 1.0) for one in recipe.also_tried)


@ANY
def test_where_nothing_helps_no_help_is_found(make: Any) -> None:
    assert learned(make(guess), 60).verdict.finding == NOTHING


@ANY
def test_a_grimoire_that_spoils_the_answers_hurts_and_is_not_taken(make: Any) -> None:
    recipe = learned(make(only_without), 60)
    found = recipe.verdict
    assert found.finding == "hurts" and found.high is not None and found.high < 0
    assert recipe.grimoire is None and recipe.arm in ("zero-shot", "few-shot")
    assert recipe.choice and recipe.choice.accuracy is not None and recipe.choice.accuracy >= 0.85


@pytest.mark.parametrize(
    ("make", "reading", "tested"),
    [(scorer, ("score", "mean"), "score"), (writer, ("generate", "none"), "right"), (felt, ("blend", "none"), "score")],
    ids=["scored", "generated", "blended"],
)
def test_the_reading_is_the_plain_one_of_the_model(make: Any, reading: tuple[str, str], tested: str) -> None:
    recipe = learned(make(only_with_grimoire), 60)
    assert ((recipe.mode, recipe.prior), recipe.verdict.tested) == (reading, tested)
    assert (recipe.reader is None) == (recipe.calibration is None) == (reading[0] == "generate")
    assert recipe.embeddings == ("wordllama" if reading[0] == "blend" else "")


@pytest.mark.parametrize(
    ("grimoires", "options"),
    [
        ([CLUE], {}),
        ([BOTH, CLUE], {}),
        ([CLUE, CLUE], {}),
        ([BOTH], {"thorough": True}),
        ([], {}),
        ([], {"shots": 0}),
        ([], {"thorough": True}),
        ([BOTH], {"shots": 0}),
        ([CLUE], {"shots": 1}),
    ],
    ids=[
        "one",
        "two",
        "the same twice",
        "thorough",
        "none",
        "none and no shots",
        "none, thorough",
        "no shots",
        "shots",
    ],
)
def test_exactly_the_questions_of_the_plan_are_asked(grimoires: list[Grimoire], options: dict[str, Any]) -> None:
    said: list[str] = []
    told: list[tuple[str, int, int]] = []
    model = scorer(guess)
    recipe = learned(
        model, 60, grimoires=grimoires, notice=said.append, progress=lambda *step: told.append(step), **options
    )  # fmt: skip
    parts = cut(TASK, rows(60), 0, grimoires, shots=options.get("shots"))
    plan = Plan.of(parts, [forms_of(one) for one in grimoires], options.get("thorough", False))
    questions = plan.questions(len(parts.tested))
    assert len(model.asked("score")) == questions == len(told) and told[-1][1:] == (questions, questions)
    assert any(f"{questions} questions to the weak model, up to {questions} calls." in line for line in said)
    also = [*((arm.name, 0, len(parts.tested)) for arm in plan.cheaper)]
    also += [(arm.name, at, len(parts.tested) // 2) for arm, at in plan.others]
    ids = [one.id for one in grimoires]
    assert [(one.arm, one.grimoire, one.n) for one in recipe.also_tried] == [
        (arm, ids[at] if arm.startswith(("simple", "profound")) else "", n) for arm, at, n in also
    ]
    assert recipe.verdict.pair == ((plan.pair.name, plan.baseline.name) if plan.pair else None)


def test_the_plan_is_told_before_any_question() -> None:
    model = scorer(guess)
    asked: list[tuple[str, int]] = []
    learned(model, 60, notice=lambda line: asked.append((line, len(model.calls))))
    assert [(line.split(" ")[0], calls) for line, calls in asked] == [("Plan:", 0), ("Also", 0), ("About", 5)]
    assert asked[0][0].startswith("Plan: simple+few-shot (doors-1) against few-shot, read by score, on 52 of 60")


def test_a_model_that_is_known_not_to_read_is_named(home: Home) -> None:
    model, said = scorer(guess), list[str]()
    keep_reading(model, Reading(0.3, 0.2, 0.4, 0.25, 40, 0.3, 0.0, -0.1, 0.1, "score", "1"), home)
    recipe = learned(model, 60, notice=said.append, home=home)
    assert "Scorer does not follow guides (.30, chance .25); a larger model may." in said
    assert recipe.verdict.n == 52  # it is tested all the same
    said.clear()
    learned(model, 60, notice=said.append, home=home, grimoires=[])
    assert not [line for line in said if "follow" in line]


def test_without_a_grimoire_the_better_prompt_is_taken_and_measured() -> None:
    def with_examples(prompt: str) -> str:
        return knows(prompt) if prompt.count("\nhuman: ") > 1 else guess(prompt)

    recipe = learned(scorer(with_examples), grimoires=[])
    assert (recipe.verdict.finding, recipe.verdict.why) == (NOTHING, "no grimoire was given")
    assert (recipe.verdict.n, recipe.verdict.difference, recipe.arm) == (0, None, "few-shot")
    assert recipe.choice and recipe.choice.accuracy and recipe.choice.probe and recipe.choice.n == 92
    assert recipe.choice.accuracy >= 0.85 > recipe.choice.probe
    assert [(one.arm, one.difference < -0.2, one.p < 0.01) for one in recipe.also_tried] == [("zero-shot", True, True)]
    assert (
        learned(scorer(lambda p: guess(p) if p.count("\nhuman: ") > 1 else knows(p)), grimoires=[]).arm == "zero-shot"
    )


class Told(Scorer):
    """A model whose weights have a digest."""

    weights_digest: str = "abc"


def known(arm: str, gain: float) -> dict[str, Any]:
    tasks = {name: {"difference": gain, "error": 0.01} for name in ("trec", "subj")}
    return {"weights": "abc", "model": "qwen", "mode": "score", "arm": arm, "against": "few-shot", "tasks": tasks}


@pytest.mark.parametrize(
    ("told", "arm"),
    [
        ([], "few-shot"),
        ([known("simple+few-shot", 0.04)], "simple+few-shot"),
        ([known("simple+few-shot", 0.005)], "few-shot"),
        ([known("simple", 0.05), known("simple+few-shot", 0.04)], "simple"),
        ([known("zero-shot", 0.05), known("simple+few-shot", 0.04)], "zero-shot"),
    ],
    ids=["nothing", "it gained", "hardly", "the cheaper gained", "zero-shot gained"],
)
def test_few_rows_are_not_tested_and_one_prompt_is_taken_by_what_is_known(
    told: list[dict[str, Any]], arm: str, gains: list[dict[str, Any]]
) -> None:
    gains += told
    model, said = Told(think=scorer(guess).think), list[str]()
    recipe = learned(model, FEWEST_ROWS - 1, notice=said.append)
    why = f"{FEWEST_ROWS - 1} labelled rows are too few for a verdict ({FEWEST_ROWS} are needed)"
    assert said[0].startswith(f"Plan: no test, since {why}")
    assert (recipe.verdict.finding, recipe.verdict.why, recipe.verdict.n, recipe.verdict.p) == (NOTHING, why, 0, None)
    assert recipe.arm == arm and not recipe.also_tried and not recipe.tested
    assert len(model.calls) == 31 == len({prompt for _, prompt in model.calls})  # its own questions alone
    assert {GUIDE in prompt for _, prompt in model.calls} == {arm.startswith("simple")}
    assert recipe.choice and recipe.choice.n == 31 and recipe.choice.accuracy is not None and recipe.reader


@pytest.mark.parametrize("n", range(8, 41, 4))
@EITHER
def test_from_eight_rows_on_there_is_a_recipe(make: Any, n: int) -> None:
    recipe = learned(make(knows), n)
    assert (recipe.rows, bool(recipe.verdict.n)) == (n, n >= FEWEST_ROWS)
    assert solver(recipe, model=make(knows)).invoke("case 1000").label in LABELS


def test_on_few_rows_a_prompt_that_does_not_fit_is_not_taken(gains: list[dict[str, Any]]) -> None:
    gains += [known("simple+few-shot", 0.05), known("simple", 0.04)]
    model = Narrow(room=40, think=scorer(knows).think, weights_digest="abc")
    recipe = learned(model, 30)
    assert recipe.arm == "simple" and [note.split(":")[0] for note in recipe.warnings] == [
        "simple+few-shot (doors-1) was left out"
    ]


def test_an_open_ended_task_is_learned_by_generating() -> None:
    task = Task(name="doors", description="Say which door it is.")
    recipe = learned(writer(only_with_grimoire), task=task)
    assert (recipe.verdict.finding, recipe.mode, recipe.prior, recipe.verdict.n) == ("helps", "generate", "none", 96)
    assert (recipe.reader, recipe.calibration, recipe.cue) == (None, None, "")
    assert recipe.choice and recipe.choice.probe is None and recipe.shown.form == "simple"
    said = solver(recipe, model=writer(only_with_grimoire)).invoke("case 1000")
    assert (said.answer, said.label, said.probability) == (knows("\nhuman: case 1000\nai: "), None, None)


def fitted_anew(recipe: Recipe, model: Any, examples: list[Example]) -> Reader:
    """Fit a recipe's reader on rows, in the order that learning has them in."""
    observer = recipe.steps(model, embeddings=None if recipe.mode == "score" else SPACE).observer
    observer = replace(observer, embeddings=SPACE)
    seen = [observer.observe(row.text, observer.blocks(recipe.mode)) for row in examples]
    if recipe.mode == "score":
        texts = set(prior_texts(examples, TASK, seed=recipe.seed))
        pairs = zip(seen, examples, strict=True)
        return PriorReader(
            mean_shares(one.scores.probabilities for one, row in pairs if one.scores and row.text in texts)
        )
    answers, groups = [row.answer for row in examples], observer.groups(recipe.mode)
    return BlendReader(tuple(fit_linear(seen, answers, group, LABELS) for group in groups))


@pytest.mark.parametrize("make", [scorer, felt], ids=["scored", "blended"])
def test_the_recipes_reader_is_fitted_on_all_rows_of_the_test(make: Any) -> None:
    model = make(only_with_grimoire)
    recipe = learned(model)
    parts = cut(TASK, rows(100), 0, [CLUE])
    assert recipe.rows == 100 and recipe.reader == fitted_anew(recipe, model, parts.tested).to_dict()


def test_where_scores_and_state_each_know_half_both_are_read() -> None:
    def said(prompt: str, half: int) -> str:
        question = question_of(prompt if "ai: " in prompt else prompt + "\nai: ")
        return door(question) if number(question + "half", 2) == half else ""

    model = Stater(
        think=lambda prompt: {label: 0.9 if said(prompt, 0) == label else 0.3 for label in LABELS},
        feel=lambda prompt: [{"left": 1.0, "right": -1.0}.get(said(prompt, 1), 0.0), 0.5],
    )
    recipe = learned(model, grimoires=[], shots=0)
    assert recipe.choice and recipe.choice.accuracy is not None and recipe.choice.accuracy > 0.9
    alone = learned(Scorer(think=model.think), grimoires=[], shots=0)
    assert alone.choice and alone.choice.accuracy is not None and alone.choice.accuracy < 0.9


def test_its_probability_is_how_often_it_is_right() -> None:
    """The model is right on 19 of 20 questions, and says so less boldly."""
    model = scorer(knows)
    recipe = learned(model)
    chain = solver(recipe, model=model)
    new = [chain.invoke(f"new {n}") for n in range(100)]
    right = sum(said.label == door(f"new {n}") for n, said in enumerate(new)) / 100
    assert sum(said.probability or 0 for said in new) / 100 == pytest.approx(right, abs=0.1)
    assert max(said.scores[said.label or ""] for said in new) < 0.85 < max(said.probability or 0 for said in new)


@EITHER
def test_each_row_of_the_test_is_written_down_without_its_text(make: Any) -> None:
    recipe = learned(make(only_with_grimoire), 60)
    parts = cut(TASK, rows(60), 0, [CLUE])
    assert [(one.row, one.gold) for one in recipe.tested] == [(row.id, row.answer) for row in parts.tested]
    arms = {"few-shot", "simple+few-shot", "zero-shot", "simple"}
    assert all(set(one.said) == arms for one in recipe.tested)
    pair = [Arm.of(name).name for name in recipe.verdict.pair or ()]
    right = [[one.said[arm][0] == one.gold for one in recipe.tested] for arm in pair]
    assert recipe.verdict.accuracy == tuple(sum(side) / 52 for side in right)
    assert recipe.verdict.fixed == sum(ours and not theirs for ours, theirs in zip(*right, strict=True))
    assert not [one for one in parts.tested if one.text in "".join(t.model_dump_json() for t in recipe.tested)]


@pytest.mark.parametrize("make", [scorer, felt], ids=["scored", "blended"])
def test_a_rows_answer_has_no_say_in_what_is_made_of_it(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """One answer turned round: of that row the same is said, whatever is shown."""
    parts = cut(TASK, rows(60), 0, [CLUE])
    places = [list(range(start, 52, 5)) for start in range(5)]
    monkeypatch.setattr("sleicl_chains.learning.crossfit.folds", lambda _: places)
    turned = parts.tested[7]
    mixed = parts._replace(
        tested=[
            row if row is not turned else Example(row.text, LABELS[1 - LABELS.index(row.answer)])
            for row in parts.tested
        ]
    )  # fmt: skip
    said = []
    for one in (parts, mixed):
        monkeypatch.setattr("sleicl_chains.learning.learn.cut", lambda *_, _one=one, **__: _one)
        said.append(learned(make(only_with_grimoire), 60).tested[7])
    assert said[0].said == said[1].said and said[0].gold != said[1].gold


def test_the_nearest_rows_are_none_that_are_asked_about() -> None:
    """Else a row's answer, shown beside another question, has a say in how that one's evidence is read, and its own."""
    model = scorer(guess)
    learned(model, 60, grimoires=[], shots=0, thorough=True)
    shown = [prompt for _, prompt in model.calls if prompt.count("\nhuman: ") > 1]  # by knn alone
    asked = {question_of(prompt) for prompt in shown}
    assert len(asked) == 30 == len(shown)
    assert not [text for prompt in shown for text in asked - {question_of(prompt)} if f"{text}\n" in prompt]


def test_a_grimoire_of_unknown_rows_is_told_from_one_of_known_rows() -> None:
    elsewhere = Example("read before", "left")
    book = replace(CLUE, provenance=Provenance(examples=(elsewhere.id,), text_ids=(text_id(elsewhere.text),)))
    assert not learned(scorer(guess), 60).verdict.rows_known
    assert learned(scorer(guess), 60, grimoires=[book]).verdict.rows_known
    none = replace(CLUE, provenance=Provenance(sampler="none"))
    assert learned(scorer(guess), 60, grimoires=[none]).verdict.rows_known


def test_where_a_grimoire_was_written_from_all_rows_nothing_is_tested() -> None:
    book = replace(CLUE, provenance=Provenance(examples=tuple(row.id for row in rows(60)[:45])))
    model = scorer(only_with_grimoire)
    recipe = learned(model, 60, grimoires=[book])
    assert recipe.verdict.n == 0 and recipe.choice and recipe.choice.n == 15 == len(model.calls)
    assert recipe.verdict.why == "fewer than 20 labelled rows are left that no grimoire was written from"


@pytest.mark.parametrize("left", [2, 3, 6])
@ANY
def test_where_hardly_a_row_is_left_there_is_a_recipe_all_the_same(make: Any, left: int) -> None:
    book = replace(CLUE, provenance=Provenance(examples=tuple(row.id for row in rows(60)[left:])))
    recipe = learned(make(knows), 60, grimoires=[book])
    assert recipe.verdict.n == 0 and recipe.choice and recipe.choice.n == left


def without_date(recipe: Recipe) -> dict[str, Any]:
    return recipe.model_dump(exclude={"date"})


@pytest.mark.parametrize("make", [scorer, felt], ids=["scored", "blended"])
def test_the_same_seed_gives_the_same_recipe_whatever_the_order_of_the_file(make: Any) -> None:
    first = without_date(learned(make(only_with_grimoire), 60, seed=3))
    assert without_date(learned(make(only_with_grimoire), 60, seed=3, examples=rows(60)[::-1])) == first
    other = without_date(learned(make(only_with_grimoire), 60, seed=4))
    assert [one["row"] for one in other["tested"]] != [one["row"] for one in first["tested"]]


def test_a_journal_answers_a_second_run(tmp_path: Path) -> None:
    with Journal(tmp_path / "journal.sqlite") as journal:
        model = scorer(only_with_grimoire)
        first = learned(model, 50, journal=journal)
        asked = len(model.calls)
        assert asked == len(set(model.calls))
        assert without_date(learned(model, 50, journal=journal)) == without_date(first)
        assert len(model.calls) == asked


@pytest.mark.parametrize("examples", [rows(7), [Example(f"case {n}", "left") for n in range(60)]])
def test_rows_that_teach_nothing_are_refused_before_any_call(examples: list[Example]) -> None:
    model = scorer(knows)
    with pytest.raises(InputError, match="expected at least 8 rows with 2 answers, and 40 rows for a verdict"):
        learned(model, examples=examples)
    assert model.calls == []


def test_an_answer_that_is_no_label_is_refused_before_any_call() -> None:
    model = scorer(knows)
    with pytest.raises(InputError, match=r"'odd': found the label 'lefd'; did you mean 'left'\? expected one of"):
        learned(model, examples=[*rows(60), Example("odd", "lefd")])
    assert model.calls == []


@pytest.mark.parametrize(
    ("answers", "labels"),
    [
        ([f"label {at % 77}" for at in range(100)], 77),
        ([f"label {at}" for at in range(45)], 45),
        (["label 0"] * 58 + ["label 1"] * 2, 2),
        (["label 0"] * 53 + ["label 1"] * 7, 2),
    ],
    ids=["77 labels", "one row each", "all but two", "all but seven"],
)
@pytest.mark.parametrize("make", [scorer, felt, writer], ids=["scored", "blended", "generated"])
def test_labels_with_hardly_a_row_end_in_a_recipe(make: Any, answers: list[str], labels: int) -> None:
    names = tuple(f"label {at}" for at in range(labels))
    task = Task(name="many", task_type="choice", description="Choose.", labels=names)
    examples = [Example(f"case {at}", answer) for at, answer in enumerate(answers)]
    book = replace(CLUE, task="many", labels=names)
    model = make(lambda prompt: names[number(prompt, labels)])
    recipe = learned(model, task=task, examples=examples, grimoires=[book])
    assert recipe.verdict.n >= 0.6 * len(examples) and recipe.verdict.p is not None
    assert solver(recipe, model=model, embeddings=SPACE).invoke("case 1000").label in names


def test_texts_that_differ_by_case_only_are_one_row() -> None:
    loud = [Example(row.text.upper(), row.answer) for row in rows(60)]
    model = scorer(only_with_grimoire)
    recipe = learned(model, examples=[*rows(60), *loud])
    assert recipe.rows == 60 and recipe.verdict.n == 52
    asked = [question_of(prompt).casefold() for _, prompt in model.calls]
    assert all(asked.count(text) == 4 for text in set(asked)) and len(set(asked)) == 52


def test_two_grimoires_of_one_id_are_told_apart() -> None:
    spoilt = replace(CLUE, simple="The grimoire: it is always left.")
    recipe = learned(scorer(only_with_grimoire), grimoires=[CLUE, spoilt])
    assert recipe.verdict.finding == "helps" and recipe.grimoire and recipe.grimoire.text == GUIDE
    *_, other = recipe.also_tried
    assert (other.arm, other.grimoire, other.n) == ("simple+few-shot", "doors-1", 46) and other.difference < 0.25


class Narrow(Told):
    """Takes prompts of a few words."""

    room: int

    def score_labels(self, prompt: str, labels: Any) -> Any:
        if len(prompt.split()) > self.room:
            raise PromptTooLong(f"The prompt has {len(prompt.split())} tokens; the context holds {self.room}")
        return super().score_labels(prompt, labels)


def narrow(room: int) -> Narrow:
    return Narrow(room=room, think=scorer(only_with_grimoire).think)


def longest(arm: str) -> int:
    """Return how many words a prompt has."""
    model = scorer(guess)
    learned(model, 60)
    shown = {"few-shot": (True, False), "simple+few-shot": (True, True), "zero-shot": (False, False)}[arm]
    return max(
        len(prompt.split())
        for _, prompt in model.calls
        if (prompt.count("\nhuman: ") > 1, GUIDE in prompt) == shown
    )  # fmt: skip


def test_a_pair_that_does_not_fit_is_not_tested_and_is_named() -> None:
    recipe = learned(narrow(longest("few-shot")), 60)
    assert (recipe.verdict.finding, recipe.verdict.n) == (NOTHING, 0)
    assert recipe.verdict.why == "simple+few-shot does not fit the weak model's context"
    assert [note.split(":")[0] for note in recipe.warnings] == ["simple+few-shot (doors-1) was left out"]
    assert recipe.arm == "simple" and [one.arm for one in recipe.also_tried] == ["zero-shot", "simple"]
    assert all(set(one.said) == {"few-shot", "zero-shot", "simple"} for one in recipe.tested)


def test_where_the_shown_examples_do_not_fit_learning_says_what_helps() -> None:
    for room in (longest("zero-shot"), 5):
        with pytest.raises(InputError, match=r"learn: few-shot does not fit the weak model's context; give a larger"):
            learned(narrow(room), 60)
    with pytest.raises(InputError, match=r"learn: zero-shot does not fit the weak model's context"):
        learned(narrow(5), 60, shots=0)
    with pytest.raises(InputError, match=r"learn: few-shot does not fit"):
        learned(narrow(5), 20)


@pytest.mark.parametrize("long", [1, 10], ids=["one row", "a whole fold"])
def test_rows_that_do_not_fit_count_as_wrong_and_do_not_end_it_all(long: int, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = cut(TASK, rows(60), 0, [CLUE])
    room = longest("simple+few-shot")
    places = [at for part in folds(parts.tested)[:1] for at in part][:long]
    grown = [
        Example(row.text + " very" * 90, row.answer) if at in places else row for at, row in enumerate(parts.tested)
    ]
    monkeypatch.setattr("sleicl_chains.learning.learn.cut", lambda *_, **__: parts._replace(tested=grown))
    recipe = learned(narrow(room), 60)
    assert recipe.verdict.n == 52 and recipe.verdict.finding == "helps" and recipe.rows == 60
    gone = [one for one in recipe.tested if one.said["simple+few-shot"] == (None, 0.0)]
    assert len(gone) == long
    noted = [note for note in recipe.warnings if f"{long} rows do not fit and count as wrong" in note]
    assert any(note.startswith("simple+few-shot (doors-1): ") for note in noted)


class Blinkered(Scorer):
    """Sees no label of some questions, as an Ollama server may, and knows by one cue best."""

    alternatives: int = 20

    def score_labels(self, prompt: str, labels: Any) -> Any:
        found = replace(super().score_labels(prompt, labels), coverage=0.9 if prompt.endswith("Label:") else 0.3)
        return replace(found, unseen=tuple(labels)) if number("blink" + question_of(prompt), 4) == 0 else found


def test_where_no_label_is_in_sight_there_is_no_answer_as_in_a_solver() -> None:
    recipe = learned(Blinkered(think=scorer(only_with_grimoire).think))
    blind = {row.id for row in rows(100) if number("blink" + row.text, 4) == 0}
    tested = [one for one in recipe.tested if one.row in blind]
    assert 5 < len(tested) < 40
    for one in recipe.tested:
        assert {answer is None for answer, _ in one.said.values()} == {one.row in blind}
    assert recipe.verdict.accuracy and recipe.verdict.accuracy[0] <= 1 - len(tested) / 92


@pytest.mark.parametrize("shots", [None, 0])
def test_the_cue_is_chosen_by_texts_that_are_shown_or_without_their_answers(shots: int | None) -> None:
    model = Blinkered(think=scorer(only_with_grimoire).think)
    recipe = learned(model, 60, shots=shots)
    assert recipe.cue == "Label:"
    parts = cut(TASK, rows(60), 0, [CLUE], shots=shots)
    tried = [question_of(prompt) for _, prompt in model.calls if not prompt.endswith("Label:")]
    among = {row.text for row in parts.shown or parts.tested}
    assert tried and set(map(lambda text: text.split("\n")[0], tried)) <= among


def test_a_grimoire_written_here_is_written_from_the_rows_that_are_shown() -> None:
    kept: list[Grimoire] = []
    weak = writer(only_with_grimoire)
    with OpenAIServer(["left or right, look at the number", GUIDE]) as server:

        def keep(one: Grimoire) -> None:
            assert weak.calls == []  # it was paid for, so it is handed over before anything else can go wrong
            kept.append(one)

        recipe = learned(weak, strong=server.model(), grimoires=[], budget=20_000, keep=keep)
        prompt = server.prompt(0)
        assert len(server.requests) == 2
    parts = cut(TASK, rows(100), 0, writes=True)
    assert not [row for row in parts.tested if f'"{row.text}"' in prompt]
    assert all(f'"{row.text}"' in prompt for row in parts.drawn) and prompt.count('"text": "case ') == 8
    assert (recipe.verdict.pair, recipe.verdict.n) == (("profound+few-shot", "few-shot"), 92)
    assert [one.simple for one in kept] == [GUIDE] and recipe.verdict.rows_known
    tried = {one.arm: one for one in recipe.also_tried}
    assert list(tried) == ["zero-shot", "profound", "simple+few-shot", "simple"]
    assert tried["simple+few-shot"].difference > 0.2 and tried["simple+few-shot"].p < 0.05
    assert recipe.grimoire is None  # what helps is the simple text, which was only also tried


def test_what_a_strong_model_wrote_is_handed_over_whatever_the_verdict() -> None:
    kept: list[Grimoire] = []
    with OpenAIServer(["left or right, look at the number", GUIDE]) as server:
        recipe = learned(
            writer(whatever_is_shown), 60, strong=server.model(), grimoires=[], keep=kept.append, shots=0
        )  # fmt: skip
    assert recipe.grimoire is None and [one.simple for one in kept] == [GUIDE]
    assert recipe.verdict.pair == ("profound", "zero-shot") and recipe.verdict.n == 52 and recipe.examples == []


def test_a_strong_model_is_not_paid_where_nothing_can_be_tested() -> None:
    said: list[str] = []
    with OpenAIServer([]) as server:
        recipe = learned(scorer(knows), 20, strong=server.model(), grimoires=[], notice=said.append)
        assert server.requests == []
    why = "20 labelled rows are too few for a verdict (40 are needed)"
    assert f"the strong model is not asked for a grimoire: {why}." in said and recipe.verdict.why == why


def test_a_budget_too_small_is_refused_before_any_call() -> None:
    weak, strong = scorer(knows), writer(knows)
    with pytest.raises(InputError, match=r"The grimoire would cost about 73\d\d strong tokens; the budget is 100"):
        learned(weak, strong=strong, grimoires=[], budget=100)
    assert weak.calls == strong.calls == []


def test_keys_and_addresses_do_not_get_into_the_recipe() -> None:
    options = {
        "api_key": "sk-secret", "base_url": "http://me:pass@host/v1", "num_ctx": 8192, "temperature": 0.5,
        "default_headers": {"x": "secret"}, "extra_body": {"x": "secret"}, "openai_proxy": "http://host",
        "http_client": object(), "client_kwargs": {"proxy": "http://host"}, "seed": "secret", "top_p": math.nan,
    }  # fmt: skip
    recipe = learned(scorer(knows), 40, options=options)
    assert (recipe.options, recipe.address) == ({"num_ctx": 8192, "temperature": 0.5}, "")
    assert "secret" not in recipe.model_dump_json() and "host" not in recipe.model_dump_json()


def test_a_recipe_knows_the_rows_that_its_figures_are_owed_to() -> None:
    elsewhere = Example("read before", "left")
    about = Provenance(examples=(elsewhere.id,), text_ids=(text_id(elsewhere.text),))
    book = replace(CLUE, provenance=about)
    recipe = learned(scorer(only_with_grimoire), grimoires=[book])
    assert recipe.grimoire and set(recipe.learned_from) == {row.id for row in rows(100)} | {elsewhere.id}
    assert recipe.among([Example("  READ before ", "right"), Example("not read", "left")])[0].answer == "right"
    plain = learned(scorer(whatever_is_shown), grimoires=[book])
    assert not plain.grimoire and set(plain.learned_from) == {row.id for row in rows(100)}


class Counting(Embeddings):
    def __init__(self) -> None:
        self.batches: list[list[str]] = []

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        self.batches.append(texts)
        return SPACE.embed_documents(texts)

    def embed_query(self, text: str) -> list[float]:
        return SPACE.embed_query(text)


@pytest.mark.parametrize("make", [scorer, felt], ids=["scored", "blended"])
def test_each_row_of_the_test_is_embedded_once(make: Any) -> None:
    space = Counting()
    learned(make(guess), 60, space=space)
    texts = [text for batch in space.batches for text in batch if text.startswith("case ")]
    assert sorted(texts) == sorted(row.text for row in cut(TASK, rows(60), 0, [CLUE]).tested)
