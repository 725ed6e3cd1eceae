"""Grimoires: what a strong model has learned about a task, as text that people can read and correct.

First the data: a grimoire is a Markdown file, YAML front matter and then the profound and the simple
text under one heading each. Then the chain that has a strong model write one.
"""

import hashlib
import json
import re
import unicodedata
from collections.abc import Generator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NotRequired, TypedDict

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from sleicl_chains.errors import InputError, RejectedReply
from sleicl_chains.labels import mentioned
from sleicl_chains.prompts import fill
from sleicl_chains.tasks import Example, Task, read_text

if TYPE_CHECKING:  # LangChain's messages take a quarter of a second to load; reading a file needs none
    from langchain_core.language_models import BaseChatModel
    from langchain_core.messages import AIMessage, BaseMessage
    from langchain_core.runnables import Runnable

    from sleicl_chains.journal import Journal

_FORBID = ConfigDict(extra="forbid")
_SURROGATE = re.compile(r"[\ud800-\udfff]")  # half of a pair: json makes it, UTF-8 cannot hold it


@dataclass(frozen=True)
class Provenance:
    """Where a grimoire comes from; whatever is not known is empty or None."""

    __pydantic_config__: ClassVar[ConfigDict] = _FORBID

    strong_model: str = ""
    sampler: str = ""
    per_label: int | None = None
    seed: int | None = None
    examples: tuple[str, ...] = ()
    """Ids of the examples that the strong model was shown."""
    prompt_sha256: str = ""
    prompt_tokens: int | None = None
    reply_tokens: int | None = None
    date: str = ""
    """The UTC day of the first call, as 2026-01-31."""
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Grimoire:
    """The profound and the simple text for a task; one of them may be empty.

    White space around the two texts is dropped.

    Raises:
        InputError: both texts are empty, or one cannot be written as UTF-8.
    """

    id: str
    task: str
    task_type: str
    description: str
    labels: tuple[str, ...]
    profound: str
    simple: str
    provenance: Provenance

    def __post_init__(self) -> None:
        for name in ("profound", "simple"):
            object.__setattr__(self, name, getattr(self, name).strip())
        if not self.profound and not self.simple:
            raise InputError("the profound and the simple text are both empty; expected at least one")
        if _SURROGATE.search(
            "".join([self.task, self.task_type, self.description, *self.labels, self.profound, self.simple])
        ):
            raise InputError("the grimoire holds half of a surrogate pair; expected valid Unicode")

    def to_markdown(self) -> str:
        """Return the file's text; write it without translating line ends, or texts with CRLF change."""
        front = {
            "task": self.task,
            "task_type": self.task_type,
            "description": self.description,
            "labels": list(self.labels),
            "provenance": _known(self.provenance),
        }
        # An endless width keeps each value on its line, so that a changed word is a one-line diff.
        head = yaml.safe_dump(front, sort_keys=False, allow_unicode=True, width=float("inf"))
        body = "".join(f"\n{_HEADINGS[name]}\n\n{_escaped(getattr(self, name))}\n" for name in _HEADINGS)
        return f"---\n{head}---\n{body}"

    @classmethod
    def from_markdown(cls, text: str, *, id: str) -> "Grimoire":
        """Return the grimoire that a file's text describes; the inverse of `to_markdown`.

        Raises:
            InputError: the text is not such a file; `load_grimoire` adds its path to the message.
        """
        if text.startswith("---\r\n"):
            # We never write this: an editor or git has changed every line end, so all are changed back.
            text = text.replace("\r\n", "\n")
        head, fence, body = text.removeprefix("---\n").partition("\n---\n")
        if not text.startswith("---\n") or not fence:
            raise InputError("the front matter is missing; expected YAML between two lines of ---")
        front = _front_matter(head)
        profound, simple = _sections(body)
        return cls(id, front.task, front.task_type, front.description, front.labels, profound, simple, front.provenance)


def grimoire_id(task: str, profound: str, simple: str) -> str:
    """Return an id that changes with the task's name and either text: a file name in ASCII."""
    plain = unicodedata.normalize("NFKD", task).encode("ascii", "ignore").decode().lower()
    slug = re.sub(r"[^a-z0-9]+", "-", plain)[:40].strip("-") or "task"
    content = "\0".join([task, profound.strip(), simple.strip()]).encode(errors="surrogatepass")
    return f"{slug}-{hashlib.sha256(content).hexdigest()[:8]}"


# ------------------------------------------------------------------ Markdown

_HEADINGS = {"profound": "# Profound grimoire", "simple": "# Simple grimoire"}
_HEADING_LINE = re.compile(r"^# (Profound|Simple) grimoire[ \t\r]*$", re.MULTILINE)
_ALIKE = re.compile(r"^(\\*# (?:Profound|Simple) grimoire[ \t\r]*)$", re.MULTILINE)
_ESCAPED = re.compile(r"^\\(\\*# (?:Profound|Simple) grimoire[ \t\r]*)$", re.MULTILINE)


def _escaped(text: str) -> str:
    """Return `text` with a backslash before lines that look like our headings, as Markdown escapes them."""
    return _ALIKE.sub(r"\\\1", text)


def _sections(body: str) -> tuple[str, str]:
    before, *parts = _HEADING_LINE.split(body)
    names = [name.lower() for name in parts[::2]]
    if before.strip() or not names:
        raise InputError(f"found no heading above the text; expected {' and '.join(map(repr, _HEADINGS.values()))}")
    if len(set(names)) < len(names):
        raise InputError("a heading stands twice; write a backslash before one that belongs to the text")
    texts = dict(zip(names, (_ESCAPED.sub(r"\1", text) for text in parts[1::2]), strict=True))
    return texts.get("profound", ""), texts.get("simple", "")


class _FrontMatter(BaseModel):
    model_config = _FORBID

    task: str
    task_type: str = ""
    description: str = ""
    labels: tuple[str, ...] = ()
    provenance: Provenance = Provenance()


def _front_matter(head: str) -> _FrontMatter:
    try:
        # BaseLoader leaves every value as it is written: the labels yes, no and 1 are no booleans or numbers.
        return _FrontMatter.model_validate(yaml.load(head, Loader=yaml.BaseLoader))
    except ValidationError as problem:
        raise InputError(f"front matter: {_complaint(problem)}") from None
    except (yaml.YAMLError, RecursionError) as problem:
        raise InputError(f"the front matter is not valid YAML: {_yaml_complaint(problem)}") from None


def _yaml_complaint(problem: Exception) -> str:
    if isinstance(problem, yaml.MarkedYAMLError) and problem.problem_mark:
        return f"{problem.problem} in line {problem.problem_mark.line + 2}"  # counted from 0, after the fence
    return " ".join(str(problem).split())


def _complaint(problem: ValidationError) -> str:
    first = problem.errors()[0]
    where = ".".join(str(part) for part in first["loc"]) or "the whole"
    return f"{where}: found {first['input']!r:.80}; {first['msg']}"


def _known(provenance: Provenance) -> dict[str, Any]:
    known = {key: value for key, value in asdict(provenance).items() if value not in ("", None, ())}
    return {key: list(value) if isinstance(value, tuple) else value for key, value in known.items()}


# ------------------------------------------------------------------ files


class _Import(BaseModel):
    model_config = _FORBID

    task: str
    strong_model: str = ""
    sampler: str = ""
    profound: str = ""
    simple: str = ""


def load_grimoire(path: Path, task: Task | None = None) -> Grimoire:
    """Read a grimoire from Markdown, or from JSON with task, strong_model, sampler, profound and simple.

    Args:
        path: a file that ends in .md or .json.
        task: supplies the task type, description and labels where the file has none. A text that
            does not name all labels is accepted: the grimoire may be older than the card.

    Raises:
        InputError: the file cannot be read or is not a grimoire.
    """
    text = read_text(path, "a grimoire (.md or .json)")
    try:
        grimoire = _from_json(text) if path.suffix.lower() == ".json" else Grimoire.from_markdown(text, id=path.stem)
    except InputError as problem:
        raise InputError(f"{path}: {problem}") from None
    missing = [name for name in ("task_type", "description", "labels") if task and not getattr(grimoire, name)]
    return replace(grimoire, **{name: getattr(task, name) for name in missing})


def _from_json(text: str) -> Grimoire:
    try:
        found = _Import.model_validate(json.loads(text))
    except ValidationError as problem:
        raise InputError(_complaint(problem)) from None
    except (ValueError, RecursionError) as problem:
        raise InputError(f"not valid JSON ({problem}); expected one object") from None
    provenance = Provenance(strong_model=found.strong_model, sampler=found.sampler)
    id = grimoire_id(found.task, found.profound, found.simple)
    return Grimoire(id, found.task, "", "", (), found.profound, found.simple, provenance)


# ------------------------------------------------------------------ writing


class WriteInput(TypedDict):
    """What a grimoire is written from. The last three are only recorded."""

    task: Task
    examples: list[Example]
    """May be empty: the prompt then works from the description alone (the paper's zero-sample)."""
    sampler: NotRequired[str]
    per_label: NotRequired[int]
    seed: NotRequired[int]


def grimoire_writer(
    strong: "BaseChatModel", *, strong_name: str | None = None, journal: "Journal | None" = None
) -> "Runnable[WriteInput, Grimoire]":
    """Return a chain that has the strong model write a profound grimoire and shorten it to a simple one.

    The method of "Grimoire is All You Need" (arXiv 2401.03385). It costs two strong calls, and a
    third when the profound text does not name every label; a label that is missing even then
    becomes a warning in the provenance. With a journal, a repeated run costs nothing, gives the same
    grimoire and goes on after the last reply that came in.

    Args:
        strong: the model that writes.
        strong_name: recorded as the writer; by default the model's own name.
        journal: keeps every call.

    Raises:
        RejectedReply: (when run) a reply is empty, cut, withheld or unfinished thinking.
    """
    from langchain_core.runnables import RunnableLambda

    from sleicl_chains.journal import aask, ask

    name = strong_name or _model_name(strong)

    def write(given: WriteInput) -> Grimoire:
        steps = _steps(given, name)
        step = next(steps)
        while not isinstance(step, Grimoire):
            step = steps.send(ask(strong, step, journal, check=check_reply))
        return step

    async def awrite(given: WriteInput) -> Grimoire:
        steps = _steps(given, name)
        step = next(steps)
        while not isinstance(step, Grimoire):
            step = steps.send(await aask(strong, step, journal, check=check_reply))
        return step

    return RunnableLambda(write, afunc=awrite, name="grimoire_writer")


def _model_name(strong: "BaseChatModel") -> str:
    names = (getattr(strong, "model_name", None), getattr(strong, "model", None))
    return next((name for name in names if name and isinstance(name, str)), type(strong).__name__)


def _steps(given: WriteInput, strong_name: str) -> "Generator[list[BaseMessage] | Grimoire, AIMessage, None]":
    """Yield prompts, take a checked reply for each, and yield the grimoire at last.

    Written this way so that the synchronous and the asynchronous chain share every line but the call.
    """
    from langchain_core.messages import AIMessage, HumanMessage

    task = given["task"]
    calls: list[tuple[list[BaseMessage], AIMessage]] = []
    prompt: list[BaseMessage] = [HumanMessage(_profound_prompt(task, given["examples"]))]
    calls.append((prompt, (yield prompt)))
    profound = check_reply(calls[-1][1])
    if missing := missing_labels(profound, task.labels):
        again = f"The guide does not name {_quoted(missing)}. Write all of it again and name every possible answer."
        prompt = [*prompt, AIMessage(profound), HumanMessage(again)]
        calls.append((prompt, (yield prompt)))
        profound = check_reply(calls[-1][1])
    prompt = [HumanMessage(fill("write_simple", profound=profound))]
    calls.append((prompt, (yield prompt)))
    simple = check_reply(calls[-1][1])

    still = missing_labels(profound, task.labels)
    warnings = (f"the profound text does not name {_quoted(still)}",) if still else ()
    id = grimoire_id(task.name, profound, simple)
    card = (task.name, task.task_type, task.description, task.labels)
    yield Grimoire(id, *card, profound, simple, _provenance(given, strong_name, calls, warnings))


def _profound_prompt(task: Task, examples: Sequence[Example]) -> str:
    rows = [json.dumps({"text": row.text, "answer": row.answer}, ensure_ascii=False) for row in examples]
    return fill(
        "write_profound",
        task_type=task.task_type,
        description=task.description,
        labels=_quoted(task.labels) or "none are listed; the answer is free text",
        examples="\n".join(rows),
    )


def _quoted(labels: Sequence[str]) -> str:
    return ", ".join(f'"{label}"' for label in labels)


def _provenance(
    given: WriteInput,
    strong_name: str,
    calls: "Sequence[tuple[list[BaseMessage], AIMessage]]",
    warnings: tuple[str, ...],
) -> Provenance:
    shown = [[(message.type, str(message.text)) for message in prompt] for prompt, _ in calls]
    return Provenance(
        strong_model=strong_name,
        sampler=given.get("sampler", ""),
        per_label=given.get("per_label"),
        seed=given.get("seed"),
        examples=tuple(example.id for example in given["examples"]),
        prompt_sha256=hashlib.sha256(json.dumps(shown).encode()).hexdigest(),
        prompt_tokens=_tokens("input_tokens", [reply for _, reply in calls]),
        reply_tokens=_tokens("output_tokens", [reply for _, reply in calls]),
        # Of the call, not of this run: a run that repeats it from the journal gives the same file.
        date=calls[0][1].response_metadata["asked_at"][:10],
        warnings=warnings,
    )


def _tokens(kind: Literal["input_tokens", "output_tokens"], replies: "Sequence[AIMessage]") -> int | None:
    """Return the sum over all calls; None when a call's count is not known."""
    used = [reply.usage_metadata for reply in replies]
    return sum(usage[kind] for usage in used if usage) if all(used) else None


# ------------------------------------------------------------------ checking replies

_REASON_KEYS = ("finish_reason", "done_reason", "stop_reason", "status")
_CUT = {"length", "max_tokens", "max_output_tokens", "model_length", "model_context_window_exceeded", "incomplete"}
_MORE = "allow it more tokens (--option max_tokens=16000)"
_WITHHELD = {"content_filter", "safety", "refusal"}
_TAGS = "think|thinking|reasoning"
_THOUGHT = re.compile(rf"<({_TAGS})>.*?</\1>", re.DOTALL | re.IGNORECASE)
_OPENED = re.compile(rf"^\s*<({_TAGS})>", re.MULTILINE | re.IGNORECASE)
_CLOSED = re.compile(rf"\A.*^\s*</({_TAGS})>", re.MULTILINE | re.DOTALL | re.IGNORECASE)


def check_reply(message: "AIMessage") -> str:
    """Return the reply's text without its thinking.

    Raises:
        RejectedReply: the text is empty, was cut or withheld, or ends inside a thinking block.
    """
    reasons = {key: str(message.response_metadata.get(key) or "").lower() for key in _REASON_KEYS}
    for key, reason in reasons.items():
        if reason in _CUT:
            raise RejectedReply(f"the strong model's reply was cut ({key} {reason!r}); {_MORE}")
        if reason in _WITHHELD:
            raise RejectedReply(f"the strong model's reply was withheld ({key} {reason!r}); try other examples")
    # A template may have opened the block in the prompt: then everything up to the closing tag is thinking.
    text = _CLOSED.sub("", _THOUGHT.sub("", message.text)).strip()
    if opened := _OPENED.search(text):
        raise RejectedReply(f"the strong model's reply has an unclosed {opened[0].strip()}; {_MORE}")
    if not text:
        raise RejectedReply("the strong model's reply is empty; expected a text")
    if _SURROGATE.search(text):
        raise RejectedReply("the strong model's reply holds half of a surrogate pair; expected valid Unicode")
    return text


def missing_labels(text: str, labels: Sequence[str]) -> list[str]:
    """Return the labels that `text` does not name, in their order.

    Case and amount of white space do not matter; "positive" is not found inside "very positive".
    """
    named = mentioned(text, labels)
    return [label for label in labels if label not in named]
