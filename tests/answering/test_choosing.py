"""Choosing a grimoire for each question: by similarity, and by a classifier of when the weak model is right."""

import copy
from typing import Any

import numpy as np
import pytest
from langchain_core.embeddings import Embeddings

from sleicl_chains import Example, Grimoire, Task, solver
from sleicl_chains.answering.choosing import chooser, fit
from sleicl_chains.errors import InputError, OptionError
from sleicl_chains.grimoires.grimoire import Provenance
from tests.support.fake_models import Scorer, question_of

LABELS = ("happy", "sad")
RAIN, SUN = "Whoever speaks of rain is happy.", "Whoever speaks of sun is sad."


class Directions(Embeddings):
    """Rain points one way, sun another."""

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [self.embed_query(text) for text in texts]

    def embed_query(self, text: str) -> list[float]:
        return [1.0 + ("rain" in text), 1.0 + ("sun" in text), float(len(text) % 7) / 20]


def guide(name: str, text: str) -> Grimoire:
    return Grimoire(name, "mood", "", "", LABELS, text, "", Provenance())


@pytest.fixture
def task() -> Task:
    return Task(name="mood", task_type="classification", description="How does this person feel?", labels=LABELS)


def weak() -> Scorer:
    """Knows about rain only with the guide to the sun, and the other way round; without the other guide is wrong."""

    def think(prompt: str) -> dict[str, float]:
        right = "happy" if "rain" in question_of(prompt) else "sad"
        wrong = "sad" if right == "happy" else "happy"
        crossed = ("rain" in question_of(prompt)) == (SUN in prompt)
        return {right if crossed else wrong: 0.9}

    return Scorer(think=think)


def rows(n: int) -> list[Example]:
    return [
        Example(f"Day {at}: {what}.", answer) for at in range(n) for what, answer in (("rain", "happy"), ("sun", "sad"))
    ]


def chain(task: Task, weak: Scorer, choose: Any, **given: Any) -> Any:
    both = [guide("rain-1", RAIN), guide("sun-1", SUN)]
    return solver(
        weak, task, arm="profound", grimoires=both, choose=choose, embeddings=Directions(), prior="none", **given
    )


def test_similarity_takes_the_nearest_text(task: Task) -> None:
    said = chain(task, weak(), "similar").batch(["Today: rain.", "Today: sun."])
    assert [one.grimoire for one in said] == ["rain-1", "sun-1"]
    assert [one.label for one in said] == ["sad", "happy"], "the nearest is here the wrong one of the two"


def test_the_classifier_learns_with_which_the_model_is_right(task: Task) -> None:
    model = weak()
    learned = chain(task, model, "classifier", train=rows(12))
    said = learned.batch(["Today: rain.", "Today: sun."])
    assert [(one.grimoire, one.label) for one in said] == [("sun-1", "happy"), ("rain-1", "sad")]
    assert len(model.asked("score")) == 2 * 24 + 2, "each row with each grimoire once, and the two questions"


async def test_without_blocking_and_after_a_copy(task: Task) -> None:
    learned = chain(task, weak(), "classifier", train=rows(12))
    assert (await learned.ainvoke("Today: rain.")).grimoire == "sun-1"
    assert copy.deepcopy(learned).invoke("Today: rain.").grimoire == "sun-1"


def test_where_nothing_can_be_told_the_one_that_was_right_most_often() -> None:
    """Three questions, two grimoires: the second is right twice, the first once; too few for five folds."""
    right = np.array([[True, False], [False, True], [False, True]])
    assert fit(np.zeros((6, 3), dtype=np.float32), right) == 1


def test_settings_tell_choosers_texts_and_rows_apart(task: Task) -> None:
    model = weak()
    chains = [
        chain(task, model, "similar"),
        chain(task, model, "classifier", train=rows(12)),
        chain(task, model, "classifier", train=rows(11)),
        solver(model, task, arm="profound", grimoire=guide("rain-1", RAIN), prior="none"),
    ]
    about = [one.config["metadata"] for one in chains]
    assert len({one["settings"] for one in about}) == 4
    assert [one["arm"] for one in about[:2]] == ["profound of 2, similar", "profound of 2, classifier"]
    assert not model.calls


@pytest.mark.parametrize(
    ("given", "error", "said"),
    [
        ({"choose": "best"}, OptionError, "choose: found 'best'; expected similar or classifier"),
        ({"choose": "classifier"}, InputError, "choose='classifier' learns from labelled rows; none were given"),
        ({"grimoire": guide("one", RAIN)}, InputError, "found both `grimoire` and `grimoires`"),
        ({"arm": "zero-shot"}, InputError, "The arm 'zero-shot' shows no grimoire"),
        ({"arm": "simple"}, InputError, "needs a grimoire with a simple text; rain-1 has none"),
        ({"choose": "classifier", "train": rows(3), "prior": "affine"}, InputError, "which are nearly all right"),
    ],
)
def test_what_does_not_fit_together_is_refused(task: Task, given: Any, error: Any, said: str) -> None:
    both = [guide("rain-1", RAIN), guide("sun-1", SUN)]
    whole = {"arm": "profound", "grimoires": both, "embeddings": Directions()} | given
    with pytest.raises(error, match=said.replace("(", r"\(")):
        solver(weak(), task, **whole)


def test_a_chooser_alone() -> None:
    """Vectors (2, 1), (1, 2) to unit length; the question (2, 1) is nearer to the first."""
    found = chooser("similar", ["rain", "sun"], [], [], Directions())
    assert (found("rain falls"), found("the sun shines")) == (0, 1)
