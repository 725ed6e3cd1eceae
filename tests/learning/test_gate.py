"""The gate's honesty: what was looked at before the choice, and what the one test is made on."""

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from sleicl_chains.answering.arms import Arm
from sleicl_chains.errors import InputError, PromptTooLong
from sleicl_chains.grimoires.grimoire import Grimoire, Provenance
from sleicl_chains.learning.cut import cut
from sleicl_chains.learning.gate import Gate
from sleicl_chains.tasks.rows import Example, text_id
from tests.support.fake_models import Scorer, Stater, question_of
from tests.support.learn_task import (
    CLUE,
    GUIDE,
    LABELS,
    SPACE,
    TASK,
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


@pytest.fixture(autouse=True)
def one_strength(monkeypatch: pytest.MonkeyPatch) -> None:
    """Five times as fast; how a strength is chosen is tested with the linear reader."""
    monkeypatch.setattr("sleicl_chains.answering.fitting.STRENGTHS", (3.0,))


def gate(model: Any, examples: list[Example], grimoires: tuple[Grimoire, ...] = (CLUE,)) -> Gate:
    return Gate(TASK, cut(examples, 0, grimoires), model, grimoires, 0, SPACE, None, lambda *_: None, lambda _: None)


def written_from(examples: list[Example]) -> Grimoire:
    ids = tuple(row.id for row in examples)
    return Grimoire("doors-2", "doors", "", "", LABELS, "", GUIDE, Provenance(examples=ids))


def test_the_cut_is_by_shares_and_parts_share_no_text() -> None:
    examples = rows(100)
    choose, confirm = cut([*examples, Example("CASE  0", "left")], 0)
    assert (len(choose), len(confirm)) == (60, 40)
    texts = [row.text.casefold() for row in [*choose, *confirm]]
    assert len({" ".join(text.split()) for text in texts}) == 100
    shares = [sum(row.answer == "left" for row in part) / len(part) for part in (choose, confirm, examples)]
    assert shares[:2] == pytest.approx([shares[2]] * 2, abs=0.03)


def test_rows_that_a_grimoire_was_written_from_are_never_confirmed_on() -> None:
    _, confirm = cut(rows(100), 0)
    used = confirm[:10]
    choose, clean = cut(rows(100), 0, [written_from(used)])
    assert clean == confirm[10:] and all(row in choose for row in used)
    model = scorer(only_with_grimoire)
    recipe = learned(model, grimoires=[written_from(used)])
    assert recipe.verdict.n == 30 and recipe.verdict.finding == "helps"


def test_a_twin_of_a_row_that_a_grimoire_was_written_from_is_not_confirmed_on() -> None:
    used = cut(rows(100), 0).confirm[0]
    twin = Example(f"  {used.text.upper()} ", used.answer)
    found = cut([*rows(100), twin], 0, [written_from([twin])])
    assert used.text.casefold() not in [" ".join(row.text.split()).casefold() for row in found.confirm]
    assert len(found.confirm) == 39


def test_rows_too_few_to_show_anything_are_chosen_on_as_well() -> None:
    confirm = cut(rows(100), 0).confirm
    left = cut(rows(100), 0, [written_from(confirm[:-5])])
    assert left.confirm == [] and len(left.choose) == 100
    assert len(cut(rows(100), 0, [written_from(confirm[:-6])]).confirm) == 6


def test_a_grimoire_written_here_is_written_from_rows_to_choose_on() -> None:
    replies = ["left or right, look at the number", GUIDE]
    with OpenAIServer(replies) as server:
        recipe = learned(writer(only_with_grimoire), strong=server.model(), grimoires=[], budget=20_000)
        prompt = server.prompt(0)
        assert len(server.requests) == 2
    _, confirm = cut(rows(100), 0)
    assert not [row for row in confirm if f'"{row.text}"' in prompt]
    assert prompt.count('"text": "case ') == 8  # four of each label
    assert (recipe.verdict.finding, recipe.verdict.n) == ("helps", 40)
    assert recipe.grimoire and recipe.grimoire.text == GUIDE and len(recipe.trials) == 7


def test_near_copies_of_what_a_grimoire_was_written_from_are_chosen_on() -> None:
    _, confirm = cut(rows(100), 0)
    near = [text_id(f"  {row.text.upper()} ") for row in confirm[:3]]
    book = replace(CLUE, provenance=Provenance(text_ids=tuple(near)))
    assert cut(rows(100), 0, [book]).confirm == confirm[3:]


def test_where_a_grimoire_was_written_from_all_confirm_rows_the_warning_says_why() -> None:
    _, confirm = cut(rows(100), 0)
    recipe = learned(writer(only_with_grimoire), grimoires=[written_from(confirm)])
    assert recipe.verdict.n == 0
    assert recipe.verdict.why == "fewer than 6 labelled rows are left that no grimoire was written from"
    assert recipe.warnings == [
        "fewer than 6 labelled rows are left that no grimoire was written from, so only the plainest prompts were "
        "compared and nothing was tested"
    ]


@pytest.mark.parametrize("make", [scorer, writer], ids=["scored", "generated"])
def test_nothing_to_confirm_on_is_looked_at_before_the_choice(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before it all calls are about rows to choose on, after it the two that were chosen meet the others."""
    model = make(only_with_grimoire)
    test = Gate._test

    def marked(self: Gate, *args: Any) -> Any:
        model.calls.append(("choice", ""))
        return test(self, *args)

    monkeypatch.setattr(Gate, "_test", marked)
    learned(model)
    choose, confirm = ({row.text for row in part} for part in cut(rows(100), 0))
    at = model.calls.index(("choice", ""))
    before = [question_of(prompt + "\nai: ") for _, prompt in model.calls[:at]]
    after = [question_of(prompt + "\nai: ") for _, prompt in model.calls[at + 1 :]]
    assert set(before) == choose and max(Counter(before).values()) == 5  # prompts; some are dropped halfway
    assert set(after) == confirm and len(after) == 2 * 40
    shown = "".join(prompt.rpartition("\nhuman: ")[0] for _, prompt in model.calls)
    assert not [text for text in confirm if f"\nhuman: {text}\n" in shown]


def test_the_answers_to_confirm_on_have_no_say_in_the_choice() -> None:
    """All turned round: the same candidates, with the same figures, but no verdict against what the choose rows say."""
    straight, turned = gate(scorer(only_with_grimoire), rows(100)), gate(scorer(only_with_grimoire), rows(100))
    turned.cut = turned.cut._replace(
        confirm=[Example(row.text, LABELS[1 - LABELS.index(row.answer)]) for row in straight.cut.confirm]
    )
    best, other = straight.run(), turned.run()
    assert [(one.candidate.name, one.loss, one.right) for one in straight.judged] == [
        (one.candidate.name, one.loss, one.right) for one in turned.judged
    ]
    assert (best.name, straight.verdict.finding) == ("simple (doors-1) / mean", "helps")
    assert turned.verdict.finding == "no difference shown" and not other.shows_grimoire
    assert turned.verdict.high is not None and turned.verdict.high < 0
    assert (turned.verdict.best_with, turned.verdict.best_without) == (
        straight.verdict.best_with,
        straight.verdict.best_without,
    )


def test_each_row_is_judged_by_a_fit_that_had_not_seen_it() -> None:
    """Scores that know nothing, next to a state of sixty numbers: a fit on the same rows would have them all right."""
    model = Stater(
        think=lambda prompt: dict.fromkeys(LABELS, 1.0),
        feel=lambda prompt: [number(f"{at}{prompt}") / 500 - 1 for at in range(60)],
    )
    found = gate(model, rows(100))
    found.race()
    hidden = [one for one in found.judged if one.candidate.mode == "hidden"]
    assert hidden and all(0.2 < sum(one.right) / len(one.right) < 0.75 for one in hidden)


def test_what_is_clearly_behind_after_half_the_rows_is_asked_no_more() -> None:
    spoilt = Grimoire("doors-9", "doors", "", "", LABELS, "", "The grimoire: it is always left.", Provenance())

    def said(prompt: str) -> str:
        return "left" if "always left" in prompt else knows(prompt)

    model = writer(said)
    recipe = learned(model, grimoires=[CLUE, spoilt])
    dropped = {trial.name: trial for trial in recipe.trials if trial.dropped}
    assert set(dropped) == {"simple (doors-9) / generate", "simple+few-shot (doors-9) / generate"}
    assert all(trial.n == 30 for trial in dropped.values())
    assert len([prompt for prompt in model.asked("reply") if "always left" in prompt]) == 2 * 30
    assert [trial.dropped for trial in recipe.trials] == sorted(trial.dropped for trial in recipe.trials)


def test_of_equal_candidates_none_is_dropped_and_the_cheaper_wins() -> None:
    found = gate(writer(whatever_is_shown), rows(60))
    best = found.run()
    assert not any(one.dropped for one in found.judged)
    assert best.setup.arm == Arm()
    assert min(one.cost for one in found.judged) == next(one.cost for one in found.judged if one.candidate == best)


def test_where_no_reading_is_clearly_better_the_plain_choice_is_taken() -> None:
    """All prompts are as good, and the readings differ by chance alone."""
    found = gate(scorer(whatever_is_shown), rows(60))
    best = found.run()
    assert best.name == "few-shot+blend" and found.verdict.best_with == "simple (doors-1)+blend"
    plain = next(one for one in found.judged if one.candidate == best)
    assert min(one.loss for one in found.judged if not one.candidate.shows_grimoire) < plain.loss


def test_a_reading_that_is_clearly_better_is_taken() -> None:
    assert gate(scorer(only_without), rows(100)).run().name == "zero-shot / mean"


class Narrow(Scorer):
    """Takes prompts of a few words."""

    room: int

    def score_labels(self, prompt: str, labels: Any) -> Any:
        if len(prompt.split()) > self.room:
            raise PromptTooLong(f"The prompt has {len(prompt.split())} tokens; the context holds {self.room}")
        return super().score_labels(prompt, labels)


def narrow(room: int) -> Narrow:
    return Narrow(room=room, think=scorer(only_with_grimoire).think)


def test_a_prompt_that_does_not_fit_is_left_out_and_named() -> None:
    recipe = learned(narrow(50))
    assert recipe.verdict.finding == "helps" and recipe.arm == "simple"
    named = [note.split(" was left out: ")[0] for note in recipe.warnings]
    assert named == ["few-shot", "simple+few-shot (doors-1)"]


def test_where_no_prompt_with_a_grimoire_fits_the_verdict_says_so() -> None:
    recipe = learned(narrow(26))
    assert recipe.verdict.why == "no prompt with a grimoire fits the weak model's context"
    assert recipe.verdict.n == 40 and not recipe.grimoire


class Blinkered(Scorer):
    """Sees no label of some questions, as an Ollama server may."""

    def score_labels(self, prompt: str, labels: Any) -> Any:
        found = super().score_labels(prompt, labels)
        return replace(found, unseen=tuple(labels)) if number("blink" + question_of(prompt), 4) == 0 else found


def test_where_no_label_is_in_sight_there_is_no_answer_as_in_a_solver() -> None:
    found = gate(Blinkered(think=scorer(knows).think), rows(100))
    found.run()
    blind = [number("blink" + row.text, 4) == 0 for row in found.cut.choose]
    scored = [one for one in found.judged if one.candidate.mode == "score"]
    assert 5 < sum(blind) < 30 and scored
    for one in scored:
        assert [label is None for label in one.predictions] == blind
        assert not any(right for right, missing in zip(one.right, blind, strict=True) if missing)


def test_where_no_prompt_fits_learning_says_what_helps() -> None:
    with pytest.raises(InputError, match=r"no prompt fits the weak model's context; give a larger one"):
        learned(narrow(5))


@pytest.mark.parametrize("part", ["choose", "confirm"])
def test_one_row_that_does_not_fit_does_not_end_it_all(part: str) -> None:
    """A text as long as the context counts as wrong, as it would when it is asked."""
    examples = rows(100)
    place = {"choose": 0, "confirm": -1}[part]
    long = cut(examples, 0)[part == "confirm"][place]
    grown = [row if row != long else Example(row.text + " very" * 60, row.answer) for row in examples]
    recipe = learned(narrow(60), examples=grown)
    whole = learned(narrow(60))
    assert recipe.verdict.n == 40 and recipe.verdict.finding == "helps"
    assert recipe.warnings[-1] == (
        "1 of 100 rows do not fit the weak model's context under the prompt that was chosen; they count as wrong"
    )
    taken = {one.name: one for one in recipe.trials}[recipe.verdict.best_with or ""]
    assert taken.n == 60 and recipe.rows == 100 and len(whole.warnings) == len(recipe.warnings) - 1
