"""Every error that sleicl_chains raises on purpose.

    SleiclError                 the root: catch this one
    ├── InputError              a task card, a row file or an argument is wrong
    │   └── OptionError         a name or number that an option cannot have
    ├── ModelError              a weak or strong model could not do its work
    │   ├── ModelNotFound       no such model, or its weights are not there
    │   ├── KeyMissing          the provider wants a key, and none is set
    │   ├── PromptTooLong       the prompt does not fit the model's context
    │   ├── PromptLost          the model's template drops a part of the prompt
    │   ├── RejectedReply       empty, cut by length, unclosed thinking: never stored
    │   │   └── CutReply        the reply ended before its end
    │   ├── BudgetExceeded      the strong model cost more tokens than it may
    │   ├── ReplyNeeded         paste:DIR waits for a person to save a reply
    │   ├── ServerError         an Ollama server could not do its part
    │   │   ├── ServerDown      nothing answers at its address
    │   │   ├── ServerBusy      its queue is full (HTTP 503, 429)
    │   │   ├── ServerFailed    the model's process or the connection broke, or memory ran out (HTTP 500, 502)
    │   │   ├── TimedOut        it said nothing for too long
    │   │   └── GarbledReply    something answers, but not as Ollama does
    │   └── Unsupported         the model cannot do what was asked (say, log-probabilities)
    ├── StoreError              the library of grimoires
    │   ├── GrimoireNotFound    no grimoire of that id, or no readable file
    │   └── EmbedderChanged     the index was built with other embeddings
    ├── RecipeMismatch          a recipe is for another model, or a text in it was changed
    ├── RecipeRefused           a recipe names what is not on this machine, and the user did not repeat it
    └── RunError                a run folder belongs to another evaluation

A message says what was wanted, what was found and what helps, on one line. The command line prints
it as it stands and exits with 1, or with 2 for an OptionError.
"""

import re
import reprlib
import warnings
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from pydantic import ValidationError

SHORT = reprlib.Repr()
"""Writes values in complaints: nobody wants a whole book in one line."""
SHORT.maxstring = 80


class InputNote(UserWarning):
    """What was taken where a file or an argument is not plainly what was expected; the command line prints "Note:"."""


class SleiclError(Exception):
    """Root of all errors of this package; a message is kept `bounded`."""

    def __init__(self, message: str = "") -> None:
        super().__init__(bounded(message))


class InputError(SleiclError):
    """A file, row or option of the user's is not what it must be."""


class OptionError(InputError):
    """An argument has a value that does not exist or is out of range."""


class ModelError(SleiclError):
    """A model could not be opened or did not answer."""


class ModelNotFound(ModelError):
    """There is no model of that name."""


class KeyMissing(ModelError):
    """The provider wants a key, and none is set."""


class PromptTooLong(ModelError):
    """The prompt does not fit the context; nothing was cut."""


class PromptLost(ModelError):
    """A part of the prompt would not reach the model."""


class RejectedReply(ModelError):
    """A reply failed its checks and was not accepted."""

    usage: Mapping[str, int] = MappingProxyType({})
    """What it cost all the same, `prompt_tokens` and `reply_tokens`; empty where that is not known."""
    answer: object = None
    """The `Answer` that a solver read in it: for a record, never as an answer."""


class CutReply(RejectedReply):
    """A reply ended before its end."""

    retryable = True
    """Whether the same request may succeed in a moment."""
    begun = False
    """Whether some of the reply had come."""


class BudgetExceeded(ModelError):
    """A strong model has cost, or would cost, more tokens than it may."""


class ReplyNeeded(ModelError):
    """A pasted reply is still missing."""


class ServerError(ModelError):
    """An Ollama server could not do its part."""

    retryable = False
    """Whether the same request may succeed in a moment."""
    begun = False
    """Whether some of the reply had come."""


class ServerDown(ServerError):
    """Nothing answers at the server's address."""

    retryable = True


class ServerBusy(ServerError):
    """The server's queue is full."""

    retryable = True


class ServerFailed(ServerError):
    """The server, the process that runs its model, or the connection broke."""


class TimedOut(ServerError):
    """The server said nothing for too long."""


class GarbledReply(ServerError):
    """What answers does not speak as an Ollama server does."""


class Unsupported(ModelError):
    """The model lacks a capability that was asked for."""


class StoreError(SleiclError):
    """The store of grimoires could not be read or written."""


class GrimoireNotFound(StoreError):
    """There is no such grimoire."""


class EmbedderChanged(StoreError):
    """The index holds vectors of another embedder."""


class RecipeMismatch(SleiclError):
    """A recipe does not hold for what it is used with."""


class RecipeRefused(SleiclError):
    """A recipe names a model, an address or embeddings off this machine that the user did not name too."""


class RunError(SleiclError):
    """A run folder cannot be continued by this evaluation."""


def bounded(message: str) -> str:
    """Return a message of at most 1,500 characters and words of at most 300: a name in it may be a whole book."""
    return _cut(re.sub(r"\S{301,}", lambda word: _cut(word[0], 300), message), 1500)


def _cut(text: str, most: int) -> str:
    """Cut from the middle: what was found stands at the start, what helps at the end."""
    half = most // 2 - 10
    return text if len(text) <= most else f"{text[:half]} [...] {text[-half:]}"


def one_line(problem: Exception) -> str:
    """Return a foreign error's message on one line; its class where it says nothing."""
    return " ".join(str(problem).split()) or type(problem).__name__


class Complaint(NamedTuple):
    """What pydantic found wrong with data from outside, each part short enough for one line."""

    kind: str
    """Pydantic's word for it, such as "missing"."""
    path: tuple[str, ...]
    """Keys and places, from the outside in; empty for the whole."""
    found: str
    wanted: str

    @property
    def where(self) -> str:
        """The path in one word."""
        return ".".join(self.path)

    def __str__(self) -> str:
        """Return it as one line, such as 'labels.0: found 3; Input should be a valid string'."""
        return f"{self.where or 'the whole'}: found {self.found}; {self.wanted}"


def first_complaint(problem: "ValidationError") -> Complaint:
    """Return the first of pydantic's complaints."""
    first = problem.errors(include_url=False)[0]
    path = tuple(f"{part!s:.80}" for part in first["loc"])
    return Complaint(first["type"], path, SHORT.repr(first["input"]), first["msg"].removeprefix("Value error, "))


def note(text: str) -> None:
    """Say what was taken, by an `InputNote`."""
    warnings.warn(text, InputNote, stacklevel=3)
