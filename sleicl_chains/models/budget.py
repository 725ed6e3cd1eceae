"""What a strong model may cost over several calls, and the same paid reply under another limit of length."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from sleicl_chains.errors import BudgetExceeded, CutReply
from sleicl_chains.models.abilities import is_journalled
from sleicl_chains.models.tokens import estimate_tokens

if TYPE_CHECKING:  # LangChain's messages take a quarter of a second to load
    from langchain_core.messages import AIMessage, BaseMessage

    from sleicl_chains.models.identity import Model
    from sleicl_chains.models.journal import Journal

_LIMITS = ("max_tokens", "num_predict", "max_output_tokens")
"""Names under which models know the most tokens of a reply."""
_DEFAULTS = (4096, 16_000)
"""Limits that strong models are opened with, see `models.strong_model`."""
_LEAST_REPLY = 200
"""With fewer tokens left nothing is asked: a reply cut so short would be paid for nothing."""


@dataclass
class Budget:
    """Tokens read and written, as the model's server counts them, or estimated where it does not.

    Replies that come from the journal count too: the budget is what the whole may cost. So a command that ended at
    its budget ends there again, at no cost, and with a larger one it goes on.
    """

    most: int | None
    kept: bool
    """Whether there is a journal."""
    spent: int = 0
    limit: int | None = None
    """Of the call that is made now, where the tokens that are left hold it."""

    def held(self, model: "Model", messages: "Sequence[BaseMessage]", journal: "Journal | None") -> "Model":
        """Return the model for one call, held to the tokens that are left where it can be.

        Raises:
            BudgetExceeded: too few are left to ask.
        """
        left = self._left(messages)
        options = limited_to(model, left) if left is not None else {}
        self.limit = left if options else None
        return as_journalled(model, messages, journal, options)

    @contextmanager
    def cuts_told(self) -> Iterator[None]:
        """Say of a reply that was cut where the tokens ended that it was so.

        Raises:
            BudgetExceeded: in the place of a CutReply.
        """
        try:
            yield
        except CutReply:
            if self.limit is None:
                raise
            cut = f"The reply was cut at the {self.limit} tokens left of {self._whole}"
            raise BudgetExceeded(f"{cut}; {self._help}") from None

    def pay(self, messages: "Sequence[BaseMessage]", reply: "AIMessage") -> None:
        """Count a call.

        Raises:
            BudgetExceeded: the calls together cost more than there was.
        """
        used = reply.usage_metadata
        counted = used["total_tokens"] if used else _length(messages) + estimate_tokens(reply.text)
        self.spent += counted
        if self.most is not None and self.spent > self.most:
            raise BudgetExceeded(
                f"The strong model has cost {self.spent} tokens, more than {self._whole}; {self._help}"
            )

    def _left(self, messages: "Sequence[BaseMessage]") -> int | None:
        if self.most is None:
            return None
        left = self.most - self.spent - _length(messages)
        if left < _LEAST_REPLY:
            found = f"{self.spent} tokens are spent and the next prompt has about {_length(messages)}"
            raise BudgetExceeded(f"{found}, which leaves too few of {self._whole} for a reply; {self._help}")
        return left

    @property
    def _whole(self) -> str:
        return f"the budget of {self.most}"

    @property
    def _help(self) -> str:
        paid = " goes on from the replies that the journal keeps" if self.kept else " asks again"
        return f"the same command with a larger --budget{paid}"


def _length(messages: "Sequence[BaseMessage]") -> int:
    return sum(estimate_tokens(message.text) for message in messages)


def limited_to(model: object, tokens: int) -> dict[str, Any]:
    """Return the option of a call that ends its reply at so many tokens.

    It is empty where the model's own limit is no higher, and where it has none of the known names.
    """
    name = next((name for name in _LIMITS if name in getattr(type(model), "model_fields", {})), None)
    own = getattr(model, name) if name else None
    if name is None or (isinstance(own, int) and 0 < own <= tokens):
        return {}
    body = getattr(model, "extra_body", None) or {}
    return {name: tokens} | ({"extra_body": {**body, name: tokens}} if name in body else {})


@dataclass(frozen=True)
class _Limited:
    """A model under other options, which the journal knows by the given identity."""

    model: "Model"
    options: Mapping[str, Any]
    identity: Mapping[str, Any]

    def invoke(self, messages: Any, **options: Any) -> Any:
        return self.model.invoke(messages, **self.options, **options)

    async def ainvoke(self, messages: Any, **options: Any) -> Any:
        return await self.model.ainvoke(messages, **self.options, **options)


def as_journalled(
    model: "Model", messages: "Sequence[BaseMessage]", journal: "Journal | None", options: Mapping[str, Any]
) -> "Model":
    """Return the model, with options, by the identity under which the journal may have its reply already.

    For checks that accept whole replies alone: such a reply is the same under every limit of length. So one that was
    bought under another default limit, or another budget, is not bought again.
    """
    if journal is None or not is_journalled(model):
        return model.bind(**options) if options else model
    from sleicl_chains.models.identity import former_identity, identity, request_of

    own, former = identity(model), former_identity(model)
    for known in (own, *(_relimited(one, limit) for one in (own, former) for limit in _DEFAULTS), former):
        one = cast("Model", _Limited(model, options, known))
        if journal.get(request_of(one, messages, {})):
            return one
    return cast("Model", _Limited(model, options, own))


def _relimited(known: Any, limit: int) -> Any:
    """Return an identity with another limit of length wherever it has one."""
    if isinstance(known, Mapping):
        return {key: limit if key in _LIMITS and item else _relimited(item, limit) for key, item in known.items()}
    return known
