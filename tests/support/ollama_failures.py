"""Every failure of an Ollama server that is known, how to provoke it, and what plain langchain-ollama makes of it.

Read by `test_ollama_failures.py`, which holds both columns, and by `benchmarks/failures.py`, which prints the table.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from langchain_core.messages import HumanMessage, SystemMessage
from langchain_ollama import ChatOllama, OllamaEmbeddings

from sleicl_chains.models.ollama.embeddings import OllamaEmbeddings as GuardedEmbeddings
from sleicl_chains.models.ollama.model import OllamaModel
from tests.support.ollama_server import Answer, Asked, OllamaServer, Said, chat, generated, recorded, said

CHAT = [SystemMessage("Grimoire: grass is green."), HumanMessage("What colour is grass?")]
PATIENCE_S = 1.5
"""After so long a call that has no time-out of its own counts as hanging."""

Use = Callable[[Any], object]


def invoke(model: Any) -> object:
    return model.invoke(CHAT).text


@dataclass(frozen=True)
class Failure:
    """One thing that goes wrong."""

    name: str
    plain: str
    """What plain ChatOllama (or OllamaEmbeddings) does: the answer it gives, or its error; a regular expression."""
    guarded: str
    """What this project's model does, likewise."""
    answer: Answer = lambda asked: None
    version: str = "0.24.0"
    use: Use = invoke
    model: str = "smollm2:135m"
    address: str | None = None
    """Of the server, where it is not the replaying one."""
    options: tuple[tuple[str, Any], ...] = ()
    """Of both models."""
    embeddings: bool = False

    def observe(self, guarded: bool, url: str) -> str:
        """Return what happens, in words."""
        return within(lambda: self._use(guarded, self.address or url))

    def _use(self, guarded: bool, url: str) -> object:
        model = self._model(guarded, url)
        try:
            return self.use(model)
        finally:
            if not guarded:
                model._client.close()  # it leaves its sockets open

    def _model(self, guarded: bool, url: str) -> Any:
        own = dict(self.options)
        if self.embeddings:
            kind: Any = GuardedEmbeddings if guarded else OllamaEmbeddings
            return kind(model=self.model, base_url=url)
        if guarded:
            return OllamaModel(model=self.model, base_url=url, timeout_s=0.5, attempts=2, **own)
        return ChatOllama(model=self.model, base_url=url, **{"num_predict": 64, "temperature": 0, **own})


def within(call: Callable[[], object]) -> str:
    """Return a call's result or error in words, "hangs" where it does not end."""
    found: list[str] = []

    def run() -> None:
        try:
            found.append(f"answers {str(call()).strip()!r}")
        except BaseException as problem:
            found.append(f"{type(problem).__name__}: {' '.join(str(problem).split())}")

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(PATIENCE_S)
    return found[0] if found else "hangs"


def only(route: str, answer: Said) -> Answer:
    """Answer a route, but not requests that only ask for the rendering."""
    return lambda asked: answer if asked.route == route and not asked.render_only else None


def _thinking(text: str) -> Said:
    part = {"message": {"role": "assistant", "content": "", "thinking": text}, "done": False}
    return said(part, chat("").objects[-1])


def _loses_system(asked: Asked) -> Said | None:
    """A template of a base model: `{{ .Prompt }}`."""
    if asked.render_only:
        return recorded("rendered base")
    if asked.route == "/api/generate":
        kept = "Grimoire" in asked.body["prompt"]
        return generated("it has the grimoire" if kept else "it lacks the grimoire")
    kept = asked.route == "/api/chat" and asked.body["messages"][0]["role"] != "system"
    return chat("it has the grimoire" if kept else "it lacks the grimoire") if asked.route == "/api/chat" else None


def _folds(asked: Asked) -> Said | None:
    """A template that knows user and assistant alone, as some Modelfiles have."""
    if asked.route != "/api/chat":
        return None
    turns = [message for message in asked.body["messages"] if message["role"] != "system"]
    if asked.render_only:
        text = "".join(f"[{message['role']}] {message['content']}\n" for message in turns)
        return said({"done": False, "_debug_info": {"rendered_template": text}})
    kept = any("Grimoire" in message["content"] for message in turns)
    return chat("it has the grimoire" if kept else "it lacks the grimoire")


def _says(text: str, **last: Any) -> Answer:
    return only("/api/chat", chat(text, **last))


def _error(status: int, message: str) -> Answer:
    return only("/api/chat", said({"error": message}, status=status))


def _second_temperature(model: Any) -> object:
    return model.invoke(CHAT, temperature=0.7).text


DEAD = "http://127.0.0.1:9"
RUNNER = "model runner has unexpectedly stopped, this may be due to resource limitations or an internal error"
REPEATED = chat("no " * 31).lines[:-1]

FAILURES = [
    Failure("the server does not run", r"ConnectError: .*refused", r"ServerDown: .*`ollama serve`", address=DEAD),
    Failure(
        "OLLAMA_HOST is no address",
        r"ConnectError: ",
        r"OptionError: .*HOST:PORT",
        address="http://not a host",
    ),
    Failure(
        "the model is missing",
        r"ResponseError: model 'nosuch' not found",
        r"ModelNotFound: .*`ollama pull nosuch`.*"
        r"It has: gemma3:270m-base, smollm2:135m",
        model="nosuch",
    ),
    Failure(
        "a long prompt, server since 0.12.6: its front is dropped",
        r"answers 'cut'",
        r"PromptTooLong: .*about \d+ "
        r"tokens; the context holds 4096.*num_ctx=8192",
        answer=lambda asked: (
            None
            if asked.route != "/api/chat" or asked.render_only
            else chat("cut", prompt_eval_count=4096)
            if asked.body.get("truncate", True)
            else recorded("too long")
        ),
    ),
    Failure(
        "a long prompt, server before 0.12.6: half of it is dropped",
        r"answers 'cut'",
        r"PromptTooLong: .*arrived",
        answer=_says("cut", prompt_eval_count=2050),
        version="0.11.8",
        use=lambda model: model.invoke([*CHAT, HumanMessage("word " * 5000)]).text,
    ),
    Failure(
        "the stream ends without its last part",
        r"answers 'Grass is'",
        r"CutReply: .*broke off before its end",
        answer=only("/api/chat", Said(chat("Grass is green.").lines[:2])),
    ),
    Failure(
        "the reply repeats one token, and Ollama stops it",
        r"answers 'no no no",
        r"CutReply: .*'no' 31 times in a row",
        answer=only("/api/chat", Said(REPEATED)),
    ),
    Failure(
        "the connection breaks in the middle",
        r"RemoteProtocolError: ",
        r"ServerFailed: The connection .*broke off",
        answer=only("/api/chat", Said(chat("Grass is green.").lines[:2], drop=True)),
    ),
    Failure(
        "an error in the middle of the stream",
        r"ResponseError: .*\(status code: -1\)",
        r"ServerFailed: .*log says",
        answer=only("/api/chat", Said((*chat("Grass is").lines[:2], '{"error": "an error was encountered"}'))),
    ),
    Failure("the reply is empty", r"answers ''", r"RejectedReply: .*empty reply", answer=_says("")),
    Failure(
        "the model only thinks",
        r"answers ''",
        r"RejectedReply: .*only thought \(14 characters\)",
        answer=only("/api/chat", _thinking("Grass is green")),
    ),
    Failure(
        "the model was only loaded",
        r"ValueError: No data received from Ollama stream",
        r"RejectedReply: .*only loaded",
        answer=_says("", done_reason="load"),
    ),
    Failure(
        "the queue is full",
        r"ResponseError: server busy.*503",
        r"ServerBusy: .*OLLAMA_MAX_QUEUE",
        answer=_error(503, "server busy, please try again. maximum pending requests exceeded"),
    ),
    Failure(
        "the runner died",
        r"ResponseError: model runner has .*500",
        r"ServerFailed: .*log says more",
        answer=_error(500, RUNNER),
    ),
    Failure(
        "the model does not fit into memory",
        r"ResponseError: model requires .*500",
        r"ServerFailed: .*smaller context",
        answer=_error(500, "model requires more system memory (9.5 GiB) than is available (3.1 GiB)"),
    ),
    Failure(
        "a proxy says 502",
        r"ResponseError: <html>.*502",
        r"ServerFailed: .*HTTP 502",
        answer=only("/api/chat", Said(("<html>Bad Gateway</html>",), 502)),
    ),
    Failure(
        "something else answers at the address",
        r"JSONDecodeError: ",
        r"GarbledReply: .*Check OLLAMA_HOST",
        answer=lambda asked: Said(("<html>It works!</html>",)),
    ),
    Failure(
        "the server says nothing", r"hangs", r"TimedOut: .*timeout_s=1800", answer=only("/api/chat", Said(hang=True))
    ),
    Failure(
        "access is refused",
        r"ResponseError: unauthorized.*401",
        r"ModelError: .*OLLAMA_API_KEY",
        answer=_error(401, "unauthorized"),
    ),
    Failure(
        "thinking is asked of a model that cannot",
        r"ResponseError: .*does not support thinking",
        r"Unsupported: .*does not support thinking",
        answer=only("/api/chat", recorded("no thinking")),
        options=(("reasoning", True),),
    ),
    Failure(
        "an option of the wrong kind reaches the server",
        r"ResponseError: .*must be of type integer",
        r"OptionError: .*refuses a setting",
        answer=only("/api/chat", recorded("bad option")),
    ),
    Failure(
        "the template drops the system message",
        r"answers 'it lacks the grimoire'",
        r"answers 'it has the grimoire'",
        answer=_loses_system,
        model="gemma3:270m-base",
    ),
    Failure(
        "the template knows no system message",
        r"answers 'it lacks the grimoire'",
        r"answers 'it has the grimoire'",
        answer=_folds,
    ),
    Failure(
        "temperature=0.7 for one call",
        r"TypeError: .*unexpected keyword argument 'temperature'",
        r"answers 'Grass is green.'",
        answer=_says("Grass is green."),
        use=_second_temperature,
    ),
    Failure(
        "num_ctx for one call would load the model again",
        r"answers 'Grass is green.'",
        r"OptionError: .*load the model again",
        answer=_says("Grass is green."),
        use=lambda model: model.invoke(CHAT, options={"num_ctx": 512}).text,
    ),
    Failure(
        "an option that does not exist",
        r"answers 'Grass is green.'",
        r"ValidationError: .*truncate",
        answer=_says("Grass is green."),
        options=(("truncate", False),),
    ),
    Failure(
        "a long text is embedded: its end is dropped",
        r"answers '\[",
        r"PromptTooLong: .*cannot embed the text 'word",
        answer=lambda asked: recorded("embed") if asked.body.get("truncate", True) else recorded("embed too long"),
        use=lambda model: model.embed_query("word " * 9000),
        embeddings=True,
    ),
    Failure(
        "embeddings: fewer vectors than texts",
        r"answers '\[\[-0.0",
        r"GarbledReply: .*found 1 vectors for 2 texts",
        use=lambda model: model.embed_documents(["grass", "sky"]),
        embeddings=True,
    ),
]


def serving(failure: Failure) -> OllamaServer:
    """Return a server that fails in this way."""
    return OllamaServer(failure.answer, version=failure.version)
