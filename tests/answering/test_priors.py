from collections import Counter

import pytest

from sleicl_chains.answering.priors import (
    CONTENT_FREE,
    DOMAIN_TEXTS,
    MEAN_ROWS,
    domain_texts,
    mean_shares,
    prior_texts,
    remove_prior,
    unlabelled_texts,
)
from sleicl_chains.answering.readings import Prior
from sleicl_chains.answering.solver import solver
from sleicl_chains.errors import InputError
from sleicl_chains.tasks.cards import Task
from sleicl_chains.tasks.rows import Example
from tests.support.fake_models import Scorer, question_of


def task_of(*labels: str) -> Task:
    return Task(name="a", description="b", labels=labels)


def rows_of(counts: dict[str, int]) -> list[Example]:
    return [Example(f"{label} {n}", label) for label, count in counts.items() for n in range(count)]


def labels_of(texts: list[str]) -> Counter[str]:
    return Counter(text.split()[0] for text in texts)


# ------------------------------------------------------------------ shares


def test_mean_shares_by_hand() -> None:
    """a: (.8 + .6 + .1) / 3 = .5, b: (.2 + .4 + .9) / 3 = .5; over the first two alone .7 and .3."""
    rows = [{"a": 0.8, "b": 0.2}, {"b": 0.4, "a": 0.6}, {"a": 0.1, "b": 0.9}]
    assert mean_shares(rows) == pytest.approx({"a": 0.5, "b": 0.5})
    assert mean_shares(iter(rows[:2])) == pytest.approx({"a": 0.7, "b": 0.3})


def test_remove_prior_by_hand() -> None:
    """.6 / .8 = .75, .3 / .15 = 2 and .1 / .05 = 2 add up to 4.75: the model's favourite is no longer first."""
    found = remove_prior({"a": 0.6, "b": 0.3, "c": 0.1}, {"a": 0.8, "b": 0.15, "c": 0.05})
    assert found == pytest.approx({"a": 0.75 / 4.75, "b": 2 / 4.75, "c": 2 / 4.75})
    assert sum(found.values()) == pytest.approx(1)


def test_an_even_prior_changes_nothing_whatever_it_adds_up_to() -> None:
    scores = {"a": 0.6, "b": 0.3, "c": 0.1}
    assert remove_prior(scores, dict.fromkeys(scores, 1.0)) == pytest.approx(scores)
    assert remove_prior(scores, dict.fromkeys(scores, 1 / 3)) == pytest.approx(scores)


def test_the_prior_itself_becomes_even() -> None:
    prior = {"a": 0.9, "b": 0.09, "c": 0.01}
    assert remove_prior(prior, prior) == pytest.approx(dict.fromkeys(prior, 1 / 3))


def test_shares_of_nothing_do_not_divide_by_it() -> None:
    assert remove_prior({"a": 0.0, "b": 0.0}, {"a": 0.5, "b": 0.5}) == {"a": 0.0, "b": 0.0}
    assert remove_prior({"a": 0.0, "b": 1.0}, {"a": 0.0, "b": 1.0}) == {"a": 0.0, "b": 1.0}


def test_the_content_free_inputs_are_those_of_the_paper() -> None:
    assert CONTENT_FREE == ("N/A", "", "[MASK]")


# ------------------------------------------------------------------ texts


@pytest.mark.parametrize(
    "n_labels, each, total",
    [(1, 48, 48), (2, 24, 48), (5, 9, 45), (6, 8, 48), (48, 1, 48), (77, 1, 48)],
)
def test_texts_are_balanced_and_at_most_48(n_labels: int, each: int, total: int) -> None:
    labels = [f"label{n}" for n in range(n_labels)]
    texts = prior_texts(rows_of(dict.fromkeys(labels, 60)), task_of(*labels), seed=0)
    assert len(texts) == len(set(texts)) == total <= MEAN_ROWS
    assert set(labels_of(texts).values()) == {each}


def test_a_frequent_label_gives_no_more_than_the_others() -> None:
    texts = prior_texts(rows_of({"a": 500, "b": 30}), task_of("a", "b"), seed=0)
    assert labels_of(texts) == {"a": 24, "b": 24}


def test_a_rare_or_missing_label_gives_what_it_has() -> None:
    assert labels_of(prior_texts(rows_of({"a": 50, "b": 2}), task_of("a", "b", "c"), seed=0)) == {"a": 16, "b": 2}


def test_the_choice_depends_on_the_seed_and_not_on_the_files_order() -> None:
    train = rows_of({"a": 60, "b": 60})
    twins = [Example("A 0", "a"), Example(" a  1", "b"), Example("b 0", "a")]
    chosen = prior_texts([*train, *twins], task_of("a", "b"), seed=1)
    assert prior_texts([*twins, *reversed(train)], task_of("a", "b"), seed=1) == chosen
    assert prior_texts([*train, *twins], task_of("a", "b"), seed=2) != chosen


def test_no_text_is_read_twice() -> None:
    train = [Example(text, "a") for text in ("one", "One", " one\n", "two")]
    assert sorted(text.strip().casefold() for text in prior_texts(train, task_of("a"), seed=0)) == ["one", "two"]


def test_texts_that_the_prompt_shows_are_left_out() -> None:
    train = rows_of({"a": 30, "b": 30})
    shown = [*train[:10], Example("B 0", "b"), Example("b 1", "a")]
    texts = prior_texts(train, task_of("a", "b"), seed=0, shown=iter(shown))
    assert labels_of(texts) == {"a": 20, "b": 24}
    assert not {"b 0", "b 1", *(example.text for example in train[:10])} & set(texts)


def test_texts_that_the_prompt_shows_are_better_than_none() -> None:
    train = rows_of({"a": 3, "b": 2})
    texts = prior_texts(train, task_of("a", "b"), seed=0, shown=train)
    assert sorted(texts) == ["a 0", "a 1", "a 2", "b 0", "b 1"]
    assert prior_texts(train[::-1], task_of("a", "b"), seed=0, shown=train) == texts


# ------------------------------------------------------------------ texts without answers


def test_of_many_texts_without_answers_48_different_ones_are_drawn_by_the_seed() -> None:
    texts = [f"text {n}" for n in range(200)]
    drawn = unlabelled_texts(texts, seed=1)
    assert len(drawn) == len(set(drawn)) == MEAN_ROWS and set(drawn) < set(texts)
    assert unlabelled_texts(texts, seed=1) == drawn != unlabelled_texts(texts, seed=2)
    few = [f"text {n}" for n in range(20)]
    assert sorted(unlabelled_texts([*few, *(text.upper() for text in few)], seed=0)) == sorted(
        text.upper() for text in few
    )


# ------------------------------------------------------------------ texts of random words


def test_random_words_are_as_many_as_a_text_has_and_come_from_all_texts() -> None:
    """(1 + 5) / 2 = 3 words."""
    found = domain_texts(["storm", "sun and sea and sand"], seed=0)
    assert len(found) == DOMAIN_TEXTS == 20
    assert all(len(text.split()) == 3 for text in found)
    assert {word for text in found for word in text.split()} == {"storm", "sun", "and", "sea", "sand"}


def test_a_frequent_word_is_drawn_as_often_as_it_stands_there() -> None:
    words = Counter(" ".join(domain_texts(["rain " * 90 + "sun " * 10], seed=0)).split())
    assert words.total() == 2000 and words["rain"] == pytest.approx(1800, abs=60)


def test_random_words_depend_on_the_seed_and_not_on_the_texts_order() -> None:
    texts = ["one two three", "four five", "six"]
    assert domain_texts(texts, seed=1) == domain_texts(texts[::-1], seed=1) != domain_texts(texts, seed=2)


@pytest.mark.parametrize("texts", [[], [""], [" ", "\n"]])
def test_texts_without_words_are_refused(texts: list[str]) -> None:
    with pytest.raises(InputError, match="The prior 'domain' needs training texts with words"):
        domain_texts(texts, seed=0)


# ------------------------------------------------------------------ each prior at work


@pytest.mark.parametrize(
    ("prior", "asked", "b"),
    [
        ("none", 0, 0.25),
        ("content-free", 3, 3 / 4),  # of (.9, .1): .75 / .9 to .25 / .1 is 5/6 to 5/2
        ("mean", 2, 1 / 2),  # the mean of (.8, .2) and (.7, .3) is (.75, .25), as the question is
        ("domain", 20, 1 / 4),  # random words are (.5, .5)
    ],
)
def test_what_is_taken_off_by_hand(prior: Prior, asked: int, b: float) -> None:
    texts = ["a cold grey sea in winter", "how warm the sand was yesterday"]
    shares = {"N/A": 0.9, "": 0.9, "[MASK]": 0.9, **dict(zip(texts, (0.8, 0.7), strict=True)), "question": 0.75}

    def think(prompt: str) -> dict[str, float]:
        a = shares.get(question_of(prompt), 0.5)
        return {"a": a, "b": 1 - a}

    model = Scorer(think=think)
    said = solver(model, task_of("a", "b"), prior=prior, prior_texts=texts).invoke("question")
    assert len(model.calls) == asked + 1
    assert said.scores["b"] == pytest.approx(b)
