"""Recipes: what was learned about one task and one weak model, in one JSON file that needs nothing beside it."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from langchain_core.language_models import BaseChatModel
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from sleicl_chains.answering.arms import Arm, ArmName
from sleicl_chains.answering.calibration import Calibration
from sleicl_chains.answering.consent import address_in, is_own_address, plain_options, refusal, stays_here
from sleicl_chains.answering.cues import Cue
from sleicl_chains.answering.neighbours import Neighbours
from sleicl_chains.answering.observer import Observer
from sleicl_chains.answering.prompt import Prompt
from sleicl_chains.answering.readers import Number, Reader, check_reader, load_reader, sizes_read
from sleicl_chains.answering.readings import Mode, Prior
from sleicl_chains.answering.steps import Solver
from sleicl_chains.errors import InputError, RecipeMismatch, Unsupported
from sleicl_chains.files import RECIPE_LIMIT, SURROGATE, Home, parse_json, read_text, write_whole
from sleicl_chains.grimoires.grimoire import Grimoire, Provenance
from sleicl_chains.models.abilities import Renderer, prefix_rule, state_size
from sleicl_chains.models.identity import identity
from sleicl_chains.models.journal import Journal
from sleicl_chains.models.secrets import without_secrets
from sleicl_chains.tasks.cards import Task
from sleicl_chains.tasks.labels import prefixed
from sleicl_chains.tasks.rows import Example, among

if TYPE_CHECKING:
    from langchain_core.embeddings import Embeddings
    from langchain_core.prompts import ChatPromptTemplate

Finding = Literal["helps", "no difference shown", "hurts"]

_CLOSED = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
_Rate = Annotated[float, Field(ge=0, le=1)]
_Gain = Annotated[float, Field(ge=-1, le=1)]
_Count = Annotated[int, Field(ge=0, le=10**9)]


class Verdict(BaseModel):
    """Whether a grimoire helps this model on this task: one pair of prompts, named beforehand, compared row by row."""

    model_config = _CLOSED

    finding: Finding
    pair: tuple[str, str] | None = None
    """The prompt with the grimoire and the same without; None where nothing was tested."""
    grimoire: str = ""
    """Its id."""
    difference: _Gain | None = None
    """Accuracy with the grimoire less accuracy without, on the same rows; None where nothing was tested."""
    low: _Gain | None = None
    high: _Gain | None = None
    p: _Rate | None = None
    """Two-sided, of the sign-flip test."""
    n: _Count = 0
    """Rows of the test, each answered by readers that were fitted on others."""
    smallest_shown: _Rate | None = None
    """The smallest true difference that a test like this finds four times in five; None where none would be."""
    tested: Literal["score", "right"] | None = None
    """What the test is on: the quadratic score of the probabilities, or whether answers are right."""
    level: _Rate | None = None
    """Below which p shows something."""
    fixed: _Count = 0
    """Rows that are right with the grimoire alone."""
    broken: _Count = 0
    """Rows that are right without it alone."""
    accuracy: tuple[_Rate, _Rate] | None = None
    """With and without."""
    rows_known: bool = True
    """Whether it is known which rows the grimoire was written from; else some may be among those of the test."""
    why: str = ""
    """Why nothing was tested."""


class AlsoTried(BaseModel):
    """Another prompt on the rows of the test, or on some of them."""

    model_config = _CLOSED

    arm: str
    grimoire: str = ""
    difference: _Gain
    """Accuracy less that of the pair's prompt without a grimoire, on the same rows."""
    p: _Rate
    """Two-sided, adjusted for all prompts that were also tried."""
    n: _Count


class Choice(BaseModel):
    """Which prompt the recipe takes, and on what ground: what is expected, not what was shown."""

    model_config = _CLOSED

    arm: str
    mode: Mode
    expected: _Gain | None = None
    """Expected gain in accuracy on the pair's prompt without a grimoire; None where there was nothing to weigh."""
    ground: str
    """In words."""
    accuracy: _Rate | None = None
    """On the rows of the test, each answered by a reader that was fitted on others; None where they were not asked."""
    probe: _Rate | None = None
    """The same of a linear model on embeddings, without any language model."""
    n: _Count = 0


class TestedRow(BaseModel):
    """What the prompts that were asked about all rows made of one: its answers, not its text."""

    model_config = _CLOSED

    row: str
    """Its content hash."""
    gold: str
    said: dict[ArmName, tuple[str | None, _Rate | None]]
    """By arm: the answer of a reader that had not seen the row, and its probability."""


class Shown(BaseModel):
    """A text in a recipe, with its hash, so that a change by hand is noticed."""

    model_config = _CLOSED

    text: str
    answer: str = ""
    id: str = ""
    """The grimoire's id, of an example its content hash."""
    sha256: str

    @classmethod
    def of(cls, text: str, answer: str = "", id: str = "") -> "Shown":
        """Return the text with its hash."""
        return cls(text=text, answer=answer, id=id, sha256=_sha256(text, answer))


class Recipe(BaseModel):
    """The outcome of learning for one task and one weak model. It holds training rows where its arm shows examples."""

    model_config = _CLOSED

    format: Literal[1] = 1
    task: Task
    weak: str
    """The weak model's name."""
    options: dict[str, Any] = {}
    """Options that the weak model was opened with, as far as a file may hold them (`consent.plain_options`)."""
    address: str = Field(default="", exclude=True)
    """Where a file of an earlier version says that its model is. It is named in complaints and never asked."""
    model: dict[str, Any]
    """What tells the weak model from others: the digest of its weights where there is one."""
    arm: ArmName
    mode: Mode
    prior: Prior
    cue: str = ""
    lists_labels: bool = False
    grimoire: Shown | None = None
    examples: list[Shown] = []
    """Shown before every question, or for the arm `knn` the rows among which the nearest are shown."""
    embeddings: str = ""
    embeddings_fingerprint: str = ""
    reader: dict[str, Any] | None = None
    """The fitted numbers; None where answers are generated."""
    calibration: tuple[Annotated[Number, Field(ge=0)], Number] | None = None
    """Slope and offset from the reader's share to the probability that an answer is right."""
    verdict: Verdict
    also_tried: list[AlsoTried] = []
    choice: Choice | None = None
    """None in recipes that were not learned, or by an earlier version."""
    tested: list[TestedRow] = []
    """The rows of the test; `sleicl report` shows them one by one."""
    warnings: list[str] = []
    rows: int
    """Labelled rows that it was learned from."""
    learned_from: list[str] = []
    """Content hashes of these rows, and of those that its grimoire was written from: on them its figures flatter it."""
    learned_texts: list[str] = []
    """Hashes of the same rows' folded texts, by which near-copies are told too."""
    layout: str = ""
    """Hash of the bare prompt, so that a changed card, cue or packaged prompt is noticed."""
    seed: int
    date: str = ""
    versions: dict[str, str] = {}

    @model_validator(mode="before")
    @classmethod
    def _as_now(cls, given: Any) -> Any:
        """Drop the options that a file must not decide, of which the address is remembered, to be named.

        The verdict of a version that raced many candidates is read as the pair that it tested.
        """
        if not isinstance(given, dict):
            return given
        found = {key: value for key, value in given.items() if key != "trials"}
        if isinstance(options := found.get("options"), dict):
            found |= {"options": plain_options(options), "address": address_in(options)}
        if isinstance(verdict := found.get("verdict"), dict) and "best_with" in verdict:
            kept = {key: value for key, value in verdict.items() if key in Verdict.model_fields}
            pair = (verdict["best_with"], verdict.get("best_without"))
            found["verdict"] = kept | ({"pair": pair} if all(pair) else {})
        return found

    @property
    def shown(self) -> Arm:
        """What the weak model is shown."""
        return Arm.of(self.arm)

    @property
    def name(self) -> str:
        """What the recipe does, as an arm's name."""
        return self.arm if self.mode in ("generate", "score") else f"{self.arm}+{self.mode}"

    def among(self, rows: Iterable[Example]) -> list[Example]:
        """Return the rows that it was learned from, near-copies too, as far as is known."""
        return among(rows, self.learned_from, self.learned_texts)

    @classmethod
    def load(cls, path: str | Path) -> "Recipe":
        """Read a recipe.

        Raises:
            InputError: the file cannot be read or is no recipe.
            RecipeMismatch: a text in it was changed.
        """
        path = Path(path)
        expected = "a recipe as `sleicl learn` writes it"
        given = parse_json(read_text(path, expected, RECIPE_LIMIT), path, expected)
        if SURROGATE.search(json.dumps(given, ensure_ascii=False)):
            raise InputError(f"{path}: found half of a surrogate pair, which is no Unicode; expected {expected}")
        try:
            recipe = cls.model_validate(given)
        except ValidationError as problem:
            first = problem.errors()[0]
            where = ".".join(map(str, first["loc"])) or "the file"
            raise InputError(f"{path}: {where}: {first['msg']}; expected {expected}") from None
        try:
            recipe._check_reader()
        except InputError as problem:
            raise InputError(f"{path}: {problem}. It was changed after learning: run `sleicl learn` again") from None
        for shown in [*recipe.examples, *([recipe.grimoire] if recipe.grimoire else [])]:
            if _sha256(shown.text, shown.answer) != shown.sha256:
                raise RecipeMismatch(
                    f"{path}: the text {shown.text[:40]!r} was changed after learning, so what was measured does "
                    "not hold for it; run `sleicl learn` again with the changed text"
                )
        return recipe

    def _check_reader(self) -> None:
        if self.reader is None:
            return
        check_reader(self.reader, self.task.labels, self.mode, vector=self._vector_size)
        if self.arm != "knn" and not self.embeddings and sizes_read(load_reader(self.reader), 0).get("vector"):
            raise InputError("the reader reads an embedding; the recipe names no embeddings")

    @property
    def _vector_size(self) -> int:
        """How many numbers the embeddings give, by their fingerprint; 0 if that is not known."""
        size = self.embeddings_fingerprint.partition("-")[0]
        return int(size) if size.isdecimal() and len(size) < 7 else 0

    def save(self, path: str | Path) -> None:
        """Write the file, wholly or not at all; it may hold training rows, so nobody else may read it."""
        text = json.dumps(self.model_dump(mode="json"), ensure_ascii=False, indent=1)
        write_whole(Path(path), text + "\n", mode=0o600)

    def prompt(self, question: str, weak: BaseChatModel | None = None, *, home: Home | None = None) -> str:
        """Return the exact text that the weak model is given for a question.

        Opens the model of the recipe's name, or takes `weak`; no call of the model is made.

        Raises:
            RecipeMismatch: the model is another one than the recipe was learned for.
        """
        steps = self.steps(weak, home=home)
        if steps.reader is not None:
            return steps.observer.prompt(question)
        messages = steps.messages(question)
        weak = steps.observer.weak
        return (
            weak.render(messages)
            if isinstance(weak, Renderer)
            else "\n\n".join(f"{one.type}: {one.text}" for one in messages)
        )

    def to_prompt(self) -> "ChatPromptTemplate":
        """Return what the recipe shows as a prompt with the variable `question`, for any chat model and parser.

        It is what `solver(recipe)` sends a chat model in the mode `generate`, but for an example whose text is the
        question itself, which a solver leaves out. What was measured holds for the recipe's own model alone. Where the
        recipe shows examples, the prompt holds training rows.

        Raises:
            Unsupported: the arm is `knn`, which shows other examples before each question.
        """
        if self.shown.examples == "knn":
            raise Unsupported("The arm 'knn' shows other examples before each question; use solver(recipe)")
        rows = tuple(Example(shown.text, shown.answer) for shown in self.examples)
        return Prompt(self.task, self.shown, self.shown_grimoire(), rows).template()

    def steps(
        self, weak: BaseChatModel | None = None, *, embeddings: "Embeddings | None" = None, home: Home | None = None,
        journal: Journal | None = None, name: str = "recipe",
    ) -> Solver:  # fmt: skip
        """Return the solver's steps.

        Args:
            weak: the model; by default the recipe's own is opened, if it runs on this machine.
            embeddings: those of the recipe; by default they are opened, if they run on this machine.
            home: where fetched weights lie.
            journal: keeps every call.
            name: in tables.

        Raises:
            RecipeRefused: the model or the embeddings are not on this machine, and were not given.
            RecipeMismatch: the model or the embeddings are others than the recipe was learned for.
        """
        self.check_consent(opened=weak is not None, embeddings=self.embeddings if embeddings else None)
        weak = weak or self._open(home)
        self._check_model(weak)
        return Solver(
            self._observer(weak, self._embeddings(embeddings, home, journal), journal), self.mode, self.prior,
            self._reader(), calibration=Calibration(*self.calibration) if self.calibration else None, name=name,
        )  # fmt: skip

    def check_consent(
        self, weak: str | None = None, *, base_url: str | None = None, embeddings: str | None = None,
        opened: bool = False,
    ) -> None:  # fmt: skip
        """Refuse to send anything to where only the recipe says that it shall go. No request.

        Args:
            weak: the model that the user named.
            base_url: the address that the user named.
            embeddings: those that the user named.
            opened: whether the user opened the model, wherever it is.

        Raises:
            RecipeRefused: the recipe names a model, an address or embeddings that are not on this machine, and the
                user has not named them.
            RecipeMismatch: the model that the user named is of another kind.
        """
        model = "" if opened or weak or stays_here(self.weak, base_url) else self.weak
        address = "" if opened or base_url else self._foreign_address(weak or self.weak)
        space = "" if stays_here(self.embeddings) or embeddings == self.embeddings else self.embeddings
        if model or address or space:
            raise refusal(model=model, address=address, embeddings=space)
        if weak and ("weights" in self.model) != weak.startswith(("embedded:", "ollama:")):
            raise self._other_model(_short(self.model), weak)

    def _foreign_address(self, weak: str) -> str:
        """Return the address that the recipe gives for the model of a name, unless it is that of the user's Ollama."""
        if weak != self.weak or weak.startswith("embedded:"):
            return ""
        return "" if weak.startswith("ollama:") and is_own_address(self.address) else self.address

    def _other_model(self, wanted: str, found: str) -> RecipeMismatch:
        return RecipeMismatch(
            f"The recipe was learned for {self.weak} with {wanted}; found {found}. Its numbers hold for no other "
            "model: run `sleicl learn` for this one"
        )

    def _check_model(self, weak: BaseChatModel) -> None:
        """Refuse another model, another layout and a state of another size. No question is asked."""
        found = told_by(weak, self.task.labels)
        if found != without_secrets(self.model):
            raise self._other_model(_short(self.model, found), _short(found, self.model))
        if self.layout and self.layout_under(weak) != self.layout:
            raise RecipeMismatch(
                "The recipe's prompt is no longer the one that it was learned with: its card or cue was changed, or "
                "this version writes prompts otherwise; run `sleicl learn` again"
            )
        reader, given = self._reader(), state_size(weak)
        read = sizes_read(reader, len(self.task.labels), self._vector_size).get("state") if reader else None
        if read and given and read != given:
            raise RecipeMismatch(
                f"The recipe's reader reads {read} numbers of the model's state; {self.weak} gives {given}. Run "
                "`sleicl learn` again"
            )

    def layout_under(self, weak: BaseChatModel) -> str:
        """Return the hash of the prompt of a question mark, as a model like `weak` is shown it; no model call."""
        turns = self._observer(weak, None, None).messages("?", Cue(self.cue, self.lists_labels))
        return _sha256(*(part for turn in turns for part in (turn.type, turn.text)))[:16]

    def _open(self, home: Home | None) -> BaseChatModel:
        from sleicl_chains.models.names import weak_model

        return weak_model(self.weak, home=home, **self.options)

    def _reader(self) -> Reader | None:
        return load_reader(self.reader) if self.reader is not None else None

    def _observer(self, weak: BaseChatModel, space: "Embeddings | None", journal: Journal | None) -> Observer:
        rows = tuple(Example(shown.text, shown.answer) for shown in self.examples)
        neighbours = Neighbours(rows, space) if self.shown.examples == "knn" and space else None
        return Observer(
            weak, self.task, self.shown, self.shown_grimoire(), () if neighbours else rows, neighbours,
            given_cue=Cue(self.cue, self.lists_labels) if self.reader is not None else None, embeddings=space,
            journal=journal,
        )  # fmt: skip

    def shown_grimoire(self) -> Grimoire | None:
        """Return the grimoire as far as the recipe shows it: one of its two texts."""
        if self.grimoire is None:
            return None
        texts = {"profound": "", "simple": "", self.shown.form: self.grimoire.text}
        card = (self.task.name, self.task.task_type, self.task.description, self.task.labels)
        return Grimoire(self.grimoire.id, *card, texts["profound"], texts["simple"], Provenance())

    def _embeddings(
        self, given: "Embeddings | None", home: Home | None, journal: Journal | None
    ) -> "Embeddings | None":
        if not self.embeddings:
            return None
        from sleicl_chains.models.embedders import embedder, fingerprint

        space = given or embedder(self.embeddings, home=home, journal=journal)
        if fingerprint(space) != self.embeddings_fingerprint:
            raise RecipeMismatch(
                f"The recipe was learned with other embeddings of the name {self.embeddings}; run `sleicl learn` again"
            )
        return space


def told_by(weak: BaseChatModel, labels: Sequence[str] = ()) -> dict[str, Any]:
    """Return what tells a weak model from others for a recipe: its weights where they have a digest.

    Where one of the labels begins another, the rule by which such labels are scored is a part of it: readers that were
    fitted on scores of another rule must not be used on these.
    """
    found = identity(weak)
    kept = ("weights", "layout", "scoring")
    told = {key: found[key] for key in kept if key in found} if "weights" in found else found
    rule = prefix_rule(weak) if prefixed(labels) else ""
    return {**told, "prefixed": rule} if rule else told


def stamped() -> dict[str, Any]:
    """Return the date and the versions that a recipe is written under."""
    packages = ("sleicl-chains", "langchain-core", "scikit-learn", "xllamacpp")
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {package: version(package) for package in packages},
    }


def _sha256(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def _short(model: Mapping[str, Any], other: Mapping[str, Any] | None = None) -> str:
    """Name a model by its weights, else by the settings in which it differs from another."""
    if weights := model.get("weights"):
        return f"weights {str(weights)[:12]}"
    differing = {key: value for key, value in model.items() if other is None or other.get(key) != value}
    return f"settings {json.dumps(differing, sort_keys=True)[:200]}"
