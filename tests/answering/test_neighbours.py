"""The nearest labelled rows, on vectors in the plane."""

import math

from langchain_core.embeddings import Embeddings

from sleicl_chains.answering.neighbours import NEIGHBOURS, Neighbours
from sleicl_chains.answering.solver import solver
from sleicl_chains.tasks.cards import Task
from sleicl_chains.tasks.rows import Example
from tests.support.fake_models import Scorer


class Compass(Embeddings):
    """A text that begins with a number of degrees points there."""

    def __init__(self) -> None:
        self.embedded: list[str] = []

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        self.embedded += texts
        angles = [math.radians(float(text.split()[0])) if text[0].isdigit() else 0.0 for text in texts]
        return [[math.cos(angle), math.sin(angle)] for angle in angles]

    def embed_query(self, text: str) -> list[float]:
        return self.embed_documents([text])[0]


ROWS = [Example(f"{angle} degrees", "east" if angle < 90 else "north") for angle in (0, 20, 45, 70, 90, 110)]


def texts(rows: tuple[Example, ...]) -> list[str]:
    return [row.text for row in rows]


def test_the_nearest_come_and_the_nearest_last() -> None:
    """From 50 degrees: 45 is 5 away, 70 is 20, 20 is 30 and 90 is 40."""
    found = Neighbours(ROWS, Compass())("50")
    assert texts(found) == ["90 degrees", "20 degrees", "70 degrees", "45 degrees"]
    assert len(found) == NEIGHBOURS == 4
    assert [row.answer for row in found] == ["north", "east", "east", "east"]


def test_k_says_how_many_and_fewer_rows_are_all_shown() -> None:
    assert texts(Neighbours(ROWS, Compass(), k=1)("104")) == ["110 degrees"]
    assert texts(Neighbours(ROWS, Compass(), k=2)("2")) == ["20 degrees", "0 degrees"]
    assert texts(Neighbours(ROWS[:2], Compass())("2")) == ["20 degrees", "0 degrees"]


def test_the_length_of_a_vector_does_not_count() -> None:
    class Long(Compass):
        def embed_documents(self, texts: list[str]) -> list[list[float]]:
            return [[x * (1 + n), y * (1 + n)] for n, (x, y) in enumerate(super().embed_documents(texts))]

    assert Neighbours(ROWS, Long())("50") == Neighbours(ROWS, Compass())("50")


def test_a_row_is_never_its_own_neighbour() -> None:
    """Whatever its case and white space: a labelled row is asked as a new question is."""
    twin = Example("70  DEGREES", "north")
    found = Neighbours([*ROWS, twin], Compass())("70 degrees ")
    assert texts(found) == ["20 degrees", "110 degrees", "45 degrees", "90 degrees"]


def test_rows_equally_near_come_in_an_order_of_their_own() -> None:
    """Not in that of the file."""
    same = [Example(f"30 {word}", "east") for word in ("one", "two", "three", "four", "five", "six")]
    found = Neighbours(same, Compass())("30")
    assert Neighbours(same[::-1], Compass())("30") == found
    assert [row.id for row in found] == sorted(row.id for row in same)[:4][::-1]


def test_each_row_is_embedded_once() -> None:
    space = Compass()
    near = Neighbours(ROWS, space)
    assert space.embedded == []
    near("50")
    near("60")
    assert sorted(space.embedded) == sorted([*(row.text for row in ROWS), "50", "60"])


def test_the_arm_knn_shows_them_as_turns_before_the_question() -> None:
    task = Task(name="winds", description="Say where it points.", labels=("east", "north"))
    model = Scorer(think=lambda prompt: {"east": 0.6, "north": 0.4})
    said = solver(model, task, arm="knn", train=ROWS, embeddings=Compass(), prior="none").invoke("50")
    assert (said.label, said.arm) == ("east", "knn")
    (prompt,) = model.asked("score")
    assert prompt.split("\n")[-10:] == [
        "human: 90 degrees", "ai: Answer: north", "human: 20 degrees", "ai: Answer: east", "human: 70 degrees",
        "ai: Answer: east", "human: 45 degrees", "ai: Answer: east", "human: 50", "ai: Answer:",
    ]  # fmt: skip
