"""Whether a model can follow a written guide at all: `Reading`, and the ones that are known already.

The test that measures it is `evaluation.reading`. What it found of the packaged weights ships with this package; of
other models it is kept in the user's home folder. Both by the digest of the weights where label probabilities are
exact, so that a model is known under whatever name it is opened.
"""

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any

from langchain_core.language_models import BaseChatModel

from sleicl_chains.errors import InputError, SleiclError
from sleicl_chains.files import Home, read_text, write_whole
from sleicl_chains.hashes import short_hash
from sleicl_chains.models.abilities import name_of, shows_few_tokens, weights_digest
from sleicl_chains.models.identity import identity

MARGIN = 0.10
"""How far above chance the lower end of the interval has to lie; fixed before any model was measured."""


@dataclass(frozen=True)
class Kind:
    """How the questions on guides of one kind were answered."""

    score: float
    """Share of right answers."""
    n: int


@dataclass(frozen=True)
class Reading:
    """How well a model answers by guides whose conventions are made up, in shares of right answers (accuracy)."""

    score: float
    """On plain guides: one code a kind of message."""
    low: float
    """Lower end of its 95% Wilson interval."""
    high: float
    chance: float
    """What guessing gets."""
    n: int
    """Questions that `score` is of."""
    zero_shot: float
    """The same questions without the guide."""
    difference: float
    """`score` less `zero_shot`, on the same questions."""
    difference_low: float
    """Lower end of its 95% interval, a paired bootstrap over the questions."""
    difference_high: float
    mode: str
    """How the answers were read: `score` (label probabilities, no prior removed) or `generate`."""
    test: str
    """Tells the questions asked from those of other versions."""
    kinds: Mapping[str, Kind] = field(default_factory=dict)
    """What is reported but not averaged in: the plain guides in other words, exceptions, "if both, then", reversed
    meanings (where a word in its usual sense is always wrong), a long guide."""

    @property
    def follows_guides(self) -> bool:
        """Whether the model is shown to read: clearly above chance, and above its own answers without the guide."""
        return self.low > self.chance + MARGIN and self.difference_low > 0

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON data, with the verdict."""
        return asdict(self) | {"follows_guides": self.follows_guides}

    @classmethod
    def from_dict(cls, found: Mapping[str, Any]) -> "Reading":
        """Return what `to_dict` gave; the verdict is found anew.

        Raises:
            KeyError, TypeError, ValueError, OverflowError: it is something else.
        """
        kinds = {name: Kind(float(kind["score"]), int(kind["n"])) for name, kind in dict(found["kinds"]).items()}
        numbers = {name: float(found[name]) for name in _NUMBERS}
        return cls(**numbers, n=int(found["n"]), mode=str(found["mode"]), test=str(found["test"]), kinds=kinds)

    def __str__(self) -> str:
        """Say it in one line."""
        verb = "follows" if self.follows_guides else "does not follow"
        return f"{verb} guides ({_short(self.score)}, chance {_short(self.chance)})"


_NUMBERS = "score low high chance zero_shot difference difference_low difference_high".split()


def _short(rate: float) -> str:
    return f"{rate:.2f}".removeprefix("0")


def reading_problem(model: BaseChatModel, home: Home | None = None) -> str:
    """Return the line for a user whose model is known not to read; empty for one that reads or is not known."""
    known = known_reading(model, home)
    return "" if known is None or known.follows_guides else f"{name_of(model)} {known}; a larger model may"


def known_reading(model: BaseChatModel, home: Home | None = None, *, test: str | None = None) -> Reading | None:
    """Return what is known of a model without asking it anything; None where nothing is.

    Args:
        model: looked up by its settings, then by the digest of its weights.
        home: where readings of models that are not shipped lie.
        test: which questions, see `Reading.test`; any by default.
    """
    try:
        keys = [_settings_key(model), weights_digest(model)]
    except (SleiclError, TypeError):  # a server that is down, or no model of a kind that is known
        return None
    known = (reading_of(key, home or Home.at(), test=test) for key in keys if key)
    return next(filter(None, known), None)


def reading_of(key: str, home: Home, *, test: str | None = None) -> Reading | None:
    """Return what is known under a key, such as the digest of a file of weights; the user's own measurement first."""
    for found in (_kept(key, home), _shipped().get(key)):
        with suppress(KeyError, TypeError, ValueError, OverflowError):
            reading = Reading.from_dict(found) if isinstance(found, dict) else None
            if reading and test in (None, reading.test):
                return reading
    return None


def keep_reading(model: BaseChatModel, reading: Reading, home: Home) -> None:
    """Keep what was measured in the home folder.

    Exact probabilities tell how well the weights read, so they are kept under the digest of those. What a model says in
    words, or the few tokens that a server shows, tell of the model as it was opened.

    Raises:
        OSError: the folder cannot be written to.
    """
    exact = reading.mode == "score" and not shows_few_tokens(model)
    key = (weights_digest(model) if exact else "") or _settings_key(model)
    text = json.dumps({"name": name_of(model), **reading.to_dict()}, indent=1)
    write_whole(home.make().readings / f"{key}.json", text + "\n", mode=0o600)


def _settings_key(model: BaseChatModel) -> str:
    return short_hash(json.dumps(identity(model), sort_keys=True))


@cache
def _shipped() -> dict[str, Any]:
    text = (files("sleicl_chains.models") / "readings.json").read_text(encoding="utf-8")
    found: dict[str, Any] = json.loads(text)
    return found


def _kept(key: str, home: Home) -> Any:
    """Return what a home has under a key; None where it has nothing, or a damaged file."""
    with suppress(InputError, ValueError, RecursionError):
        return json.loads(read_text(home.readings / f"{key}.json", "a reading of a model"))
    return None
