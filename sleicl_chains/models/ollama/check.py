"""What a model of an Ollama server can do, and for each thing that is off how to fix it."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from langchain_core.messages import HumanMessage, SystemMessage

from sleicl_chains.errors import ModelError, ServerError
from sleicl_chains.models.ollama.installed import trained_context
from sleicl_chains.models.ollama.model import OllamaModel
from sleicl_chains.models.ollama.versions import LOGPROBS_SINCE, REFUSES_SINCE, dotted, is_before, untried

_WORDS = " ".join(f"word {number}" for number in range(60))
_SCHEMA = {
    "type": "object", "properties": {"colour": {"enum": ["red", "green"]}},
    "required": ["colour"], "additionalProperties": False,
}  # fmt: skip


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    what: str
    found: Any
    ok: bool = True
    fix: str = ""
    """What to do about it; empty where all is well."""


def check(model: OllamaModel) -> list[Finding]:
    """Look at the server and the model; about six short calls.

    Raises:
        ServerDown: no server answers.
        ModelNotFound: the server has no such model.
    """
    entry = model.server.find(model.model)
    details = entry.get("details") or {}
    head = [
        _version(model),
        Finding("model", f"{model.model} ({entry['digest'][:12]}, {details.get('quantization_level', '?')})"),
        Finding("megabytes", round(entry.get("size", 0) / 1e6)),
    ]
    if "completion" not in (model.shown.get("capabilities") or ["completion"]):
        return [*head, Finding("answers", False, False, "this is an embedding model; use it with --embeddings")]
    looks: list[Callable[[OllamaModel], list[Finding]]] = [_template, _context, _logprobs, _schema, _speed]
    return [*head, *(finding for look in looks for finding in look(model))]


def _version(model: OllamaModel) -> Finding:
    version = model.server.version
    found = f"{dotted(version)} at {model.server.url}"
    if is_before(version, REFUSES_SINCE):
        fix = "before 0.12.6 an over-long prompt is cut without a word; update Ollama"
        return Finding("server", found, False, fix)
    return Finding("server", found, not untried(version), untried(version))


def _template(model: OllamaModel) -> list[Finding]:
    findings = [Finding("template", model.has_template)]
    if not model.has_template:
        fix = "a base model: prompts are sent as text to continue; take an instruct model to chat with"
        findings = [Finding("template", False, False, fix)]
    if model.renders:
        return [*findings, Finding("layout", model.layout)]
    fix = f"the server does not show rendered prompts; embedded:ollama/{model.model} shows and scores them"
    return [*findings, Finding("layout", "not shown", False, fix)]


def _context(model: OllamaModel) -> list[Finding]:
    trained = trained_context(model.shown)
    asked = model.num_ctx or 0
    found = f"{model.context} tokens" + (f" (trained with {trained})" if trained else "")
    if trained and asked > trained:
        return [Finding("context", found, False, f"the server lowers {asked} to it; say --option num_ctx={trained}")]
    return [Finding("context", found)]


def _logprobs(model: OllamaModel) -> list[Finding]:
    if is_before(model.server.version, LOGPROBS_SINCE):
        return [
            Finding("label_probabilities", False, False, f"{model.scoring_problem}; answers are generated and parsed")
        ]
    try:
        model.next_tokens("The sky is")
    except ModelError as problem:
        return [Finding("label_probabilities", False, False, str(problem))]
    return [Finding("label_probabilities", True)]


def _schema(model: OllamaModel) -> list[Finding]:
    """Ask for a colour under a JSON schema."""
    try:
        text = model.invoke([HumanMessage("Is grass red or green? Answer in JSON.")], format=_SCHEMA).text
        works = json.loads(text).get("colour") in ("red", "green")
    except (ModelError, ValueError, AttributeError):
        works = False
    return [Finding("schema", works, works, "" if works else "the server ignored the JSON schema; update Ollama")]


def _speed(model: OllamaModel) -> list[Finding]:
    """Measure one reply to a prompt of about 180 tokens; the system text differs from any cached one."""
    chat = [SystemMessage(f"{model.server.version}{id(model)}"), HumanMessage(f"{_WORDS}\nTell me a story.")]
    try:
        said = model.invoke(chat, options={"num_predict": 32}).response_metadata
    except ServerError:
        raise
    except ModelError as problem:
        return [Finding("answers", False, False, str(problem))]
    return [
        Finding("prompt_tokens_per_second", _rate(said, "prompt_eval")),
        Finding("reply_tokens_per_second", _rate(said, "eval")),
    ]


def _rate(said: dict[str, Any], of: str) -> int | None:
    nanoseconds = said.get(f"{of}_duration")
    return round(said.get(f"{of}_count", 0) / nanoseconds * 1e9) if nanoseconds else None
