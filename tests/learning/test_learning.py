"""Learning a recipe: the verdict on a grimoire where the truth is known, and what the recipe then holds."""

import math
from pathlib import Path
from typing import Any

import pytest
from langchain_core.embeddings import Embeddings

from sleicl_chains.answering.evidence import Observation
from sleicl_chains.answering.fitting import fit_reader
from sleicl_chains.answering.observer import Observer
from sleicl_chains.answering.priors import mean_shares, prior_texts
from sleicl_chains.answering.readers import PriorReader, Reader
from sleicl_chains.answering.recipes import Recipe
from sleicl_chains.answering.solver import solver
from sleicl_chains.errors import InputError
from sleicl_chains.grimoires.grimoire import Grimoire, Provenance
from sleicl_chains.learning.cut import FEWEST_ROWS, cut
from sleicl_chains.learning.gate import finding_of
from sleicl_chains.learning.plan import Plan
from sleicl_chains.models.journal import Journal
from sleicl_chains.tasks.cards import Task
from sleicl_chains.tasks.rows import Example, text_id
from tests.support.fake_models import Stater, question_of
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


@pytest.fixture(autouse=True)
def one_strength(monkeypatch: pytest.MonkeyPatch) -> None:
    """Five times as fast; how a strength is chosen is tested with the linear reader."""
    monkeypatch.setattr("sleicl_chains.answering.fitting.STRENGTHS", (3.0,))


@EITHER
def test_a_grimoire_that_alone_tells_the_labels_apart_helps_and_is_taken(make: Any) -> None:
    recipe = learned(make(only_with_grimoire))
    found = recipe.verdict
    assert (found.finding, found.n) == ("helps", 40)
    assert found.difference is not None and found.low is not None and found.p is not None
    assert 0.2 < found.difference < 0.7 and 0 < found.low < found.difference and found.p < 0.05
    assert found.chosen is not None and found.chosen >= 0.85
    assert found.best_with and found.best_with.startswith("simple (doors-1)") and recipe.arm == "simple"
    assert recipe.grimoire and (recipe.grimoire.text, recipe.grimoire.id) == (GUIDE, "doors-1")


@EITHER
def test_where_the_prompt_changes_nothing_the_cheapest_is_taken(make: Any) -> None:
    recipe = learned(make(whatever_is_shown))
    assert (recipe.verdict.finding, recipe.verdict.difference, recipe.verdict.p) == ("no difference shown", 0.0, 1.0)
    assert (recipe.arm, recipe.grimoire, recipe.examples) == ("zero-shot", None, [])


@EITHER
def test_where_nothing_helps_no_help_is_found(make: Any) -> None:
    recipe = learned(make(guess))
    assert recipe.verdict.finding == "no difference shown" and recipe.grimoire is None


@EITHER
def test_a_grimoire_that_spoils_the_answers_hurts_and_is_not_taken(make: Any) -> None:
    recipe = learned(make(only_without))
    found = recipe.verdict
    assert found.finding == "hurts" and found.high is not None and found.high < 0
    assert (recipe.arm, recipe.grimoire) == ("zero-shot", None)
    assert found.chosen is not None and found.chosen >= 0.85


@pytest.mark.parametrize(
    ("low", "high", "p", "ahead", "finding"),
    [
        (0.01, 0.3, 0.04, 0.1, "helps"),
        (0.01, 0.3, 0.06, 0.1, "no difference shown"),  # the exact test does not agree with the interval
        (0.01, 0.3, 0.04, -0.1, "no difference shown"),  # the choose rows say the contrary
        (0.01, 0.3, 0.04, 0.0, "no difference shown"),
        (0.0, 0.3, 0.04, 0.1, "no difference shown"),
        (-0.3, -0.01, 0.04, -0.1, "hurts"),
        (-0.3, -0.01, 0.06, -0.1, "no difference shown"),
        (-0.3, -0.01, 0.04, 0.1, "no difference shown"),
        (-0.1, 0.1, 0.5, 0.1, "no difference shown"),
    ],
)
def test_interval_exact_test_and_choose_rows_must_agree(
    low: float, high: float, p: float, ahead: float, finding: str
) -> None:
    assert finding_of(low, high, p, ahead) == finding


def test_without_a_grimoire_the_best_prompt_is_taken_and_measured() -> None:
    recipe = learned(scorer(knows), grimoires=[])
    assert (recipe.verdict.finding, recipe.verdict.why) == ("no difference shown", "no grimoire was given")
    assert (recipe.verdict.n, recipe.verdict.difference, recipe.arm) == (40, None, "zero-shot")
    assert recipe.verdict.chosen is not None and recipe.verdict.chosen >= 0.85
    assert recipe.verdict.probe is not None and recipe.verdict.probe < recipe.verdict.chosen


def test_few_rows_give_a_warning_and_no_test() -> None:
    model = scorer(only_with_grimoire)
    recipe = learned(model, FEWEST_ROWS - 1)
    assert recipe.warnings == [
        "39 labelled rows are too few for a verdict (40 are needed), so only the plainest prompts were compared and "
        "nothing was tested"
    ]
    found = recipe.verdict
    assert (found.finding, found.n, found.why) == (
        "no difference shown",
        0,
        "39 labelled rows are too few for a verdict (40 are needed)",
    )
    assert (found.difference, found.low, found.high, found.p, found.chosen) == (None,) * 5
    assert recipe.arm == "zero-shot" and recipe.grimoire is None
    assert {trial.name.split(" ")[0].split("+")[0] for trial in recipe.trials} == {"zero-shot", "simple"}
    assert all(trial.n == 39 for trial in recipe.trials)


def test_an_open_ended_task_is_learned_by_generating() -> None:
    task = Task(name="doors", description="Say which door it is.")
    recipe = learned(writer(only_with_grimoire), task=task)
    assert (recipe.verdict.finding, recipe.mode, recipe.prior, recipe.arm) == ("helps", "generate", "none", "simple")
    assert (recipe.reader, recipe.calibration, recipe.cue, recipe.verdict.probe) == (None, None, "", None)
    assert all(trial.loss is None and trial.macro_f1 is None for trial in recipe.trials)
    said = solver(recipe, model=writer(only_with_grimoire)).invoke("case 1000")
    assert (said.answer, said.label, said.probability) == (knows("\nhuman: case 1000\nai: "), None, None)


def fitted_anew(recipe: Recipe, setup: Observer, examples: list[Example]) -> Reader:
    """Fit a recipe's reader on rows, in the order that learning has them in."""
    blocks = setup.blocks(recipe.mode)
    seen, answers = [setup.observe(row.text, blocks) for row in examples], [row.answer for row in examples]
    if recipe.mode != "score" or recipe.prior == "affine":
        return fit_reader(recipe.mode, seen, answers, setup.groups(recipe.mode), LABELS)
    texts = set(prior_texts(examples, TASK, seed=recipe.seed))
    chosen: list[Observation] = [one for one, row in zip(seen, examples, strict=True) if row.text in texts]
    return PriorReader(mean_shares(one.scores.probabilities for one in chosen if one.scores))


def felt(said: Any) -> Stater:
    """Return a model whose scores know nothing and whose state knows what is said."""
    return Stater(
        think=lambda prompt: {label: 1.0 for label in LABELS},
        feel=lambda prompt: [1.0 if said(prompt) == "left" else -1.0, number_of(prompt), 0.5],
    )


def number_of(prompt: str) -> float:
    return len(question_of(prompt)) / 10


@pytest.mark.parametrize("mode", ["score", "hidden"])
def test_the_reader_is_fitted_on_all_rows(mode: str) -> None:
    def said(prompt: str) -> str:  # the state where the question ends comes without the turn that follows
        return door(question_of(prompt + "\nai: "))

    model = scorer(knows) if mode == "score" else felt(said)
    recipe = learned(model)
    assert (recipe.mode, recipe.rows) == (mode, 100)
    setup = recipe.steps(model).observer
    everything, choose = cut(rows(100), 0).rows, cut(rows(100), 0).choose
    assert recipe.reader == fitted_anew(recipe, setup, everything).to_dict()
    if mode == "hidden":  # as many texts of each label go into the prior, whatever the rows
        assert recipe.reader != fitted_anew(recipe, setup, choose).to_dict()


def test_where_scores_and_state_each_know_half_both_are_read() -> None:
    def said(prompt: str, half: int) -> str:
        question = question_of(prompt if "ai: " in prompt else prompt + "\nai: ")
        return door(question) if number(question + "half", 2) == half else ""

    model = Stater(
        think=lambda prompt: {label: 0.9 if said(prompt, 0) == label else 0.3 for label in LABELS},
        feel=lambda prompt: [{"left": 1.0, "right": -1.0}.get(said(prompt, 1), 0.0), 0.5],
    )
    recipe = learned(model)
    assert recipe.mode in ("fusion", "blend") and recipe.embeddings == "wordllama"
    best = {trial.name: trial.accuracy for trial in recipe.trials if trial.name.startswith("zero-shot")}
    assert best["zero-shot+blend"] > 0.9 > max(best["zero-shot+hidden"], best["zero-shot / affine"])


def test_its_probability_is_how_often_it_is_right() -> None:
    """The model is right on 19 of 20 questions, and on 88% of the rows that were chosen on."""
    model = scorer(knows)
    recipe = learned(model)
    chain = solver(recipe, model=model)
    new = [chain.invoke(f"new {n}") for n in range(100)]
    right = sum(said.label == door(f"new {n}") for n, said in enumerate(new)) / 100
    assert sum(said.probability or 0 for said in new) / 100 == pytest.approx(right, abs=0.1)
    assert max(said.scores[said.label or ""] for said in new) < 0.85 < max(said.probability or 0 for said in new)


def only_knn(prompt: str) -> str:
    return knows(prompt) if prompt.count("ai: ") == 5 else guess(prompt)


def test_a_neighbours_recipe_chooses_among_all_rows() -> None:
    model = scorer(only_knn)
    recipe = learned(model, grimoires=[])
    assert recipe.arm == "knn" and len(recipe.examples) == 100
    assert {(shown.text, shown.answer) for shown in recipe.examples} == {(row.text, row.answer) for row in rows(100)}


def without_date(recipe: Recipe) -> dict[str, Any]:
    return recipe.model_dump(exclude={"date"})


def test_the_same_seed_gives_the_same_recipe_whatever_the_order_of_the_file() -> None:
    first = without_date(learned(scorer(only_with_grimoire), 60, seed=3))
    assert without_date(learned(scorer(only_with_grimoire), 60, seed=3, examples=rows(60)[::-1])) == first
    other = without_date(learned(scorer(only_with_grimoire), 60, seed=4))
    assert other["verdict"] != first["verdict"] or other["trials"] != first["trials"]


def test_a_journal_answers_a_second_run(tmp_path: Path) -> None:
    with Journal(tmp_path / "journal.sqlite") as journal:
        model = scorer(only_with_grimoire)
        first = learned(model, 50, journal=journal)
        asked = len(model.calls)
        assert asked == len(set(model.calls))
        assert without_date(learned(model, 50, journal=journal)) == without_date(first)
        assert len(model.calls) == asked


@pytest.mark.parametrize(
    ("examples", "found"),
    [
        ([Example(f"case {n}", "left") for n in range(60)], "60 labelled rows with 1 different answers"),
        ([], "0 labelled rows with 0 different answers"),
        (rows(7), "7 labelled rows with 2 different answers"),
        ([*rows(6), Example("Case  0", "left"), Example(" case 1", "left")], "6 labelled rows"),
    ],
)
def test_rows_that_teach_nothing_are_refused_before_any_call(examples: list[Example], found: str) -> None:
    model = scorer(knows)
    with pytest.raises(InputError, match=found):
        learned(model, examples=examples)
    with pytest.raises(InputError, match=found):
        cut(examples, 0)
    assert model.calls == []


def test_a_budget_too_small_is_refused_before_any_call() -> None:
    weak, strong = scorer(knows), writer(knows)
    with pytest.raises(InputError, match=r"The grimoire would cost about 73\d\d strong tokens; the budget is 100"):
        learned(weak, strong=strong, grimoires=[], budget=100)
    assert weak.calls == strong.calls == []


@pytest.mark.parametrize("said", [guess, only_knn], ids=["no prompt is better", "neighbours are"])
def test_the_plan_names_no_fewer_questions_than_are_asked(said: Any) -> None:
    model = scorer(said)
    learned(model)
    plan = Plan.of(TASK, cut(rows(100), 0), [CLUE])
    assert (plan.choose, plan.confirm, plan.prompts) == (60, 40, 5)
    assert plan.lines()[0].startswith("60 rows to choose on, 40 to confirm; 5 prompts: up to 480 questions")
    assert len(model.asked("score")) <= 480


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
    book = Grimoire("doors-1", "doors", "", "", LABELS, "", GUIDE, about)
    recipe = learned(scorer(only_with_grimoire), grimoires=[book])
    assert recipe.grimoire and set(recipe.learned_from) == {row.id for row in rows(100)} | {elsewhere.id}
    assert recipe.among([Example("  READ before ", "right"), Example("not read", "left")])[0].answer == "right"
    plain = learned(scorer(whatever_is_shown), grimoires=[book])
    assert not plain.grimoire and set(plain.learned_from) == {row.id for row in rows(100)}


def test_an_answer_that_is_no_label_is_refused_before_any_call() -> None:
    model = scorer(knows)
    with pytest.raises(InputError, match=r"'odd': found the label 'lefd'; did you mean 'left'\? expected one of"):
        learned(model, examples=[*rows(60), Example("odd", "lefd")])
    assert model.calls == []


def test_a_strong_model_is_not_paid_where_nothing_can_be_tested() -> None:
    said: list[str] = []
    with OpenAIServer([]) as server:
        recipe = learned(scorer(knows), 20, strong=server.model(), grimoires=[], notice=said.append)
        assert server.requests == []
    why = "20 labelled rows are too few for a verdict (40 are needed)"
    assert f"the strong model is not asked for a grimoire: {why}." in said and recipe.verdict.why == why


def test_what_a_strong_model_wrote_is_handed_over_whatever_the_verdict() -> None:
    kept: list[Grimoire] = []
    with OpenAIServer(["left or right, look at the number", GUIDE]) as server:
        recipe = learned(writer(whatever_is_shown), strong=server.model(), grimoires=[], keep=kept.append)
    assert recipe.grimoire is None and [one.simple for one in kept] == [GUIDE]


class Counting(Embeddings):
    def __init__(self) -> None:
        self.batches: list[list[str]] = []

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        self.batches.append(texts)
        return SPACE.embed_documents(texts)

    def embed_query(self, text: str) -> list[float]:
        return SPACE.embed_query(text)


def test_each_row_is_embedded_once() -> None:
    space = Counting()
    learned(scorer(guess), 60, space=space)
    texts = [text for batch in space.batches for text in batch if text.startswith("case ")]
    assert sorted(texts) == sorted(row.text for row in rows(60))
