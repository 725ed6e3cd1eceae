"""Grimoires: what a strong model has learned about a task, as text that people can read and correct.

A grimoire is a Markdown file: YAML front matter, then the profound and the simple text under one
heading each.
"""

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sleicl_chains.errors import InputError, first_complaint, one_line
from sleicl_chains.files import SURROGATE, parse_json, read_text
from sleicl_chains.hashes import short_hash
from sleicl_chains.models.template_tokens import TOKENS_REMOVED, without_template_tokens
from sleicl_chains.prompts import system_text
from sleicl_chains.tasks.cards import Task
from sleicl_chains.tasks.rows import Example, among

if TYPE_CHECKING:
    from langchain_core.prompts import ChatPromptTemplate

_FORBID = ConfigDict(extra="forbid")


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
    """The UTC day of the first call, or of the change where there is a parent, as 2026-01-31."""
    warnings: tuple[str, ...] = ()
    text_ids: tuple[str, ...] = ()
    """Hashes of the examples' folded texts, by which near-copies are told too."""
    rows: str = ""
    """In words, which rows it was written from, where there are no ids."""
    parent: str = ""
    """Id of the version that this one was made from, see `version_id`."""

    @property
    def rows_known(self) -> bool:
        """Whether it can be told of a row that the grimoire was written from it."""
        return bool(self.examples or self.text_ids) or self.sampler == "none"

    def among(self, rows: Iterable[Example]) -> list[Example]:
        """Return the rows that the grimoire was written from, near-copies too, as far as is known."""
        return among(rows, self.examples, self.text_ids)


_Share = Annotated[float, Field(ge=-1, le=1)]


@dataclass(frozen=True)
class Effect:
    """What one form of a grimoire was measured to do to a weak model, against the same prompt without it."""

    __pydantic_config__: ClassVar[ConfigDict] = _FORBID

    weak: str
    arm: Literal["simple", "profound"]
    """The form that was shown; the other arm is zero-shot."""
    difference: _Share
    """In accuracy, on the same rows."""
    low: _Share
    high: _Share
    """The 95% interval over rows."""
    rows: Annotated[int, Field(gt=0)]
    source: str
    """Whose rows."""

    def __str__(self) -> str:
        """Return it as one line, such as '+.03 [-.01, +.07] on 100 rows of TREC, MODEL, profound against zero-shot'."""
        difference, low, high = (_signed(one) for one in (self.difference, self.low, self.high))
        where = f"{self.rows} rows of {self.source}, {self.weak}, {self.arm} against zero-shot"
        return f"{difference} [{low}, {high}] on {where}"


def _signed(share: float) -> str:
    """Return a difference with two digits, its sign and no leading zero; one that is rounded to 0 has a plus."""
    return f"{round(share, 2) + 0.0:+.2f}".replace("0.", ".")


REQUESTS, REQUEST_LENGTH = 100, 500
"""How many requests a grimoire may have, each a text to be embedded, and how many characters each."""


@dataclass(frozen=True)
class Grimoire:
    """The profound and the simple text for a task; one of them may be empty.

    White space around the two texts is dropped. The effects are of exactly these texts: with other texts they go.

    Raises:
        InputError: both texts are empty, one cannot be written as UTF-8, or a request is blank, too long, or one too
            many.
    """

    id: str
    task: str
    task_type: str
    description: str
    labels: tuple[str, ...]
    profound: str
    simple: str
    provenance: Provenance
    effects: tuple[Effect, ...] = ()
    language: str = ""
    """Of the texts that it is for, as en or de; empty where it is not said."""
    requests: tuple[str, ...] = ()
    """How people ask for it, in their words: it is found by these as by its description. At most 100."""

    def __post_init__(self) -> None:
        for name in ("profound", "simple"):
            object.__setattr__(self, name, getattr(self, name).strip())
        if not self.profound and not self.simple:
            raise InputError("the profound and the simple text are both empty; expected at least one")
        if len(self.requests) > REQUESTS:
            raise InputError(f"found {len(self.requests)} requests; expected at most {REQUESTS}")
        for request in self.requests:
            if not request.strip() or len(request) > REQUEST_LENGTH:
                raise InputError(
                    f"found a request of {len(request)} characters, {request!r:.60}; expected words, at most "
                    f"{REQUEST_LENGTH} characters"
                )
        words = (self.task, self.task_type, self.description, self.profound, self.simple, self.language)
        if SURROGATE.search("".join([*words, *self.labels, *self.requests])):
            raise InputError("the grimoire holds half of a surrogate pair; expected valid Unicode")

    def to_task(self) -> Task:
        """Return the task that it is for, to be asked about without a card.

        Raises:
            InputError: it does not say what its task is.
        """
        about = {"name": self.task, "description": self.description, "labels": self.labels}
        try:
            return Task.model_validate(about | ({"task_type": self.task_type} if self.task_type else {}))
        except ValidationError as problem:
            raise InputError(
                f"the grimoire {self.id} does not tell its task ({first_complaint(problem)}); give a card"
            ) from None

    def to_markdown(self) -> str:
        """Return the file's text; write it without translating line ends, or texts with CRLF change."""
        front: dict[str, Any] = {
            "task": self.task,
            "task_type": self.task_type,
            "description": self.description,
            "labels": list(self.labels),
            **({"language": self.language} if self.language else {}),
            **({"requests": list(self.requests)} if self.requests else {}),
            "provenance": _known(self.provenance),
        }
        if self.effects:
            front["effect"] = [asdict(effect) for effect in self.effects]
        head = yaml_lines(front)
        body = "".join(f"\n{_HEADINGS[name]}\n\n{_escaped(getattr(self, name))}\n" for name in _HEADINGS)
        return f"---\n{head}---\n{body}"

    def text(self, form: Literal["simple", "profound"] = "profound") -> str:
        """Return the text of a form, or the other where it is empty."""
        return (self.simple or self.profound) if form == "simple" else (self.profound or self.simple)

    def to_prompt(self, form: Literal["simple", "profound"] = "profound") -> "ChatPromptTemplate":
        """Return the task and this text as a prompt with the variable `question`, for any chat model and parser.

        Braces in the grimoire and in the question are text, no variables. Where the form's text is empty, the other is
        taken.
        """
        from langchain_core.messages import SystemMessage
        from langchain_core.prompts import ChatPromptTemplate

        system = system_text(self.task_type or self.task, self.description, self.labels, self.text(form))
        return ChatPromptTemplate.from_messages([SystemMessage(system), ("human", "{question}")])

    @classmethod
    def from_markdown(cls, text: str, *, id: str) -> "Grimoire":
        """Return the grimoire that a file's text describes; the inverse of `to_markdown`.

        Raises:
            InputError: the text is not such a file; `load_grimoire` adds its path to the message.
        """
        head, body = head_and_body(text)
        front = _front_matter(head)
        profound, simple = _sections(body)
        about = (front.task, front.task_type, front.description, front.labels)
        return cls(id, *about, profound, simple, front.provenance, front.effect, front.language, front.requests)


def grimoire_id(task: str, profound: str, simple: str) -> str:
    """Return an id that changes with the task's name and either text: a file name in ASCII."""
    plain = unicodedata.normalize("NFKD", task).encode("ascii", "ignore").decode().lower()
    slug = re.sub(r"[^a-z0-9]+", "-", plain)[:40].strip("-") or "task"
    return f"{slug}-{short_hash(task, profound.strip(), simple.strip())[:8]}"


def version_id(grimoire: Grimoire) -> str:
    """Return the id that belongs to a grimoire's texts, whatever its file is called."""
    return grimoire_id(grimoire.task, grimoire.profound, grimoire.simple)


_HEADINGS = {"profound": "# Profound grimoire", "simple": "# Simple grimoire"}
_ANY_CASE = re.MULTILINE | re.IGNORECASE
_HEADING_LINE = re.compile(r"^# (Profound|Simple) grimoire[ \t\r]*$", _ANY_CASE)
_ALIKE = re.compile(r"^(\\*# (?:Profound|Simple) grimoire[ \t\r]*)$", _ANY_CASE)
_ESCAPED = re.compile(r"^\\(\\*# (?:Profound|Simple) grimoire[ \t\r]*)$", _ANY_CASE)

_ANY_HEADING = re.compile(r"^#{1,6}[ \t]*(\w[^\r\n]{6,24}?)[ \t\r]*$", re.MULTILINE)
_OTHER_GRIMOIRE = re.compile(r"^# (?!(?:Profound|Simple) grimoire[ \t\r]*$)\S{1,24} grimoire[ \t\r]*$", _ANY_CASE)


def _escaped(text: str) -> str:
    """Return `text` with a backslash before lines that look like our headings, as Markdown escapes them."""
    return _ALIKE.sub(r"\\\1", text)


def _sections(body: str) -> tuple[str, str]:
    before, *parts = _HEADING_LINE.split(body)
    names = [name.lower() for name in parts[::2]]
    if before.strip() or not names:
        first = before.strip().partition("\n")[0].rstrip()
        raise _heading_missing(f"the heading {first!r:.80}" if first.startswith("#") else "no heading above the text")
    # Only where a heading is missing: what we write has both, and so its texts may hold any other.
    for name in set(_HEADINGS) - set(names):
        if heading := _meant(name, body):
            raise _heading_missing(f"the heading {heading!r}")
    if len(set(names)) < len(names):
        raise InputError("a heading stands twice; write a backslash before one that belongs to the text")
    texts = dict(zip(names, (_ESCAPED.sub(r"\1", text) for text in parts[1::2]), strict=True))
    return texts.get("profound", ""), texts.get("simple", "")


def _heading_missing(found: str) -> InputError:
    return InputError(f"found {found}; expected {' and '.join(map(repr, _HEADINGS.values()))}")


def _meant(name: str, body: str) -> str | None:
    """Return a heading by which a person has probably meant that of a text, such as '# Simpel grimoire'."""
    wanted = _HEADINGS[name].removeprefix("# ").lower()
    headings = {line[1].lower(): line[0].rstrip() for line in _ANY_HEADING.finditer(body)}
    near = get_close_matches(wanted, headings, n=1, cutoff=0.8)
    other = _OTHER_GRIMOIRE.search(body)
    return headings[near[0]] if near else other and other[0].rstrip()


class _FrontMatter(BaseModel):
    model_config = _FORBID

    task: str
    task_type: str = ""
    description: str = ""
    labels: tuple[str, ...] = ()
    language: str = ""
    requests: tuple[str, ...] = ()
    provenance: Provenance = Provenance()
    effect: tuple[Effect, ...] = ()


_HEAD_LIMIT = 2**18
"""Characters of front matter, which takes up to 2 s; 1,000 labels with 4 examples each have room."""


_ALIAS = "while scanning an alias"


class _Loader(yaml.BaseLoader):
    """Leaves every value as it is written (the labels yes, no and 1 are no booleans or numbers), and repeats none."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        # A few lines of aliases to aliases stand for a billion values; an anchor's name is lost from the text.
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if event.anchor is not None:
            raise yaml.MarkedYAMLError(_ALIAS, problem_mark=event.start_mark)
        node: yaml.Node | None = super().compose_node(parent, index)
        if isinstance(node, yaml.MappingNode):
            _refuse_twins(node)
        return node


def _refuse_twins(node: yaml.MappingNode) -> None:
    """Refuse a key that stands twice, of which the first would be lost without a word."""
    keys: set[object] = set()
    for key, _ in node.value:
        if isinstance(key.value, str) and key.value in keys:
            problem = f"the key {key.value!r:.80} stands twice"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
        keys.add(key.value if isinstance(key.value, str) else None)


def _front_matter(head: str) -> _FrontMatter:
    try:
        return _FrontMatter.model_validate(plain_yaml(head))
    except ValidationError as problem:
        raise InputError(f"front matter: {first_complaint(problem)}") from None


def yaml_lines(front: dict[str, Any]) -> str:
    """Return YAML with each value on its line, so that a changed word is a one-line diff."""
    return yaml.safe_dump(front, sort_keys=False, allow_unicode=True, width=float("inf"))


def head_and_body(text: str) -> tuple[str, str]:
    """Return the front matter of a Markdown file, and what stands below it.

    Raises:
        InputError: there is no front matter.
    """
    if text.startswith("---\r\n"):
        # We never write this: an editor or git has changed every line end, so all are changed back.
        text = text.replace("\r\n", "\n")
    head, fence, body = text.removeprefix("---\n").partition("\n---\n")
    if not text.startswith("---\n") or not fence:
        raise InputError("the front matter is missing; expected YAML between two lines of ---")
    return head, body


def plain_yaml(head: str) -> object:
    """Return what a front matter says, each value as the text that is written there.

    Raises:
        InputError: it is too long, or no YAML; aliases and keys that stand twice are refused.
    """
    if len(head) > _HEAD_LIMIT:
        raise InputError(f"the front matter has {len(head)} characters; expected at most {_HEAD_LIMIT}")
    try:
        return yaml.load(head, Loader=_Loader)
    except (yaml.YAMLError, RecursionError) as problem:
        raise InputError(f"the front matter is not valid YAML: {_yaml_complaint(problem)}") from None


def _yaml_complaint(problem: Exception) -> str:
    if isinstance(problem, yaml.MarkedYAMLError) and problem.problem_mark:
        said, line = problem.problem, problem.problem_mark.line + 2  # counted from 0, after the fence
        if said == "mapping values are not allowed here":
            said = "a value with a colon in it must stand between quotes, as in 'Urgent: yes or no?', found"
        elif problem.context in (_ALIAS, "while scanning an anchor"):
            said = "a value that begins with & or * must stand between quotes (aliases and anchors are refused), found"
        return f"{said} in line {line}"
    return "nested too deeply" if isinstance(problem, RecursionError) else one_line(problem)


def _known(provenance: Provenance) -> dict[str, Any]:
    known = {key: value for key, value in asdict(provenance).items() if value not in ("", None, ())}
    return {key: list(value) if isinstance(value, tuple) else value for key, value in known.items()}


class _Import(BaseModel):
    model_config = _FORBID

    task: str
    strong_model: str = ""
    sampler: str = ""
    examples: tuple[str, ...] = ()
    text_ids: tuple[str, ...] = ()
    rows: str = ""
    profound: str = ""
    simple: str = ""


def load_grimoire(path: Path, task: Task | None = None) -> Grimoire:
    """Read a grimoire from Markdown, or from JSON with task, strong_model, sampler, profound and simple.

    JSON may also say which rows it was written from: examples and text_ids are hashes, rows is in words.

    Args:
        path: a file that ends in .md or .json.
        task: supplies the task type, description and labels where the file has none. A text that
            does not name all labels is accepted: the grimoire may be older than the card.

    Template tokens in its texts, such as `<|im_end|>`, would act in every prompt: they are left out, with a warning in
    the provenance.

    Raises:
        InputError: the file cannot be read or is not a grimoire.
    """
    text = read_text(path, "a grimoire (.md or .json)")
    found = parse_json(text, path, "one object") if path.suffix.lower() == ".json" else None
    try:
        grimoire = without_tokens(Grimoire.from_markdown(text, id=path.stem) if found is None else _imported(found))
    except InputError as problem:
        raise InputError(f"{path}: {problem}") from None
    missing = [name for name in ("task_type", "description", "labels") if task and not getattr(grimoire, name)]
    return replace(grimoire, **{name: getattr(task, name) for name in missing})


def without_tokens(grimoire: Grimoire) -> Grimoire:
    """Return a grimoire from outside without template tokens in its texts, which would act in every prompt."""
    texts = {name: without_template_tokens(getattr(grimoire, name)) for name in _HEADINGS}
    if not (tokens := list(dict.fromkeys(token for _, found in texts.values() for token in found))):
        return grimoire
    warnings = (*grimoire.provenance.warnings, f"{TOKENS_REMOVED}: {' '.join(tokens)}")
    provenance = replace(grimoire.provenance, warnings=warnings)
    return replace(grimoire, provenance=provenance, profound=texts["profound"][0], simple=texts["simple"][0])


def _imported(value: object) -> Grimoire:
    try:
        found = _Import.model_validate(value)
    except ValidationError as problem:
        raise InputError(str(first_complaint(problem))) from None
    about = found.model_dump(include={"strong_model", "sampler", "examples", "text_ids", "rows"})
    provenance = Provenance(**about)
    id = grimoire_id(found.task, found.profound, found.simple)
    return Grimoire(id, found.task, "", "", (), found.profound, found.simple, provenance)
