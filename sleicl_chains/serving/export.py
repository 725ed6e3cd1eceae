"""A recipe as a model of an Ollama server, which every client of it can use.

The grimoire and the examples go into the model as messages. Its system text would be dropped as soon as a client sends
one of its own; messages stay, and the client's come after them.
"""

import json
import re
import warnings
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from sleicl_chains.answering.observer import Observer
from sleicl_chains.answering.recipes import Recipe
from sleicl_chains.answering.steps import Solver
from sleicl_chains.errors import InputError, ModelNotFound, OptionError, PromptLost, PromptTooLong, Unsupported
from sleicl_chains.files import Home, parse_json, read_text, write_whole
from sleicl_chains.models.layouts import STOP
from sleicl_chains.models.ollama.installed import trained_context, weights_digest
from sleicl_chains.models.ollama.options import ALIASES, LOADING, SAMPLING
from sleicl_chains.models.ollama.rendering import lay_out
from sleicl_chains.models.ollama.server import Server
from sleicl_chains.tasks.rows import Example

if TYPE_CHECKING:
    from sleicl_chains.models.ollama.model import OllamaModel

_ROLES = {"system": "system", "human": "user", "ai": "assistant"}
_MARK = "sleicl-question-goes-here"
_ROOM = 256
"""Tokens that must be left for a question and its reply."""
_NAME = re.compile(
    r"(?:[a-z0-9_][a-z0-9_.-]{0,79}/)?[a-z0-9_][a-z0-9_.-]{0,79}(?::[a-z0-9_][a-z0-9_.-]{0,79})?", re.I | re.A
)

TEMPLATE = (
    '{{ range .Messages }}{{ if eq .Role "user" }}Text: {{ .Content }}\n'
    'Answer:{{ else if eq .Role "assistant" }} {{ .Content }}\n'
    "\n"
    "{{ else }}{{ .Content }}\n"
    "\n"
    "{{ end }}{{ end }}"
)
"""For a base model, which has none: blocks of question and answer, as `models.layouts` writes them."""


@dataclass(frozen=True)
class Exported:
    """What makes the model."""

    base: str
    """The model whose weights it has."""
    messages: tuple[tuple[str, str], ...]
    """Role and text of what stands before every question."""
    parameters: dict[str, Any]
    template: str = ""
    """Empty for that of the base."""
    weights: str = ""
    """SHA-256 of the base's file of weights, where nothing else of the base is to be taken over."""

    def request(self, name: str) -> dict[str, Any]:
        """Return the body of /api/create."""
        messages = [{"role": role, "content": text} for role, text in self.messages]
        source = {"files": {"weights.gguf": f"sha256:{self.weights}"}} if self.weights else {"from": self.base}
        told = {"model": name, **source, "messages": messages, "parameters": self.parameters, "stream": False}
        return told | ({"template": self.template} if self.template else {})

    def modelfile(self) -> str:
        """Return the same for `ollama create NAME -f FILE`.

        Raises:
            Unsupported: a text cannot be written there, or the base has a system text, which would come along.
        """
        if self.weights:
            raise Unsupported(
                f"{self.base} has a system text of its own, which no Modelfile takes away; `sleicl export ollama` does"
            )
        lines = [f"FROM {self.base}"]
        lines += [f"TEMPLATE {_quoted(self.template)}"] if self.template else []
        for name, value in self.parameters.items():
            for one in value if isinstance(value, list) else [value]:
                lines.append(f"PARAMETER {name} {_quoted(one) if isinstance(one, str) else json.dumps(one)}")
        lines += [f"MESSAGE {role} {_quoted(text)}" for role, text in self.messages]
        return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    """Quote a text: it ends at the first line that ends in three quotes, and nothing within can be escaped."""
    if any(line.rstrip().endswith('"""') for line in re.split("[\r\n]", text)[:-1]):
        raise Unsupported(
            'A line of the grimoire or of an example ends in """, where a Modelfile would end the text; '
            "`sleicl export ollama` has no such limit"
        )
    return f'"""{text}"""'


def in_words(recipe: Recipe, weak: "OllamaModel") -> Solver:
    """Return the solver that shows what a recipe shows, and whose model answers in words.

    Raises:
        Unsupported: the recipe shows other examples before each question.
    """
    if recipe.shown.examples == "knn":
        raise Unsupported(
            "The recipe shows the rows nearest to each question, so no fixed text stands before all of them; a recipe "
            "with few-shot or a grimoire can be exported"
        )
    rows = tuple(Example(shown.text, shown.answer) for shown in recipe.examples)
    return Solver(Observer(weak, recipe.task, recipe.shown, recipe.shown_grimoire(), rows), "generate")


def exported(recipe: Recipe, weak: "OllamaModel") -> Exported:
    """Return what makes a recipe's model. The server is asked how the weights take a chat.

    Raises:
        Unsupported: the recipe has no fixed text, or there is no way to give it to these weights.
    """
    messages = in_words(recipe, weak).messages(_MARK)
    parameters = {name: value for name, value in weak.settings.items() if name in (*LOADING, *SAMPLING)}
    if weak.layout == "completion":
        # The template writes "Text:" and "Answer:".
        texts = [one.text.removeprefix("Text: ").removeprefix("Answer: ").strip() for one in messages]
        fixed = [(_ROLES[one.type], text) for one, text in zip(messages, texts, strict=True)][:-2]
        return _without_system(Exported(weak.model, tuple(fixed), {**parameters, "stop": [STOP]}, TEMPLATE), weak)
    laid = lay_out(messages, weak.layout)
    if laid[-1].text != _MARK:
        raise Unsupported(
            f"{weak.model_name}: its template knows no system message, and there is no example to put the task into; "
            "take a recipe with few-shot, or other weights (--from)"
        )
    return _without_system(
        Exported(weak.model, tuple((_ROLES[one.type], one.text) for one in laid[:-1]), parameters), weak
    )


def _without_system(found: Exported, weak: "OllamaModel") -> Exported:
    """Leave out a system text of the base, which the server would put before the grimoire."""
    shown = weak.shown
    if not shown.get("system") or not (weights := weights_digest(shown)):
        return found
    own = {**_parameters(str(shown.get("parameters") or "")), **found.parameters}
    return replace(found, weights=weights, parameters=own, template=found.template or str(shown.get("template") or ""))


def _parameters(text: str) -> dict[str, Any]:
    """Return parameters as /api/show writes them, one a line."""
    found: dict[str, Any] = {}
    for name, value in (line.split(None, 1) for line in text.splitlines() if len(line.split(None, 1)) == 2):
        try:
            read = json.loads(value)
        except ValueError:
            read = value
        found[name] = [*found.get(name, []), read] if name == "stop" else read
    return found


def base_of(recipe: Recipe, server: Server) -> str:
    """Return the name of the recipe's model on a server; of an embedded one, that of the same weights.

    Raises:
        ModelNotFound: the server does not have it.
    """
    if recipe.weak.startswith("ollama:"):
        name = recipe.weak.removeprefix("ollama:")
        if server.find(name)["digest"] != recipe.model.get("weights"):
            warnings.warn(f"{name} has other weights now than those that the recipe was learned with", stacklevel=2)
        return name
    wanted = recipe.model.get("weights")
    for entry in server.models() if wanted else []:
        shown = server.show(entry["name"])
        if weights_digest(shown) == wanted and not shown.get("messages"):  # else it was made from the one wanted
            return str(entry["name"])
    has = ", ".join(str(entry["name"]) for entry in server.models()) or "no model yet"
    raise ModelNotFound(
        f"The recipe was learned for {recipe.weak}, whose weights are not on the Ollama server at {server.url}. Name "
        f"the model to build on with --from. It has: {has}"
    )


def options_for_ollama(recipe: Recipe) -> dict[str, Any]:
    """Return those of the recipe's options that an Ollama model has."""
    known = (*LOADING, *SAMPLING, *ALIASES)
    return {name: value for name, value in recipe.options.items() if name in known}


def check_name(name: str) -> None:
    """Refuse a name that Ollama does not take.

    Raises:
        OptionError: it is none.
    """
    if not _NAME.fullmatch(name):
        raise OptionError(
            f"{name!r} is no name of an Ollama model; expected letters, digits, _, . and -, at most 80, such as desk "
            "or me/desk:v2"
        )


@dataclass(frozen=True)
class Created:
    """A model that was made."""

    name: str
    base: str
    messages: int
    prompt_tokens: int
    """What stands before every question, and a question mark."""
    context: int
    template: bool
    """Whether it was given a template, for want of its own."""
    same_prompt: bool
    """Whether the server makes of it the very prompt that the solver sends."""


def prompt_tokens(recipe: Recipe, weak: "OllamaModel") -> int:
    """Return the length of what stands before every question, as the model counts it; one call.

    Raises:
        PromptTooLong: it leaves too little room, for which a server would silently cut its beginning.
    """
    largest = trained_context(weak.shown) or weak.context
    found = weak.next_tokens(weak.render(in_words(recipe, weak).messages("?"))).prompt_tokens
    needed = found + max(weak.num_predict or 0, 0) + _ROOM
    if needed > weak.context:
        wanted = -(-needed // 1024) * 1024
        mend = f"give --option num_ctx={wanted}" if wanted <= largest else f"the model was trained with {largest}"
        raise PromptTooLong(
            f"What stands before every question takes {found} of {weak.context} tokens, which leaves too little for "
            f"question and reply; {mend}"
        )
    return found


def create(recipe: Recipe, weak: "OllamaModel", name: str, *, home: Home, force: bool = False) -> Created:
    """Make an Ollama model of a recipe, and compare its prompt with the solver's.

    Costs one call of the model, to count tokens.

    Args:
        recipe: its training rows go into the model, where whoever has it can read them.
        weak: the model to build on.
        name: of the new one.
        home: remembers which models were made here.
        force: whether a model of that name that was not made here is replaced.

    Raises:
        OptionError: Ollama takes no such name.
        InputError: there is such a model, and it was not made here, or was changed since.
        Unsupported: the recipe cannot be exported to this model.
        PromptTooLong: the text before the question leaves too little room.
    """
    check_name(name)
    if _digest(weak.server, name) == weak.server.find(weak.model)["digest"]:
        raise InputError(f"{name!r} is the model to build on; give the new one another name")
    if not force:
        _refuse_foreign(weak.server, name, home)
    found, tokens = exported(recipe, weak), prompt_tokens(recipe, weak)
    weak.server.post("/api/create", found.request(name))
    _remember(weak.server, name, home)
    same = rendered(weak.server, name, "Is it so?") == weak.render(in_words(recipe, weak).messages("Is it so?"))
    if not same:
        warnings.warn(f"{name}: the server makes another prompt of it than the solver sends", stacklevel=2)
    return Created(name, found.base, len(found.messages), tokens, weak.context, found.template == TEMPLATE, same)


def rendered(server: Server, name: str, question: str, system: str = "") -> str:
    """Return the exact prompt that a model makes of a client's question.

    Raises:
        PromptLost: the server does not show it.
    """
    messages = [{"role": "system", "content": system}] if system else []
    body = {"model": name, "messages": [*messages, {"role": "user", "content": question}], "stream": False}
    info = server.post("/api/chat", {**body, "options": {"num_predict": 1}, "_debug_render_only": True})
    text = (info.get("_debug_info") or {}).get("rendered_template")
    if text is None:
        raise PromptLost(f"The Ollama server at {server.url} does not show rendered prompts; update it")
    return str(text)


def _refuse_foreign(server: Server, name: str, home: Home) -> None:
    there = _digest(server, name)
    if there and _made(home).get(f"{server.url} {name}") != there:
        raise InputError(
            f"There is a model {name!r} on {server.url} that was not made by this command from this home, or was "
            "changed since; --force replaces it, another name keeps it"
        )


def _digest(server: Server, name: str) -> str | None:
    try:
        return str(server.find(name)["digest"])
    except ModelNotFound:
        return None


def _made(home: Home) -> dict[str, Any]:
    """Return the digests of the models that were made here."""
    file = home.root / "exported.json"
    found = parse_json(read_text(file, "names of models"), file, "names of models") if file.exists() else {}
    return found if isinstance(found, dict) else {}


def _remember(server: Server, name: str, home: Home) -> None:
    server.models(fresh=True)
    made = {**_made(home), f"{server.url} {name}": _digest(server, name)}
    write_whole(home.make().root / "exported.json", json.dumps(made, indent=1) + "\n", mode=0o600)
