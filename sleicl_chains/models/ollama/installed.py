"""What an Ollama server has, and where on this machine it keeps a model's weights."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sleicl_chains.errors import ModelNotFound, Unsupported
from sleicl_chains.files import open_file
from sleicl_chains.models.ollama.rendering import has_template
from sleicl_chains.models.ollama.server import Server

_FROM = re.compile(r'^FROM\s+"?(.+?)"?\s*$', re.MULTILINE)
_BLOB = re.compile(r"\bsha256[-:]([0-9a-f]{64})$")
_ADAPTER = re.compile(r"^ADAPTER\s", re.MULTILINE)


@dataclass(frozen=True)
class Installed:
    """One model of a server."""

    name: str
    megabytes: int
    parameters: str
    quantization: str
    context: int | None
    """Tokens that the model was trained with."""
    template: bool
    """Whether it knows chats; base models do not."""
    capabilities: tuple[str, ...]
    weights: str
    """SHA-256 of its file of weights; empty where it has several, or none is named."""


def installed_models(server: Server) -> list[Installed]:
    """Return the server's models, by name; one request, and one more a model."""
    return sorted((_described(server, entry) for entry in server.models()), key=lambda found: found.name)


def _described(server: Server, entry: dict[str, Any]) -> Installed:
    shown = server.show(entry["name"])
    details = entry.get("details") or {}
    return Installed(
        name=entry["name"],
        megabytes=round(entry.get("size", 0) / 1e6),
        parameters=details.get("parameter_size") or "",
        quantization=details.get("quantization_level") or "",
        context=trained_context(shown),
        template=has_template(shown),
        capabilities=tuple(shown.get("capabilities") or ()),
        weights=weights_digest(shown),
    )


def trained_context(shown: dict[str, Any]) -> int | None:
    """Return from /api/show the context that a model was trained with."""
    found = [value for key, value in (shown.get("model_info") or {}).items() if key.endswith(".context_length")]
    return int(found[0]) if found else None


def weights_digest(shown: dict[str, Any]) -> str:
    """Return from /api/show the SHA-256 of the one file of weights; empty where there are several, or none is named."""
    modelfile = str(shown.get("modelfile") or "")
    found = [_BLOB.search(path) for path in _FROM.findall(modelfile)]
    alone = len(found) == 1 and not _ADAPTER.search(modelfile)
    return found[0][1] if alone and found[0] else ""


def weights_file(server: Server, name: str) -> Path:
    """Return the GGUF file that a local server holds for a model.

    Raises:
        ServerDown: no server answers.
        ModelNotFound: no such model, or its file cannot be read from here.
        Unsupported: the model is more than one GGUF file of weights.
    """
    wanted = f"embedded:ollama/{name}"
    if not server.address.is_local:
        raise ModelNotFound(
            f"{wanted}: the server {server.url} is on another machine, so its files cannot be opened; use "
            f"ollama:{name}, or copy the GGUF file here and use embedded:PATH.gguf"
        )
    modelfile = str(server.show(name).get("modelfile") or "")
    if _ADAPTER.search(modelfile):
        raise Unsupported(f"{wanted}: the model has an adapter, which the engine would leave out; use ollama:{name}")
    paths = [Path(found) for found in _FROM.findall(modelfile) if Path(found).is_absolute()]
    if len(paths) > 1:
        raise Unsupported(f"{wanted}: the model is {len(paths)} files (it sees pictures?); use ollama:{name}")
    if not paths:
        raise ModelNotFound(f"{wanted}: the server names no file of weights (a cloud model?); use ollama:{name}")
    return _readable(paths[0], wanted, name)


def _readable(path: Path, wanted: str, name: str) -> Path:
    try:
        with open_file(path) as file:
            magic = file.read(4)
    except OSError as problem:
        raise ModelNotFound(
            f"{wanted}: {path} cannot be read ({problem.strerror}). Allow it (`sudo chmod a+r` on the file, a+x on its "
            f"folders), set OLLAMA_MODELS where the server runs in a container, or use ollama:{name}"
        ) from None
    if magic != b"GGUF":
        raise Unsupported(f"{wanted}: its weights are no GGUF file (found {magic!r}); use ollama:{name}")
    return path
