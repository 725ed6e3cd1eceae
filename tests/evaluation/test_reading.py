"""The reading test: what it asks, what counts as reading, and what is kept of it."""

import re
from collections import Counter
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

from sleicl_chains.errors import ModelError, OptionError, PromptTooLong
from sleicl_chains.evaluation.reading import PLAIN, REWORDED, Guide, guides, questions_version, reading
from sleicl_chains.files import Home
from sleicl_chains.models.journal import Journal
from sleicl_chains.models.reading import Kind, known_reading
from tests.support.fake_models import Scorer, Writer, question_of

ALL, PLAINS = 288, 96
"""Questions asked with a guide, and those of them on plain guides in their words, which are asked without it too."""
OWN = 192
"""Questions that are not in other words."""


def plain_guides() -> list[Guide]:
    return [guide for guide in guides() if guide.kind == PLAIN]


def told() -> list[Guide]:
    """Return the guides as they are asked, the plain ones twice."""
    return [*guides(), *(guide.in_other_words for guide in plain_guides())]


@cache
def asked_of() -> dict[str, tuple[Guide, int]]:
    """Return for each question its guide and the number of the right code."""
    return {text: (guide, right) for guide in told() for right, text in guide.questions}


def in_use(prompt: str) -> tuple[Guide, tuple[str, ...], int]:
    guide, right = asked_of()[question_of(prompt)]
    codes = next(codes for codes in guide.codes if f"one of: {', '.join(codes)}." in prompt)
    return guide, codes, right


def knows(prompt: str) -> str:
    """Return the right code, guide or no guide."""
    _, codes, right = in_use(prompt)
    return codes[right]


def says_the_first(prompt: str) -> str:
    return in_use(prompt)[1][0]


def reads(prompt: str) -> str:
    guide, codes, _ = in_use(prompt)
    return knows(prompt) if guide.text.format(*codes) in prompt else says_the_first(prompt)


def scorer(said: Callable[[str], str]) -> Scorer:
    return Scorer(think=lambda prompt: {said(prompt): 0.9})


# ------------------------------------------------------------------ the questions


def test_there_are_twelve_guides_of_these_kinds() -> None:
    kinds = Counter(guide.kind for guide in guides())
    assert kinds == {PLAIN: 6, "exception": 2, "both": 2, "reversed": 1, "long": 1}
    assert len({guide.topic for guide in guides()}) == len({guide.text for guide in guides()}) == 12


def test_each_guide_has_sixteen_questions_four_a_code_and_no_question_stands_twice() -> None:
    for guide in told():
        assert Counter(right for right, _ in guide.questions) == dict.fromkeys(range(4), 4), guide.topic
    assert sum(len(guide.questions) for guide in guides()) == OWN
    texts = {" ".join(re.findall(r"\w+", text.casefold())) for text in asked_of()}
    assert len(texts) == len(asked_of()) == sum(len(guide.questions) for guide in told()) == ALL


def test_each_plain_guide_has_sixteen_more_questions_in_other_words_and_no_other_guide_has() -> None:
    assert [len(guide.reworded) for guide in guides()] == [16 * (guide.kind == PLAIN) for guide in guides()]
    assert REWORDED == "in other words" and sum(len(guide.reworded) for guide in guides()) == PLAINS
    for guide in plain_guides():
        other = guide.in_other_words
        assert (other.kind, other.questions, other.reworded) == (REWORDED, guide.reworded, ())
        assert (other.topic, other.text, other.codes) == (guide.topic, guide.text, guide.codes)


def beginnings(text: str) -> set[str]:
    """Return the first five letters of the words that say something."""
    return {word[:5] for word in re.findall("[a-z]+", text.casefold()) if word not in ENGLISH_STOP_WORDS}


def found_by_words(guide: Guide, right: int, text: str) -> float:
    """Return how likely the right code is for who takes the line that shares most word beginnings with a question."""
    lines = {int(code): beginnings(line) for line in guide.text.splitlines() for code in re.findall(r"{(\d)}", line)}
    assert sorted(lines) == [0, 1, 2, 3]  # a line a code
    shared = {code: len(beginnings(text) & words) for code, words in lines.items()}
    best = [code for code, count in shared.items() if count == max(shared.values())]
    return (right in best) / len(best)


def share_found(asked: Iterable[Guide]) -> float:
    found = [found_by_words(guide, right, text) for guide in asked for right, text in guide.questions]
    assert len(found) == PLAINS
    return sum(found) / len(found)


def test_who_counts_shared_word_beginnings_gets_the_plain_questions_but_not_those_in_other_words() -> None:
    """Chance is .25. For the others the reader has to see what a message is about; docs/situations.md gives both."""
    plain, others = share_found(plain_guides()), share_found(guide.in_other_words for guide in plain_guides())
    assert plain > 0.6 and others < 0.4
    text = (Path(__file__).parents[2] / "docs" / "situations.md").read_text(encoding="utf-8")
    (said,) = [
        sentence for sentence in re.split(r"\.\s", text) if "shared word beginnings" in " ".join(sentence.split())
    ]
    assert [float(figure) for figure in re.findall(r"\.\d\d", said)] == [round(plain, 2), round(others, 2)]


def test_each_guide_names_every_code_and_has_two_sets_of_them() -> None:
    for guide in guides():
        assert [len(set(codes)) for codes in guide.codes] == [4, 4]
        assert {int(found) for found in re.findall(r"{(\d)}", guide.text)} == set(range(4)), guide.topic
        assert guide.text == guide.text.strip()


def test_no_code_stands_in_two_places() -> None:
    codes = [code.casefold() for guide in guides() for found in guide.codes for code in found]
    assert len(codes) == len(set(codes)) == 12 * 2 * 4


def test_no_question_holds_a_code_of_its_guide_or_a_made_up_one() -> None:
    """The reversed guide's are plain words, which others may use."""
    made_up = {
        code.casefold() for guide in guides() if guide.kind != "reversed" for codes in guide.codes for code in codes
    }
    for text, (guide, _) in asked_of().items():
        own = {code.casefold() for codes in guide.codes for code in codes}
        assert not (own | made_up) & set(re.findall(r"\w+", text.casefold())), text
        assert text.casefold() not in guide.text.casefold(), text


def test_questions_do_not_come_in_the_order_of_their_codes() -> None:
    for guide in told():
        rights = [right for right, _ in guide.questions]
        assert rights != sorted(rights) and len(set(rights[:6])) > 1, guide.topic


def test_the_version_is_that_of_the_questions(monkeypatch: pytest.MonkeyPatch) -> None:
    before = questions_version()
    assert re.fullmatch("[0-9a-f]{16}", before)
    monkeypatch.setattr("sleicl_chains.evaluation.reading._text", lambda: "guides = []")
    assert questions_version() != before


# ------------------------------------------------------------------ the score


@pytest.mark.parametrize("make", [scorer, lambda said: Writer(reply=said)], ids=["scored", "in words"])
def test_a_model_that_follows_the_guide_reads(make: Any, home: Home) -> None:
    model = make(reads)
    found = reading(model, home=home)
    assert (found.score, found.zero_shot, found.chance, found.n) == (1.0, 0.25, 0.25, PLAINS)
    assert found.follows_guides and found.difference == 0.75 and found.difference_low > 0.6 and found.low > 0.9
    assert found.kinds == {
        "exception": Kind(1.0, 32), "both": Kind(1.0, 32), "reversed": Kind(1.0, 16), "long": Kind(1.0, 16),
        "in other words": Kind(1.0, 96),
    }  # fmt: skip
    scored = isinstance(model, Scorer)
    assert (found.mode, found.test) == ("score" if scored else "generate", questions_version())
    assert Counter(done for done, _ in model.calls) == {"score" if scored else "reply": ALL + PLAINS}
    assert str(found) == "follows guides (1.00, chance .25)"


def test_one_that_always_says_the_first_code_scores_chance_and_does_not_read(home: Home) -> None:
    found = reading(scorer(says_the_first), home=home)
    assert (found.score, found.zero_shot, found.difference) == (0.25, 0.25, 0.0) and not found.follows_guides
    assert {kind.score for kind in found.kinds.values()} == {0.25} and len(found.kinds) == 5
    assert str(found) == "does not follow guides (.25, chance .25)"


def test_one_that_is_right_without_the_guide_as_well_is_not_shown_to_read(home: Home) -> None:
    found = reading(scorer(knows), home=home)
    assert (found.score, found.zero_shot, found.difference, found.difference_low) == (1.0, 1.0, 0.0, 0.0)
    assert found.low > found.chance + 0.1 and not found.follows_guides


def test_questions_in_other_words_are_told_beside_and_decide_nothing(home: Home) -> None:
    def only(kind: str) -> Scorer:
        return scorer(lambda prompt: reads(prompt) if in_use(prompt)[0].kind == kind else says_the_first(prompt))

    found = reading(only(PLAIN), home=home)
    assert (found.score, found.n, found.kinds[REWORDED]) == (1.0, PLAINS, Kind(0.25, PLAINS)) and found.follows_guides
    found = reading(only(REWORDED), home=home, again=True)
    assert (found.score, found.kinds[REWORDED]) == (0.25, Kind(1.0, PLAINS)) and not found.follows_guides
    assert found.zero_shot == found.score and found.difference == 0.0


def test_the_prompts_show_the_guide_and_then_leave_it_out(home: Home) -> None:
    model = scorer(reads)
    reading(model, home=home)
    with_guide = [in_use(prompt)[0].text.format(*in_use(prompt)[1]) in prompt for prompt in model.asked("score")]
    assert with_guide == [True] * ALL + [False] * PLAINS
    without = model.asked("score")[ALL:]
    assert {in_use(prompt)[0].kind for prompt in without} == {PLAIN}
    kinds = Counter(in_use(prompt)[0].kind for prompt in model.asked("score")[:ALL])
    assert (kinds[PLAIN], kinds[REWORDED]) == (PLAINS, PLAINS)
    assert not [prompt for prompt in without if " is for messages about " in prompt]


def test_a_prompt_too_long_is_an_error_and_nothing_is_kept(home: Home) -> None:
    """The context that the model was opened with is too small; that says nothing of its reading."""
    first = guides()[0].questions[0][1]

    def too_long(prompt: str) -> dict[str, float]:
        if question_of(prompt) == first:
            raise PromptTooLong("The prompt has 9 tokens; the context holds 8.")
        return {reads(prompt): 0.9}

    model = Scorer(think=too_long)
    with pytest.raises(PromptTooLong, match="The prompt has 9 tokens"):
        reading(model, home=home)
    assert not home.readings.exists() and known_reading(model, home) is None


def test_an_empty_reply_is_a_wrong_answer_and_no_error(home: Home) -> None:
    first = guides()[0].questions[0][1]
    silent = Writer(reply=lambda prompt: "" if question_of(prompt) == first else reads(prompt))
    found = reading(silent, home=home)
    assert (found.score, found.n) == (95 / 96, PLAINS) and found.follows_guides


def test_words_that_name_no_code_are_wrong_answers(home: Home) -> None:
    found = reading(Writer(reply=lambda prompt: "That one is hard to say."), home=home)
    assert (found.score, found.zero_shot, found.mode) == (0.0, 0.0, "generate") and not found.follows_guides


def test_any_other_failure_is_raised_and_nothing_is_kept(home: Home) -> None:
    def gone(prompt: str) -> dict[str, float]:
        raise ModelError("the server is gone")

    with pytest.raises(ModelError, match="the server is gone"):
        reading(Scorer(think=gone), home=home)
    assert not home.readings.exists()


def test_progress_adds_up(home: Home) -> None:
    told: list[tuple[str, int, int]] = []
    reading(scorer(reads), home=home, progress=lambda *one: told.append(one))
    assert [done for _, done, _ in told] == list(range(1, ALL + PLAINS + 1))
    assert {total for _, _, total in told} == {ALL + PLAINS}
    assert [what for what, _, _ in told] == ["with the guide"] * ALL + ["without"] * PLAINS


# ------------------------------------------------------------------ what is kept


def test_a_known_reading_is_not_measured_again_unless_that_is_wanted(home: Home) -> None:
    found = reading(scorer(reads), home=home)
    other = scorer(says_the_first)  # it has the same identity
    assert reading(other, home=home) == found == known_reading(other, home) and other.calls == []
    measured = reading(other, home=home, again=True)
    assert measured.score == 0.25 and len(other.calls) == ALL + PLAINS
    assert known_reading(other, home) == measured


def test_again_counts_though_a_reading_ships(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    class Weighed(Scorer):
        weights_digest: str = "d" * 64

    shipped = reading(scorer(reads), home=home)
    monkeypatch.setattr("sleicl_chains.models.reading._shipped", lambda: {"d" * 64: shipped.to_dict()})
    model, place = Weighed(think=lambda prompt: {says_the_first(prompt): 0.9}), Home(home.root / "another")
    assert reading(model, home=place) == shipped and model.calls == []
    measured = reading(model, home=place, again=True)
    assert measured.score == 0.25 and reading(model, home=place) == known_reading(model, place) == measured
    assert len(model.calls) == ALL + PLAINS


def test_what_is_known_of_other_questions_is_measured_anew(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    before = reading(scorer(reads), home=home)
    monkeypatch.setattr("sleicl_chains.evaluation.reading.questions_version", lambda: "0" * 16)
    model = scorer(says_the_first)
    assert known_reading(model, home) == before
    found = reading(model, home=home)
    assert (found.score, found.test) == (0.25, "0" * 16) and known_reading(model, home) == found


def test_what_the_second_set_of_codes_gives_is_not_kept(home: Home) -> None:
    model = scorer(reads)
    found = reading(model, home=home, codes=1)
    assert found.score == 1.0 and not home.readings.exists() and known_reading(model, home) is None
    assert {in_use(prompt)[1] for prompt in model.asked("score")} == {guide.codes[1] for guide in guides()}
    assert reading(model, home=home).score == 1.0 and len(model.calls) == 2 * (ALL + PLAINS)
    assert reading(scorer(says_the_first), home=home, codes=1).score == 0.25  # and what is known is not told for it


@pytest.mark.parametrize("codes", [-1, 2])
def test_another_set_of_codes_is_refused(codes: int, home: Home) -> None:
    with pytest.raises(OptionError, match=f"codes: found {codes}; expected 0 or 1"):
        reading(scorer(reads), home=home, codes=codes)


def test_a_home_that_cannot_be_written_to_only_forgets(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("in the way")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "readings").write_text("in the way")
    for home in (Home(tmp_path / "home"), Home(tmp_path / "other")):
        model = scorer(reads)
        assert reading(model, home=home).follows_guides and reading(model, home=home).follows_guides
        assert len(model.calls) == 2 * (ALL + PLAINS) and known_reading(model, home) is None


def test_a_test_that_was_stopped_goes_on_from_the_journal(home: Home) -> None:
    def stops(prompt: str) -> dict[str, float]:
        if len(stopped.calls) > 20:
            raise ModelError("the server is gone")
        return {reads(prompt): 0.9}

    stopped, model, journal = Scorer(think=stops), scorer(reads), Journal(home.make().journal)
    with pytest.raises(ModelError):
        reading(stopped, home=home, journal=journal)
    found = reading(model, home=home, journal=journal)
    assert found.score == 1.0 and len(model.calls) == ALL + PLAINS - 20
    assert not {prompt for _, prompt in stopped.calls[:20]} & {prompt for _, prompt in model.calls}
