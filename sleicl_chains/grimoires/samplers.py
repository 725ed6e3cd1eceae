"""Which examples the strong model sees: the samplers of "Grimoire is All You Need" (arXiv 2401.03385).

Every sampler takes the same number of rows of each label, interleaves the labels, and depends on the
rows' content and the seed alone: not on their order in the file, the process or the machine.
"""

from collections.abc import Sequence
from functools import cached_property, partial
from itertools import zip_longest
from typing import TYPE_CHECKING, Literal, NotRequired, TypedDict, get_args

from sleicl_chains.errors import InputError, OptionError, PromptTooLong, RejectedReply
from sleicl_chains.grimoires.clusters import central, hierarchical, kmeans, most_like
from sleicl_chains.tasks.cards import Task
from sleicl_chains.tasks.labels import fold
from sleicl_chains.tasks.rows import Example
from sleicl_chains.tasks.splits import distinct, shuffled

if TYPE_CHECKING:
    from langchain_core.embeddings import Embeddings
    from langchain_core.runnables import Runnable

    from sleicl_chains.answers import Answer
    from sleicl_chains.grimoires.clusters import Cluster, Vectors
    from sleicl_chains.grimoires.grimoire import Grimoire

SamplerName = Literal["random", "kmeans", "hierarchical", "hard", "similar", "none"]

_MOST_CLUSTERED = 4000  # rows of a label; the memory of agglomerative clustering grows with the square


class SampleInput(TypedDict):
    """What a sampler chooses from."""

    task: Task
    examples: list[Example]
    question: NotRequired[str]
    """For `similar`; without one the task's own text is used."""


def sampler(
    name: SamplerName,
    *,
    per_label: int,
    seed: int,
    embeddings: "Embeddings | None" = None,
    weak: "Runnable[str, Answer] | None" = None,
    ratio: float = 1.0,
    pool_per_label: int = 50,
) -> "Runnable[SampleInput, list[Example]]":
    """Return a runnable that picks examples: one of each label in the card's order, then the next of each.

    Of texts equal after folding case and white space one is kept. A label with fewer rows than asked
    for gives them all; an open-ended task is one group.

    - `random` (RSS): a seeded draw.
    - `kmeans` (KCS): the row nearest to the centre of each k-means cluster of a label, by cosine.
    - `hierarchical` (HCS): the same with agglomerative clusters, average linkage. An outlier tends to
      make a cluster of its own and is then picked. Of more than 4,000 rows of a label a seeded 4,000
      are clustered.
    - `hard` (HSS): rows that the weak model gets wrong zero-shot. The official code also takes replies
      that name no label for hard rows, and the first rows of the file; here neither is so.
    - `similar`: the rows nearest to the question.
    - `none`: no examples (zero-sample).

    Args:
        name: one of the above.
        per_label: rows of each label.
        seed: decides every draw and where k-means starts.
        embeddings: for kmeans, hierarchical and similar; by default `wordllama`, opened when needed.
        weak: for hard; answers a row's text, with the task in view.
        ratio: for hard; the share of hard rows, from 0 to 1. The others are rows that the weak model
            gets right. Each kind makes up for a shortage of the other.
        pool_per_label: for hard; so many rows of each label are drawn and cost one weak call each.

    Raises:
        InputError: a wrong name or number, or `hard` without a weak model; when run, a row with a
            label that the task does not have.
    """
    _check(name, per_label=per_label, ratio=ratio, pool_per_label=pool_per_label)
    if name == "hard" and weak is None:
        raise OptionError("sampler hard: needs a weak model to tell hard rows by; name one with --weak")
    from langchain_core.runnables import RunnableLambda

    space = _Space(embeddings)

    def ranked(rows: list[Example], given: SampleInput) -> list[Example]:
        if name == "kmeans":
            return _typical(rows, space, per_label, partial(kmeans, seed=seed))
        if name == "hierarchical":
            return _typical(rows[:_MOST_CLUSTERED], space, per_label, hierarchical)
        if name == "hard" and weak is not None:
            return _hard(rows[: max(pool_per_label, per_label)], weak, per_label, ratio)
        if name == "similar":
            return _nearest(rows, space, given)
        return rows

    def sample(given: SampleInput) -> list[Example]:
        if name == "none":
            return []
        groups = _by_label(given["task"], distinct(shuffled(given["examples"], seed)))
        # What a sampler leaves out comes after what it chose, in the seeded order.
        picked = [distinct([*ranked(rows, given), *rows])[:per_label] for rows in groups]
        return [row for turn in zip_longest(*picked) for row in turn if row is not None]

    return RunnableLambda(sample, name=f"sampler:{name}")


def _check(name: str, *, per_label: int, ratio: float, pool_per_label: int) -> None:
    if name not in get_args(SamplerName):
        raise OptionError(f"sampler: found {name!r}; expected one of {', '.join(get_args(SamplerName))}")
    if per_label < 1 and name != "none":
        raise OptionError(f"sampler {name}: found {per_label} rows a label; expected at least 1")
    if not 0 <= ratio <= 1:
        raise OptionError(f"sampler {name}: found the ratio {ratio:g}; expected a number from 0 to 1")
    if pool_per_label < 1:
        raise OptionError(f"sampler {name}: found a pool of {pool_per_label} rows a label; expected at least 1")


def _by_label(task: Task, rows: list[Example]) -> list[list[Example]]:
    """Return the rows of each label that has any, in the card's order; all in one group without labels."""
    if not task.labels:
        return [rows] if rows else []
    groups: dict[str, list[Example]] = {label: [] for label in task.labels}
    for row in rows:
        if row.answer not in groups:
            expected = ", ".join(map(repr, task.labels))
            raise InputError(f"sampler: found an example with the label {row.answer!r}; expected one of {expected}")
        groups[row.answer].append(row)
    return [group for group in groups.values() if group]


class _Space:
    """The vectors of rows, each computed once however often the sampler runs."""

    def __init__(self, embeddings: "Embeddings | None") -> None:
        self._given = embeddings
        self._known: dict[str, Vectors] = {}

    @cached_property
    def _embeddings(self) -> "Embeddings":
        from sleicl_chains.models.embedders import embedder

        return embedder() if self._given is None else self._given

    def rows(self, rows: Sequence[Example]) -> "Vectors":
        """Return (n_rows, n_dims), rounded: the last bits differ between processors."""
        import numpy as np

        from sleicl_chains.models.embedders import embed

        new = [row.text for row in rows if row.text not in self._known]
        self._known.update(zip(new, embed(self._embeddings, new).astype(np.float64).round(6), strict=True))
        return np.array([self._known[row.text] for row in rows])

    def question(self, text: str) -> "Vectors":
        """Return (n_dims,)."""
        from sleicl_chains.models.embedders import embed

        vector: Vectors = embed(self._embeddings, [text], as_queries=True)[0].astype(float)
        return vector


def _typical(rows: list[Example], space: _Space, count: int, cluster: "Cluster") -> list[Example]:
    rows = sorted(rows, key=lambda row: row.id)  # the same clusters for every seed, as far as they can be
    return central(rows, space.rows(rows), count, cluster)


def _hard(rows: list[Example], weak: "Runnable[str, Answer]", count: int, ratio: float) -> list[Example]:
    """Return rows by what the weak model made of them: hard and easy in the wanted ratio, then the rest.

    HSS of the paper. Its official code takes replies without a label for hard rows; here they tell nothing.
    """
    # 1. Have the weak model answer each row zero-shot; an error that says nothing of the row ends all.
    hard: list[Example] = []
    easy: list[Example] = []
    unread: list[Example] = []
    answers = weak.batch([row.text for row in rows], return_exceptions=True)
    # 2. Sort the rows by whether the answer is the right one.
    for row, answer in zip(rows, answers, strict=True):
        if isinstance(answer, Exception) and not isinstance(answer, PromptTooLong | RejectedReply):
            raise answer
        if isinstance(answer, Exception) or answer.answer is None:
            unread.append(row)
        else:
            (easy if fold(answer.answer) == fold(row.answer) else hard).append(row)
    # 3. Take the share of hard ones, rounded to the nearest row, and easy ones; each kind makes up for the other.
    wanted = int(ratio * count + 0.5)
    return hard[:wanted] + easy[: count - wanted] + hard[wanted:] + easy[count - wanted :] + unread


def _nearest(rows: list[Example], space: _Space, given: SampleInput) -> list[Example]:
    from sleicl_chains.models.embedders import task_text

    task = given["task"]
    question = given.get("question") or task_text(task.name, task.task_type, task.description, task.labels)
    return [rows[place] for place in most_like(space.rows(rows), space.question(question))]


FEW_SHOT_PER_LABEL = 4
"""Examples a label in the arm `few-shot` where the grimoire has none of its own (the paper's k)."""


def own_examples(grimoires: Sequence["Grimoire"], rows: Sequence[Example]) -> list[Example]:
    """Return the rows that a grimoire was written from, the first whose rows are all there; else none."""
    by_id = {row.id: row for row in rows}
    for grimoire in grimoires:
        own = grimoire.provenance.examples
        if own and all(id in by_id for id in own):
            return [by_id[id] for id in own]
    return []


def typical_examples(
    task: Task,
    rows: Sequence[Example],
    *,
    seed: int,
    per_label: int | None = None,
    embeddings: "Embeddings | None" = None,
) -> list[Example]:
    """Return a few rows of each label, drawn by k-means. Random by `seed` alone.

    Args:
        task: has the labels.
        rows: labelled ones.
        seed: of the k-means.
        per_label: how many; `FEW_SHOT_PER_LABEL` by default.
        embeddings: `wordllama` by default, whatever the answers are read with: with other embeddings no prompt has to
            be asked anew.
    """
    draw = sampler("kmeans", per_label=per_label or FEW_SHOT_PER_LABEL, seed=seed, embeddings=embeddings)
    return draw.invoke({"task": task, "examples": list(rows)})


def few_shot_examples(
    task: Task, rows: Sequence[Example], grimoire: "Grimoire | None", *, seed: int
) -> tuple[list[Example], str]:
    """Return the examples of the few-shot arms and what they are: the grimoire's own where the rows have them."""
    if own := own_examples([grimoire] if grimoire else [], rows):
        return own, "the grimoire's own examples"
    found = typical_examples(task, rows, seed=seed)
    return found, f"{FEW_SHOT_PER_LABEL} k-means examples a label from --train"
