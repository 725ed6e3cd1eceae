"""Mode `schema`: a reply held to JSON with one of the labels.

It makes every reply valid and none of them right: on SmolLM2 the constrained choice follows the model's
preference among the labels, which mode `score` takes off (benchmarks/LOG.md).
"""

import json
from collections.abc import Sequence
from typing import Any

from langchain_core.language_models import BaseChatModel

from sleicl_chains.errors import Unsupported
from sleicl_chains.models.abilities import schema_option

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
