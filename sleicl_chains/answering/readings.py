"""How an answer can be read, and what each way looks at."""

from collections.abc import Sequence
from typing import Literal, TypeVar, get_args

from sleicl_chains.errors import OptionError

Mode = Literal["generate", "schema", "score", "hidden", "fusion", "blend"]
"""How an answer is read: from the model's own words, from words held to a JSON schema, from the probabilities of the
labels, from the model's own state, or from probabilities, state and the question's embedding: by one model of all
(`fusion`), or by one of each (`blend`)."""

Prior = Literal["none", "content-free", "domain", "mean", "affine"]
"""What is taken off the label probabilities."""

Block = Literal["scores", "state", "vector"]
"""A kind of evidence: the label probabilities, the model's own state, the question's embedding (no language model)."""

EVIDENCE: tuple[Block, ...] = ("scores", "state", "vector")

GROUPS: dict[Mode, tuple[tuple[Block, ...], ...]] = {
    "score": (("scores",),),
    "hidden": (("state",),),
    "fusion": (EVIDENCE,),
    "blend": (("scores",), ("state",), ("vector",)),
}
"""What a mode looks at, a group for each model that is fitted; the other modes read the model's own words."""


_Name = TypeVar("_Name", bound=str)


def mode_named(name: str) -> Mode:
    """Return the mode of a name.

    Raises:
        OptionError: there is none.
    """
    modes: tuple[Mode, ...] = get_args(Mode)
    return _named("mode", name, modes)


def prior_named(name: str) -> Prior:
    """Return the prior of a name.

    Raises:
        OptionError: there is none.
    """
    priors: tuple[Prior, ...] = get_args(Prior)
    return _named("prior", name, priors)


def _named(what: str, name: str, names: Sequence[_Name]) -> _Name:
    for known in names:
        if known == name:
            return known
    raise OptionError(f"There is no {what} {name!r}; expected one of {', '.join(names)}")


def looks_at(mode: Mode, block: Block) -> bool:
    """Say whether a mode looks at a kind of evidence."""
    return any(block in group for group in GROUPS.get(mode, ()))


def needs_labelled_rows(mode: Mode, prior: Prior) -> bool:
    """Say whether a reading is fitted on answers, not on texts alone."""
    return mode in GROUPS and (mode != "score" or prior == "affine")
