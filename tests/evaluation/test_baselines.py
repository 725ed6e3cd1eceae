import pytest
from langchain_core.embeddings import Embeddings
from langchain_core.runnables import Runnable

from sleicl_chains.answers import Answer
from sleicl_chains.errors import InputError
from sleicl_chains.evaluation.baselines import majority, probe
from sleicl_chains.evaluation.settings import settings_of
from sleicl_chains.tasks.cards import Task
from sleicl_chains.tasks.rows import Example

TASK = Task(name="colours", description="Which colour?", labels=("red", "green", "blue"))
OPEN = Task(name="open", description="Answer.")


class Words(Embeddings):
    """Counts how often each of some words stands in a text."""

    def __init__(self, *words: str) -> None:
        self.words = words
        self.texts: list[str] = []

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        self.texts += texts
        return [[float(text.split().count(word)) for word in self.words] for text in texts]

    def embed_query(self, text: str) -> list[float]:
        return self.embed_documents([text])[0]


def rows_of(counts: dict[str, int]) -> list[Example]:
    return [Example(f"{label} thing {n}", label) for label, count in counts.items() for n in range(count)]


def right(chain: Runnable[str, Answer], rows: list[Example]) -> int:
    return sum(chain.invoke(row.text).label == row.answer for row in rows)


def test_majority_says_the_most_frequent_answer_of_train_whatever_is_asked() -> None:
    chain = majority(TASK, rows_of({"green": 2, "blue": 3}))
    said = Answer(label="blue", text="blue", valid=True, arm="majority", mode="none")
    assert chain.batch(["What is red?", ""]) == [said, said]


@pytest.mark.parametrize(
    "task, answers, top",
    [
        (TASK, ["blue", "green", "blue", "green"], "green"),  # the card names it first
        (TASK, ["green", "red", "blue"], "red"),
        (OPEN, ["two", "one", "two", "one", "three"], "one"),  # by the alphabet
        (OPEN, ["b"], "b"),
    ],
)
def test_ties_do_not_depend_on_the_order_of_the_rows(task: Task, answers: list[str], top: str) -> None:
    for order in (answers, answers[::-1]):
        said = majority(task, [Example(f"text {n}", answer) for n, answer in enumerate(order)]).invoke("?")
        assert (said.answer, said.label) == (top, top if task.labels else None)


def test_probe_beats_majority_where_the_vectors_tell_the_labels_apart() -> None:
    train, test = rows_of({"red": 8, "green": 6, "blue": 4}), rows_of({"red": 12, "green": 12, "blue": 12})[1::2]
    assert right(probe(TASK, train, Words("red", "green", "blue", "thing")), test) == 18
    assert right(majority(TASK, train), test) == 6


def test_probe_scores_every_label_in_the_cards_order() -> None:
    answer = probe(TASK, rows_of({"blue": 4, "red": 4}), Words("red", "green", "blue")).invoke("a blue thing")
    assert (answer.label, answer.text, answer.valid, answer.arm) == ("blue", "blue", True, "probe")
    assert list(answer.scores) == ["red", "green", "blue"]
    assert answer.scores["green"] == 0.0  # train has none
    assert sum(answer.scores.values()) == pytest.approx(1)
    assert answer.probability == answer.scores["blue"] > 0.5


def test_probe_of_one_label_knows_no_other() -> None:
    answer = probe(TASK, rows_of({"green": 3}), Words("red")).invoke("a red thing")
    assert (answer.label, answer.probability, answer.scores) == ("green", 1.0, {"red": 0.0, "green": 1.0, "blue": 0.0})


@pytest.mark.parametrize("counts", [{"red": 1, "green": 1, "blue": 1}, {"red": 5, "green": 5, "blue": 1}])
def test_probe_does_with_one_row_a_label(counts: dict[str, int]) -> None:
    chain = probe(TASK, rows_of(counts), Words("red", "green", "blue"))
    assert right(chain, rows_of({"red": 3, "green": 3, "blue": 3})) == 9


def test_probe_is_fitted_at_the_first_question_and_once() -> None:
    train, vectors = rows_of({"red": 2, "blue": 2}), Words("red", "blue")
    chain = probe(TASK, train, vectors)
    assert not {row.text for row in train} & set(vectors.texts)
    chain.invoke("red")
    chain.invoke("blue")
    asked = [text for text in vectors.texts if "thing" in text]
    assert sorted(asked) == sorted(row.text for row in train)


def test_probe_does_not_depend_on_the_order_of_its_rows() -> None:
    train = rows_of({"red": 7, "green": 5, "blue": 6})
    answers = [probe(TASK, rows, Words("red", "green")).invoke("a red thing") for rows in (train, train[::-1])]
    assert answers[0].scores == answers[1].scores


def test_probe_is_the_same_each_time() -> None:
    train = rows_of({"red": 3, "green": 2, "blue": 2})
    first, second = (probe(TASK, train, Words("red", "green", "thing")) for _ in range(2))
    assert first.invoke("a green red thing").scores == second.invoke("a green red thing").scores


def test_settings_tell_what_was_learned_from() -> None:
    train, vectors = rows_of({"red": 2, "blue": 1}), Words("red", "blue")
    assert settings_of(probe(TASK, train, vectors)) != settings_of(probe(TASK, train[:2], vectors))
    assert settings_of(probe(TASK, train, vectors)) != settings_of(probe(TASK, train, Words("a", "grimoire", "holds")))
    assert settings_of(majority(TASK, train)) == settings_of(majority(TASK, train[:2]))
    assert settings_of(majority(TASK, train)) != settings_of(majority(TASK, train[2:]))


def test_what_cannot_be_learned_is_one_plain_line() -> None:
    with pytest.raises(InputError) as caught:
        majority(TASK, [])
    assert str(caught.value) == "The arm 'majority' learns from training rows; give some with --train"
    with pytest.raises(InputError) as caught:
        probe(TASK, [], Words("red"))
    assert str(caught.value) == "The arm 'probe' learns from training rows; give some with --train"
    with pytest.raises(InputError) as caught:
        probe(OPEN, rows_of({"red": 2}), Words("red"))
    assert str(caught.value) == (
        "The arm 'probe' needs a task with labels; leave it out of --arms for an open-ended task"
    )
