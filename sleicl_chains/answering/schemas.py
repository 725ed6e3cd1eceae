"""Mode `schema`: a reply held to JSON with one of the labels.

It makes every reply valid and none of them right: on SmolLM2 the constrained choice follows the model's
preference among the labels, which mode `score` takes off (benchmarks/LOG.md).
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from langchain_core.language_models import BaseChatModel

from sleicl_chains.errors import RejectedReply, Unsupported
from sleicl_chains.models.abilities import schema_option
from sleicl_chains.models.replies import MORE_WEAK, cut_reply

_KEY = "label"


def held_to_labels(weak: BaseChatModel, labels: Sequence[str]) -> Any:
    """Return the model bound to answer with a JSON object whose one key holds a label.

    Raises:
        Unsupported: the model has no way to hold a reply to a schema that is known here.
    """
    schema = {
        "type": "object", "properties": {_KEY: {"type": "string", "enum": list(labels)}},
        "required": [_KEY], "additionalProperties": False,
    }  # fmt: skip
    option = schema_option(weak, schema)
    if option is not None:
        return weak.bind(**option)
    raise Unsupported(f"{type(weak).__name__} is not known to hold replies to a schema; use mode 'generate'")


def label_of(reply: str, labels: Sequence[str]) -> str | None:
    """Return the label in a JSON reply, or None if it is no such object or names none."""
    try:
        found = json.loads(reply)
    except ValueError:
        return None
    label = found.get(_KEY) if isinstance(found, dict) else None
    return label if label in labels else None


@contextmanager
def refusals_told() -> Iterator[None]:
    """Turn what OpenAI's client raises where a reply held to a schema was cut or withheld into this package's errors.

    Raises:
        CutReply: it was cut.
        RejectedReply: a filter withheld it.
    """
    try:
        yield
    except Exception as problem:  # told by name: the client's package may not be there
        name = type(problem).__name__
        if name == "LengthFinishReasonError":
            told = f"the reply was cut (finish_reason 'length') before it named a label; {MORE_WEAK}"
            raise cut_reply(told) from None
        if name == "ContentFilterFinishReasonError":
            told = "the reply was withheld (finish_reason 'content_filter'); ask in other words"
            raise RejectedReply(told) from None
        raise
