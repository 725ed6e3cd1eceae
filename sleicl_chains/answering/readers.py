"""Readers: how the evidence about one question becomes a probability for each label.

A reader is a few numbers, fitted on training rows alone (`fitting`), that goes into a file as plain JSON.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Protocol

import numpy as np
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from sleicl_chains.answering.evidence import Observation, features, label_shares, log_shares
from sleicl_chains.answering.priors import remove_prior
from sleicl_chains.answering.readings import Block, Mode, looks_at
from sleicl_chains.answering.shares import pooled, softmax
from sleicl_chains.errors import InputError
from sleicl_chains.models.abilities import LabelScores

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

Number = Annotated[float, Field(strict=True, allow_inf_nan=False, ge=-1e6, le=1e6)]
"""Finite, and so far from the largest float that no sum of products of evidence overflows."""
Share = Annotated[float, Field(strict=True, allow_inf_nan=False, ge=0, le=1)]
Scale = Annotated[float, Field(strict=True, allow_inf_nan=False, ge=1e-10, le=1e6)]
"""Divides evidence, so it is not 0."""
_CLOSED = ConfigDict(extra="forbid")


class Reader(Protocol):
    """Turns evidence into shares over the labels that add up to 1."""

    def shares(self, seen: Observation) -> dict[str, float]:
        """Return the probability of each label."""
        ...

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON data that `load_reader` takes."""
        ...


@dataclass(frozen=True)
class PriorReader:
    """Label scores divided by a prior; see `priors`."""

    __pydantic_config__: ClassVar[ConfigDict] = _CLOSED

    prior: Mapping[str, Share]

    def shares(self, seen: Observation) -> dict[str, float]:
        """Return p(label) / prior(label), scaled to add up to 1."""
        return remove_prior(label_shares(seen), self.prior)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON data."""
        return {"kind": "prior", "prior": dict(self.prior)}


@dataclass(frozen=True)
class AffineReader:
    """Label scores under a slope and an offset for each label: softmax(slope * log p + offset).

    "Boosting In-Context Learning in LLMs Through the Lens of Classical Supervised Learning" (arXiv 2505.23783)
    fits such a map on labelled rows and holds it near the identity. Here it is held near the prior
    `mean` instead, which is where it would start without any answers.
    """

    __pydantic_config__: ClassVar[ConfigDict] = _CLOSED

    labels: tuple[str, ...]
    slopes: tuple[Number, ...]
    offsets: tuple[Number, ...]

    def shares(self, seen: Observation) -> dict[str, float]:
        """Return the softmax over the labels."""
        logs = np.array(log_shares(seen, self.labels))
        return softmax(self.labels, logs * np.array(self.slopes) + np.array(self.offsets))

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON data."""
        return {"kind": "affine"} | asdict(self)


@dataclass(frozen=True)
class LinearReader:
    """Multinomial logistic regression on one or several blocks of evidence."""

    __pydantic_config__: ClassVar[ConfigDict] = _CLOSED

    labels: tuple[str, ...]
    """The labels that the training rows have; no other is ever answered."""
    blocks: tuple[Block, ...]
    mean: tuple[Number, ...]
    scale: tuple[Scale, ...]
    """Divides each feature: its spread times the root of its block's size."""
    weights: tuple[tuple[Number, ...], ...]
    """A row a label."""
    offsets: tuple[Number, ...]
    all_labels: tuple[str, ...]
    """The labels of the task, in the card's order."""

    def shares(self, seen: Observation) -> dict[str, float]:
        """Return the model's probabilities; 0 for labels without training rows."""
        row = features([seen], self.blocks, self.all_labels)[0]
        if len(row) != len(self.mean):
            raise InputError(f"the reader reads {len(self.mean)} numbers; the model and the embeddings give {len(row)}")
        logits = np.array(self.weights) @ ((row - np.array(self.mean)) / np.array(self.scale)) + np.array(self.offsets)
        return dict.fromkeys(self.all_labels, 0.0) | softmax(self.labels, logits)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON data, rounded to six digits."""
        return {"kind": "linear"} | {key: _rounded(value) for key, value in asdict(self).items()}


@dataclass(frozen=True)
class BlendReader:
    """A linear reader for each kind of evidence, pooled.

    One model of everything (`fusion`) has to weigh a thousand numbers of one kind against six of another on a hundred
    rows. Here each kind gets the strength that suits it, and no kind can drown another.
    """

    parts: tuple[LinearReader, ...]

    def shares(self, seen: Observation) -> dict[str, float]:
        """Return the pooled shares of the parts."""
        return pooled([part.shares(seen) for part in self.parts])

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON data."""
        return {"kind": "blend", "parts": [part.to_dict() for part in self.parts]}


def load_reader(found: Mapping[str, Any]) -> Reader:
    """Return the reader of `to_dict`.

    Raises:
        InputError: it is none: a key is missing or unknown, a number is none or not a plausible one, or its parts are
            not of one size.
    """
    kinds: dict[str, type[Reader]] = {
        "prior": PriorReader, "affine": AffineReader, "linear": LinearReader, "blend": BlendReader,
    }  # fmt: skip
    kind = kinds.get(str(found.get("kind")))
    try:
        if kind is None:
            raise ValueError(f"unknown kind {found.get('kind')!r:.80}")
        values = {key: value for key, value in found.items() if key != "kind"}
        if kind is BlendReader:
            values["parts"] = [_linear_part(part) for part in values.get("parts", ())]
        reader: Reader = TypeAdapter(kind).validate_python(values)
        _check_sizes(reader)
        return reader
    except (ValueError, TypeError) as problem:
        why = _first(problem) if isinstance(problem, ValidationError) else str(problem)
        raise InputError(f"a fitted reader cannot be read ({why}); expected one of {', '.join(kinds)}") from None


def _first(problem: ValidationError) -> str:
    first = problem.errors()[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg']}, found {first['input']!r:.40}"


def _linear_part(part: Any) -> LinearReader:
    """Return a part of a blend.

    Raises:
        TypeError: it is something else.
        InputError: it is no reader at all.
    """
    reader = load_reader(part) if isinstance(part, Mapping) else None
    if not isinstance(reader, LinearReader):
        raise TypeError("a blend is of linear readers")
    return reader


def _check_sizes(reader: Reader) -> None:
    """Refuse a reader whose parts are not of one size.

    Raises:
        ValueError: they are not.
    """
    if isinstance(reader, BlendReader) and not reader.parts:
        raise ValueError("a blend of no parts")
    if isinstance(reader, AffineReader | LinearReader):
        n = len(reader.labels)
        rows = reader.slopes if isinstance(reader, AffineReader) else reader.weights
        if not n or len(set(reader.labels)) < n or not n == len(rows) == len(reader.offsets):
            raise ValueError(f"{n} labels with {len(rows)} rows of weights and {len(reader.offsets)} offsets")
    if isinstance(reader, LinearReader):
        sizes = {len(reader.mean), len(reader.scale), *map(len, reader.weights)}
        if len(sizes) > 1 or not reader.mean or not reader.blocks or len(set(reader.blocks)) < len(reader.blocks):
            raise ValueError(f"means, scales and weights of {len(sizes)} different sizes, or no kind of evidence")


def check_reader(found: Mapping[str, Any], labels: Sequence[str], mode: Mode, *, vector: int = 0) -> None:
    """Try a reader of `to_dict` out on evidence without content.

    Args:
        found: the data.
        labels: of the task.
        mode: the recipe's.
        vector: how many numbers the embeddings give; 0 if that is not known.

    Raises:
        InputError: it is none, reads what the mode does not look at, or does not give shares over these labels.
    """
    reader = load_reader(found)
    if foreign := [block for block in _read_by(reader) if not looks_at(mode, block)]:
        raise InputError(f"the reader reads the {foreign[0]}, which the mode {mode!r} does not look at")
    sizes = sizes_read(reader, len(labels), vector)
    if vector and sizes.get("vector", vector) != vector:
        raise InputError(f"the reader reads {sizes['vector']} numbers of an embedding; the embeddings give {vector}")
    try:
        said = reader.shares(_empty_evidence(sizes, labels))
        right = set(said) == set(labels) and math.isclose(sum(said.values()), 1, rel_tol=1e-6)
    except (ValueError, LookupError, TypeError, InputError):
        right = False
    if not right:
        raise InputError(f"the reader gives no shares over the labels {', '.join(labels) or '(none)'}")


def _empty_evidence(sizes: Mapping[Block, int], labels: Sequence[str]) -> Observation:
    scores = LabelScores(dict.fromkeys(labels, 1 / max(1, len(labels))), coverage=1.0, prompt_tokens=0, requests=0)
    return Observation(scores, state=[0.0] * sizes.get("state", 0), vector=[0.0] * sizes.get("vector", 0))


def _read_by(reader: Reader) -> Sequence[Block]:
    if isinstance(reader, BlendReader):
        return [block for part in reader.parts for block in part.blocks]
    return reader.blocks if isinstance(reader, LinearReader) else ("scores",)


def sizes_read(reader: Reader, labels: int, vector: int = 0) -> dict[Block, int]:
    """Return how many numbers of the state and of the vector a reader reads.

    Args:
        reader: any.
        labels: how many the task has.
        vector: how long the vector is; one that shares its features with the state is taken for 1 long if it is 0.
    """
    if isinstance(reader, BlendReader):
        return {block: size for part in reader.parts for block, size in sizes_read(part, labels, vector).items()}
    if not isinstance(reader, LinearReader):
        return {}
    rest = len(reader.mean) - labels * ("scores" in reader.blocks)
    if {"state", "vector"} <= set(reader.blocks):
        return {"state": rest - (vector or 1), "vector": vector or 1}
    return {block: rest for block in reader.blocks if block != "scores"}


def _rounded(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_rounded(inner) for inner in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value
