import asyncio
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from langchain_core.embeddings import DeterministicFakeEmbedding, Embeddings
from langchain_core.runnables import Runnable, RunnableLambda

from sleicl_chains.answers import Answer
from sleicl_chains.errors import InputError
from sleicl_chains.grimoires.samplers import SampleInput, SamplerName, sampler
from sleicl_chains.tasks.cards import Task
from sleicl_chains.tasks.rows import Example
from sleicl_chains.tasks.splits import shuffled

TASK = Task(name="mood", description="Which mood is it?", labels=("glad", "sad", "calm"))
ROWS = [Example(f"{label} text number {n}", label) for label in TASK.labels for n in range(9)]
WITHOUT_A_MODEL: list[SamplerName] = ["random", "kmeans", "hierarchical", "similar"]


class Table(Embeddings):
    """Vectors that the test wrote down."""

    def __init__(self, vectors: dict[str, list[float]]) -> None:
        self.vectors = vectors
        self.asked: list[str] = []

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        self.asked += texts
        return [self.vectors[text] for text in texts]

    def embed_query(self, text: str) -> list[float]:
        return self.vectors[text]


def given(examples: list[Example], task: Task = TASK, question: str = "") -> SampleInput:
    return SampleInput(task=task, examples=examples, question=question)


def texts(examples: list[Example]) -> list[str]:
    return [example.text for example in examples]


def says(answers: dict[str, str | None]) -> Runnable[str, Answer]:
    """A weak model that gives these labels; None is a reply that cannot be read."""

    def answer(text: str) -> Answer:
        label = answers[text]
        return Answer(label=label, text=label or "Well, it depends.", valid=label is not None)

    return RunnableLambda(answer)


# ------------------------------------------------------------------ what holds for all


@pytest.mark.parametrize("name", WITHOUT_A_MODEL)
def test_labels_are_balanced_and_interleaved_in_the_cards_order(name: SamplerName) -> None:
    picked = sampler(name, per_label=3, seed=1).invoke(given(ROWS))
    assert [example.answer for example in picked] == ["glad", "sad", "calm"] * 3
    assert len(set(texts(picked))) == 9


@pytest.mark.parametrize("name", WITHOUT_A_MODEL)
def test_the_order_of_the_rows_does_not_matter(name: SamplerName) -> None:
    twins = [Example("Glad TEXT number 1", "sad"), Example("glad  text number 1", "glad")]
    chain = sampler(name, per_label=4, seed=5)
    there = chain.invoke(given([*ROWS, *twins]))
    assert chain.invoke(given([*twins, *reversed(ROWS)])) == there


@pytest.mark.parametrize("name", WITHOUT_A_MODEL)
def test_a_label_with_too_few_rows_gives_them_all(name: SamplerName) -> None:
    rows = [*ROWS[:9], Example("one sad text", "sad")]
    picked = sampler(name, per_label=20, seed=0).invoke(given(rows))
    assert Counter(picked) == Counter(rows)
    assert [example.answer for example in picked] == ["glad", "sad", *["glad"] * 8]


@pytest.mark.parametrize("name", WITHOUT_A_MODEL)
def test_degenerate_rows(name: SamplerName) -> None:
    one = sampler(name, per_label=2, seed=0)
    assert one.invoke(given([])) == []
    assert one.invoke(given(ROWS[:1])) == ROWS[:1]
    # Equal after folding: one row. Nothing is repeated to fill up.
    assert len(one.invoke(given([Example(text, "sad") for text in ("A b", "a  B", "a b ")]))) == 1
    # Different texts with the same vector, since these word vectors know no order: still two rows.
    same = [Example(" ".join(words), "sad") for words in (["a", "b", "a"], ["a", "a", "b"], ["b", "a", "a"])]
    assert len(set(texts(sampler(name, per_label=2, seed=0, embeddings=Same()).invoke(given(same))))) == 2


class Same(Embeddings):
    """Every text has the same vector, and it is zero."""

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [[0.0, 0.0] for _ in texts]

    def embed_query(self, text: str) -> list[float]:
        return [0.0, 0.0]


@pytest.mark.parametrize("name", WITHOUT_A_MODEL)
def test_an_open_ended_task_is_one_group(name: SamplerName) -> None:
    task = Task(name="trivia", description="Answer the question.")
    rows = [Example(f"Which number follows {n}?", str(n + 1)) for n in range(6)]
    picked = sampler(name, per_label=4, seed=0).invoke(given(rows, task))
    assert len(set(picked)) == 4 and set(picked) < set(rows)


def test_none_gives_no_examples_and_asks_for_no_number() -> None:
    assert sampler("none", per_label=0, seed=0).invoke(given(ROWS)) == []


async def test_runs_async_in_batches_and_under_its_name() -> None:
    chain = sampler("random", per_label=1, seed=0)
    assert chain.get_name() == "sampler:random"
    once = chain.invoke(given(ROWS))
    assert await chain.ainvoke(given(ROWS)) == once
    assert await chain.abatch([given(ROWS), given([])]) == [once, []]


CHOICES = """
import json
from sleicl_chains.grimoires.samplers import sampler
from sleicl_chains.tasks.cards import Task
from sleicl_chains.tasks.rows import Example
task = Task(name="mood", description="Which?", labels=("a", "b"))
rows = [Example(f"{word} {n} {n * 7 % 13} times", "ab"[n % 2]) for word in ("red", "far") for n in range(300)]
chains = [sampler(name, per_label=4, seed=3) for name in ("random", "kmeans", "hierarchical", "similar")]
choices = json.dumps([[row.text for row in chain.invoke({"task": task, "examples": rows})] for chain in chains])
"""


def test_the_same_rows_in_every_process_and_on_any_number_of_threads() -> None:
    here: dict[str, str] = {}
    exec(CHOICES, here)
    settings = {"OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "12", "PYTHONPATH": str(Path(__file__).parent.parent.parent)}
    command = [sys.executable, "-c", f"{CHOICES}\nprint(choices)"]
    done = subprocess.run(command, env=os.environ | settings, capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, here["choices"]), done.stderr


# ------------------------------------------------------------------ each one


def test_random_takes_the_first_rows_of_the_seeded_order() -> None:
    expected = [row for row in shuffled(ROWS, 7) if row.answer == "sad"][:3]
    picked = sampler("random", per_label=3, seed=7).invoke(given(ROWS))
    assert [row for row in picked if row.answer == "sad"] == expected
    assert sampler("random", per_label=3, seed=8).invoke(given(ROWS)) != picked


# Two bundles of directions, worked out by hand: the middle of each is its 0-degree member.
BUNDLES = {
    "east": [1.0, 0.0], "east, a bit north": [0.98, 0.2], "east, a bit south": [0.98, -0.2],
    "north": [0.0, 1.0], "north, a bit east": [0.1, 0.99], "north, a bit west": [-0.1, 0.99], "north, too": [0.0, 2.0],
}  # fmt: skip


@pytest.mark.parametrize("name", ["kmeans", "hierarchical"])
def test_clusters_are_stood_for_by_the_row_nearest_to_the_centre(name: SamplerName) -> None:
    """Cosine: "north, too" is twice as long, yet the same direction; of the two one may stand for north."""
    rows = [Example(text, "calm") for text in BUNDLES]
    picked = texts(sampler(name, per_label=2, seed=0, embeddings=Table(BUNDLES)).invoke(given(rows)))
    assert picked[0] in ("north", "north, too"), "the larger cluster comes first"
    assert picked[1] == "east"


@pytest.mark.parametrize("name", ["kmeans", "hierarchical"])
def test_fewer_different_vectors_than_clusters(name: SamplerName) -> None:
    vectors = {f"text {n}": [float(n % 2), 1.0] for n in range(6)}
    rows = [Example(text, "calm") for text in vectors]
    picked = texts(sampler(name, per_label=4, seed=0, embeddings=Table(vectors)).invoke(given(rows)))
    assert len(set(picked)) == 4
    assert {vectors[text][0] for text in picked[:2]} == {0.0, 1.0}, "first one of each vector"


def test_hierarchical_clusters_at_most_four_thousand_rows_of_a_label() -> None:
    vectors = {f"text {n}": [float(n), 1.0] for n in range(4100)}
    table = Table(vectors)
    rows = [Example(text, "calm") for text in vectors]
    assert len(sampler("hierarchical", per_label=3, seed=0, embeddings=table).invoke(given(rows))) == 3
    assert len(table.asked) == 4000


def test_similar_takes_the_nearest_rows_of_each_label() -> None:
    vectors = {
        "question": [1.0, 0.0], "a0": [0.0, 1.0], "a1": [0.6, 0.8], "a2": [0.9, 0.1],
        "b0": [-1.0, 0.0], "b1": [0.5, 0.5], "b2": [0.2, 0.9],
    }  # fmt: skip
    task = Task(name="t", description="d", labels=("b", "a"))
    rows = [Example(text, text[0]) for text in vectors if text != "question"]
    table = Table(vectors)
    chain = sampler("similar", per_label=2, seed=0, embeddings=table)
    assert texts(chain.invoke(given(rows, task, "question"))) == ["b1", "a2", "b2", "a1"]
    assert texts(chain.invoke(given(rows, task, "b0"))) == ["b0", "a0", "b2", "a1"]
    assert len(table.asked) == 6, "rows are embedded once, not once a question"


def test_similar_without_a_question_goes_by_the_task() -> None:
    task = Task(name="weather", description="Will it rain?", labels=("yes", "no"))
    vectors = {"weather\nclassification\nWill it rain?\nyes, no": [1.0, 0.0], "clouds": [0.9, 0.1], "chess": [0.0, 1.0]}
    rows = [Example("chess", "yes"), Example("clouds", "yes")]
    chain = sampler("similar", per_label=1, seed=0, embeddings=Table(vectors))
    assert texts(chain.invoke({"task": task, "examples": rows})) == ["clouds"]


# ------------------------------------------------------------------ hard

CALM = [row for row in ROWS if row.answer == "calm"]
IN_ORDER = texts([row for row in shuffled(ROWS, 2) if row.answer == "calm"])
REPLIES = dict(zip(IN_ORDER, ["calm", None, "sad", "calm", "glad", None, "calm", "sad", "calm"], strict=True))
RIGHT, WRONG, UNREAD = ([IN_ORDER[n] for n in places] for places in ((0, 3, 6, 8), (2, 4, 7), (1, 5)))


@pytest.mark.parametrize(
    ("ratio", "per_label", "expected"),
    [
        (1.0, 2, WRONG[:2]),
        (0.5, 4, WRONG[:2] + RIGHT[:2]),
        (0.5, 3, WRONG[:2] + RIGHT[:1]),  # half a row counts as a hard one
        (0.0, 3, RIGHT[:3]),
        (1.0, 5, WRONG + RIGHT[:2]),  # three hard rows only: easy ones make up for the rest
        (0.0, 5, RIGHT + WRONG[:1]),
        (1.0, 9, WRONG + RIGHT + UNREAD),  # replies that cannot be read come last
    ],
)
def test_hard_mixes_wrong_and_right_rows(ratio: float, per_label: int, expected: list[str]) -> None:
    chain = sampler("hard", per_label=per_label, seed=2, weak=says(REPLIES), ratio=ratio)
    assert texts(chain.invoke(given(CALM))) == expected


def test_hard_is_blind_to_case_and_works_on_open_answers() -> None:
    task = Task(name="capitals", description="Name the capital.")
    rows = [Example("France?", "Paris"), Example("Peru?", "Lima")]
    replies = {"France?": " paris", "Peru?": "Quito"}
    weak: Runnable[str, Answer] = RunnableLambda(lambda text: Answer(label=None, text=replies[text], valid=True))
    chain = sampler("hard", per_label=1, seed=0, weak=weak)
    assert texts(chain.invoke(given(rows, task))) == ["Peru?"]


def test_hard_costs_one_call_for_each_row_of_the_pool() -> None:
    asked: list[str] = []

    def answer(text: str) -> Answer:
        asked.append(text)
        return Answer(label="glad", text="glad", valid=True)

    sampler("hard", per_label=2, seed=2, weak=RunnableLambda(answer), pool_per_label=5).invoke(given(ROWS))
    assert len(asked) == 15
    assert [text for text in asked if text in IN_ORDER] == IN_ORDER[:5], "drawn by the seed from all rows"
    asked.clear()
    sampler("hard", per_label=8, seed=2, weak=RunnableLambda(answer), pool_per_label=5).invoke(given(ROWS))
    assert len(asked) == 24, "never fewer than are wanted"


def test_hard_needs_a_weak_model() -> None:
    with pytest.raises(InputError, match="--weak"):
        sampler("hard", per_label=2, seed=0)


# ------------------------------------------------------------------ complaints


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "best"}, "found 'best'; expected one of random, kmeans, hierarchical, hard, similar, none"),
        ({"per_label": 0}, "found 0 rows a label; expected at least 1"),
        ({"ratio": 1.5}, "found the ratio 1.5; expected a number from 0 to 1"),
        ({"ratio": float("nan")}, "found the ratio nan"),
        ({"pool_per_label": 0}, "found a pool of 0 rows a label"),
    ],
)
def test_wrong_options(options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        sampler(**({"name": "random", "per_label": 1, "seed": 0} | options))  # type: ignore[arg-type]  # on purpose


def test_a_label_that_the_card_lacks() -> None:
    with pytest.raises(
        InputError, match="found an example with the label 'angry'; expected one of 'glad', 'sad', 'calm'"
    ):
        sampler("random", per_label=1, seed=0).invoke(given([Example("grr", "angry")]))


def test_works_with_any_embeddings() -> None:
    chain = sampler("kmeans", per_label=2, seed=0, embeddings=DeterministicFakeEmbedding(size=8))
    assert len(asyncio.run(chain.ainvoke(given(ROWS)))) == 6
