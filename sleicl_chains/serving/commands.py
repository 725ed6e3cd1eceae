"""What a person can type in a chat: messages, and the commands of `COMMANDS`, which is also the help."""

import glob
import os
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

from langchain_core.messages import BaseMessage

from sleicl_chains.answering.opening import Opened, open_recipe, open_solver
from sleicl_chains.answering.recipes import Recipe
from sleicl_chains.answers import Answer
from sleicl_chains.errors import InputError, SleiclError, StoreError, Unsupported
from sleicl_chains.files import Home
from sleicl_chains.grimoires.grimoire import Grimoire, load_grimoire
from sleicl_chains.grimoires.store import GrimoireStore
from sleicl_chains.models.abilities import Renderer, context_of, name_of, reply_limit
from sleicl_chains.serving.conversation import Conversation, Piece, Turn
from sleicl_chains.serving.screen import Screen
from sleicl_chains.serving.weak import Offer, chat_models, open_chat_model

BLOCK = '"""'
"""Begins and ends a message of several lines, as in `ollama run`."""


@dataclass(frozen=True)
class Judge:
    """A recipe that answers questions."""

    name: str
    """That of its task."""
    recipe: Recipe
    opened: Opened


class Chat:
    """A talk in a terminal: what was typed comes in, what is to be seen goes to the screen.

    Args:
        conversation: the talk.
        screen: where all is written.
        home: where models and readings lie.
        name: of the model.
        named: the same, where the user named it; a recipe for a model elsewhere is used for that one alone.
        options: of the model, as the user gave them; they go on to another model of the same kind.
    """

    def __init__(
        self, conversation: Conversation, screen: Screen, *, home: Home, name: str, named: str | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:  # fmt: skip
        self.conversation = conversation
        self.screen = screen
        self.home = home
        self.name = name
        self.options = options or {}
        self._named = {named} if named else set()
        self.left = False
        """Whether the user wants to go."""
        self.judge: Judge | None = None
        """The recipe that answers now; None for the talk itself."""
        self.judges: dict[str, Judge] = {}
        self._offers: list[Offer] | None = None
        self._told_unreadable = False
        self._prompt: Callable[[], str] | None = None
        """Gives the prompt that was sent last."""
        self._why: Callable[[], list[str]] | None = None
        """Says what stood before the last message, and why."""

    def hear(self, typed: str) -> None:
        """Do what was typed: a command, or else a message. `//x` is the message `/x`.

        Raises:
            SleiclError: it could not be done; the chat can go on.
        """
        if typed.lstrip().startswith(BLOCK):
            self.ask(typed.strip().removeprefix(BLOCK).removesuffix(BLOCK).strip("\n"))
        elif typed.startswith("//"):
            self.ask(typed[1:])
        elif typed.startswith("/"):
            self._obey(typed)
        else:
            self.ask(typed)

    def ask(self, text: str) -> None:
        """Answer a message, by the recipe that is chosen or in the talk.

        Raises:
            SleiclError: there is no answer; the talk is as it was before.
        """
        if self.judge:
            self._decide(self.judge, text)
        else:
            self._reply(lambda: self.conversation.pieces(text))

    def add(self, recipe: Recipe) -> Judge:
        """Take a recipe that /task can then choose by its task's name. Nothing is asked.

        Raises:
            RecipeRefused: it is for a model that is not on this machine, and that the user has not named.
        """
        # The recipe alone must not say where questions go.
        named = recipe.weak if recipe.weak in self._named else None
        address = {"base_url": self.options["base_url"]} if named and "base_url" in self.options else {}
        opened = open_solver(None, recipe, self.home, weak=named, options=address)
        judge = self.judges[recipe.task.name] = Judge(recipe.task.name, recipe, opened)
        return judge

    def choose(self, judge: Judge) -> None:
        """Have a recipe answer from now on."""
        self.judge = judge
        labels = ", ".join(judge.recipe.task.labels) or "in words"
        self.screen.note(f"{judge.name} answers ({labels}); /task off goes back to the talk")

    def _judge_named(self, name: str) -> Judge:
        if name in self.judges:
            return self.judges[name]
        if not os.path.exists(name):
            known = ", ".join(self.judges) or "none so far"
            raise InputError(f"there is no recipe {name!r}; expected a file of `sleicl learn`, or one of: {known}")
        return self.add(open_recipe(Path(name)))

    def offers(self, *, anew: bool = False) -> list[Offer]:
        """Return the chat models of this machine; the server is asked once, or `anew`."""
        if self._offers is None or anew:
            self._offers = chat_models(self.home, self.options.get("base_url"))
        return self._offers

    def _obey(self, typed: str) -> None:
        word, *rest = typed.split(maxsplit=1)
        argument = rest[0].strip() if rest else ""
        command = find(word)
        if command is None:
            near = get_close_matches(word, [one.name for one in COMMANDS], n=1, cutoff=0.5)
            hint = f"did you mean {near[0]}? " if near else ""
            raise InputError(
                f"{word:.40} is no command; {hint}/help lists them, and //... sends a message that begins with /"
            )
        if argument and not command.argument:
            raise InputError(f"{command.name} takes nothing behind it; found {argument:.40}")
        command.run(self, argument)

    def _reply(self, begin: Callable[[], Generator[Piece]]) -> None:
        """Show a reply as it comes, and before it which grimoire the model was shown."""
        self._tell_unreadable()
        coming = begin()
        turn = self.conversation.turns[-1]
        self._why = partial(self._reasons, turn)
        self._tell_pick(turn)
        try:
            with closing(coming):
                for piece in coming:
                    self.screen.piece(piece.text, thinking=piece.thinking)
        finally:
            self._prompt = partial(written, self.conversation.weak, [*self.conversation.sent])
        self.screen.end(f"cut at {_count(self, turn)}: -o max_tokens=..." if turn.ended == "cut" else "")

    def _tell_unreadable(self) -> None:
        talk = self.conversation
        if talk.grimoire == "auto" and talk.store and talk.unreadable and not self._told_unreadable:
            self.screen.note(f"{talk.unreadable}; it is shown no grimoire, unless you name one with /grimoire")
            self._told_unreadable = True

    def _tell_pick(self, turn: Turn) -> None:
        if turn.grimoire:
            self.screen.note(f"{turn.grimoire.id}: {turn.why}")
        elif self.conversation.grimoire == "auto" and self.conversation.store and not self.conversation.unreadable:
            self.screen.note(f"no grimoire: {turn.why}")

    def _decide(self, judge: Judge, text: str) -> None:
        """Answer a question by a recipe: the label, its probability, the one that comes next."""
        self._prompt = partial(judge.recipe.prompt, text, home=self.home)
        answer: Answer | None = None
        for part in judge.opened.chain.stream(text):
            answer = answer + part if answer else part
            if not judge.recipe.task.labels:
                self.screen.piece(part.text)
        self.screen.end()
        assert answer is not None
        self._why = partial(_grounds, judge, answer)
        if not answer.valid:
            wanted = f"one of {', '.join(judge.recipe.task.labels)}" if judge.recipe.task.labels else "a text"
            found = repr(answer.text) if answer.text else answer.note or "nothing"
            raise SleiclError(f"the reply gives no answer: found {found:.200}; expected {wanted}")
        if answer.label:
            self.screen.line(answer.label)
        if said := told(answer):
            self.screen.note(said)

    def _reasons(self, turn: Turn) -> list[str]:
        """Say what stood before a message, and why; for none, what would have been nearest."""
        if turn.grimoire:
            form, text = "profound" if turn.grimoire.profound else "simple", turn.grimoire.text()
            told = f"  its {form} text was shown, {len(text)} characters"
            return [f"{turn.grimoire.id}: {turn.why}", f"  {turn.grimoire.description}", told]
        picker = self.conversation.picker
        found = picker.compared(turn.text) if picker else None
        if found is None:
            return [f"no grimoire: {turn.why}"]
        nearest = int(found.leads.max(axis=0).argmax())
        return [f"no grimoire: {turn.why}", f"  nearest: {found.index.grimoires[nearest].id}, {found.why(nearest)}"]

    # The commands; each takes what stands behind its name.

    def _grimoire(self, wanted: str) -> None:
        talk = self.conversation
        if not wanted:
            now = talk.grimoire if isinstance(talk.grimoire, str) else talk.grimoire.id
            self.screen.line(f"{now}; expected auto, none, or one of: {', '.join(self.grimoire_names())}")
            return
        talk.grimoire = grimoire_named(wanted, talk.store)
        if isinstance(talk.grimoire, Grimoire):
            self.screen.note(f"every message has {talk.grimoire.id}; /grimoire auto goes back")
            if talk.unreadable:
                self.screen.note(talk.unreadable)
        else:
            self.screen.note("each message has the one that fits" if talk.grimoire == "auto" else "no grimoires")

    def grimoire_names(self) -> list[str]:
        """Return the ids of the library."""
        return [one.id for one in self.conversation.store.list()] if self.conversation.store else []

    def _explain(self, _: str) -> None:
        self.screen.line("\n".join(self._why() if self._why else ["nothing was asked yet"]))

    def _show_prompt(self, _: str) -> None:
        if self._prompt is None:
            raise InputError("nothing was sent yet; say something first")
        self.screen.line(self._prompt())

    def _model(self, wanted: str) -> None:
        if not wanted:
            weak = self.conversation.weak
            self.screen.line(f"{self.name}, context {context_of(weak) or 'unknown'}, replies up to {reply_limit(weak)}")
            return
        name = self._full_name(wanted)
        same_kind = name.partition(":")[0] == self.name.partition(":")[0]
        weak = open_model(name, self.home, self.options if same_kind else {})
        if self.options and not same_kind:
            self.screen.note("the options were another kind of model's and are left out")
        self.conversation.use(weak)
        self.name, self._told_unreadable = name, False
        self._named.add(name)
        self.screen.note(f"{name} answers; the talk goes on")

    def _full_name(self, wanted: str) -> str:
        """Return a model's name; that of `ollama run` has no kind before it."""
        names = [one.name for one in self.offers()]
        return wanted if wanted in names else next((one for one in names if one.partition(":")[2] == wanted), wanted)

    def _models(self, _: str) -> None:
        lines = [
            f"{'*' if one.name == self.name else ' '} {one.name}  {one.megabytes} MB  "
            f"{one.reading or 'reading not checked'}"
            for one in self.offers(anew=True)
        ]
        nothing = "no chat model is on this machine: ollama pull NAME, or sleicl models fetch NAME"
        self.screen.line("\n".join(lines) or nothing)

    def _task(self, wanted: str) -> None:
        name, question = first_word(wanted)
        if not name:
            known = ", ".join(self.judges) or "none so far; /task FILE takes one"
            now = f"{self.judge.name} answers" if self.judge else "the talk goes on"
            self.screen.line(f"{now}; recipes: {known}")
        elif name == "off":
            self.judge = None
            self.screen.note("the talk goes on")
        elif question:
            self._decide(self._judge_named(name), question)
        else:
            self.choose(self._judge_named(name))

    def _clear(self, _: str) -> None:
        count = len(self.conversation.turns)
        self.conversation.clear()
        self._why = None
        self.screen.note(f"{_turns(count)} forgotten")

    def _save(self, wanted: str) -> None:
        path = _path(wanted)
        if path.exists():
            try:
                Conversation(self.conversation.weak).load(path)
            except InputError:
                raise InputError(f"{path} is there and is no saved talk; choose another name") from None
        self.conversation.save(path)
        self.screen.note(f"{_turns(len(self.conversation.turns))} kept in {path}")

    def _load(self, wanted: str) -> None:
        path = _path(wanted)
        self.conversation.load(path)
        self._why = partial(self._reasons, self.conversation.turns[-1]) if self.conversation.turns else None
        self.screen.note(f"{_turns(len(self.conversation.turns))} from {path}; the talk goes on from there")

    def _retry(self, _: str) -> None:
        self._reply(self.conversation.retry)

    def _help(self, _: str) -> None:
        widest = max(len(one.usage) for one in COMMANDS)
        self.screen.line("\n".join(f"{one.usage:{widest}}  {one.help}" for one in COMMANDS) + f"\n{_KEYS}")

    def _leave(self, _: str) -> None:
        self.left = True


class Command(NamedTuple):
    """One of a chat's commands."""

    name: str
    argument: str
    """As the help shows it; empty where it takes none."""
    help: str
    run: Callable[[Chat, str], None]
    offers: Literal["", "grimoires", "models", "recipes", "files"] = ""
    """What Tab completes behind it."""
    also: str = ""
    """Its second name."""

    @property
    def usage(self) -> str:
        """How it is typed."""
        names = f"{self.name}, {self.also}" if self.also else self.name
        return f"{names} {self.argument}".strip()


COMMANDS = (
    Command("/grimoire", "NAME|auto|none", "show this one, the one that fits, or none", Chat._grimoire, "grimoires"),
    Command("/why", "", "why this grimoire, or none, stood before the last message", Chat._explain),
    Command("/prompt", "", "the exact text that the model was sent last", Chat._show_prompt),
    Command("/model", "NAME", "go on with another model", Chat._model, "models"),
    Command("/models", "", "the models of this machine", Chat._models),
    Command("/task", "RECIPE [QUESTION]|off", "have a recipe answer, once or until off", Chat._task, "recipes"),
    Command("/retry", "", "answer the last message again", Chat._retry),
    Command("/clear", "", "forget the talk", Chat._clear),
    Command("/save", "FILE", "write the talk to a file", Chat._save, "files"),
    Command("/load", "FILE", "go on with a saved talk", Chat._load, "files"),
    Command("/help", "", "this list", Chat._help, also="/?"),
    Command("/bye", "", "leave, as Ctrl-D does", Chat._leave, also="/exit"),
)  # fmt: skip
_KEYS = 'Alt-Enter or """ ... """ for several lines, Tab completes, Ctrl-C stops an answer, //x sends "/x".'


def find(word: str) -> Command | None:
    """Return the command of a name."""
    return next((one for one in COMMANDS if word and word in (one.name, one.also)), None)


def completions(chat: Chat, line: str) -> tuple[str, list[str]]:
    """Return the end of a line that Tab completes, and what may stand in its place."""
    word, space, argument = line.partition(" ")
    if not line.startswith("/"):
        return "", []
    if not space:
        return word, [f"{one.name} " if one.argument else one.name for one in COMMANDS if one.name.startswith(word)]
    command = find(word)
    offered = _offered(chat, command.offers, argument) if command and command.offers else []
    return argument, [one for one in offered if one.startswith(argument) and one.isprintable()]


def _offered(chat: Chat, what: str, begun: str) -> Iterable[str]:
    if what == "grimoires":
        return ["auto", "none", *chat.grimoire_names()]
    if what == "models":
        return [one.name for one in chat.offers()]
    return [*(["off", *chat.judges] if what == "recipes" else []), *_files(begun)]


def _files(begun: str) -> list[str]:
    """Return the files and folders whose paths begin so, as they were typed."""
    home = os.path.expanduser("~/")
    found = glob.glob(glob.escape(os.path.expanduser(begun)) + "*")
    paths = (f"{path}{os.sep}" if os.path.isdir(path) else path for path in sorted(found))
    return [path.replace(home, "~/", 1) if begun.startswith("~/") else path for path in paths]


def open_model(name: str, home: Home, options: Mapping[str, Any]) -> Any:
    """Return a chat model; one of an Ollama server is looked for at once, not at the first message.

    Raises:
        ModelError: it is not there.
        OptionError: it has no such option.
    """
    at_once = {"validate_model_on_init": True} if name.startswith("ollama:") else {}
    return open_chat_model(name, home, {**options, **at_once})


def grimoire_named(name: str, store: GrimoireStore | None) -> Grimoire | Literal["auto", "none"]:
    """Return what `--grimoire` and `/grimoire` name: `auto`, `none`, a file, an id, or the task of just one.

    Raises:
        StoreError: there is none.
    """
    if name == "auto":
        return "auto"
    if name == "none":
        return "none"
    if os.path.isfile(name):
        return load_grimoire(Path(name))
    if store is None:
        raise StoreError("there is no library here; expected auto, none or a file")
    same = [one for one in store.list() if one.task == name and one.id != name]
    return same[0] if len(same) == 1 else store.get(name)


def written(weak: object, messages: Sequence[BaseMessage]) -> str:
    """Return the text that a model was sent; its messages where the model does not show how it lays them out."""
    if isinstance(weak, Renderer):
        with suppress(Unsupported):
            return weak.render(messages)
    plain = "\n\n".join(f"{message.type}: {message.text}" for message in messages)
    return f"({name_of(weak)} does not show its own layout; these are the messages)\n{plain}"


def told(answer: Answer) -> str:
    """Say how sure a recipe's answer is, and which label comes next.

    The answer's probability may be calibrated, the shares are not: so what it leaves is dealt out by the shares.
    """
    shares = {label: share for label, share in answer.scores.items() if label != answer.label}
    said = []
    if answer.probability is not None:
        said.append(f"probability {answer.probability:.2f}")
        if left := sum(shares.values()):
            after = max(shares, key=lambda label: shares[label])
            said.append(f"next: {after}, {(1 - answer.probability) * shares[after] / left:.2f}")
    return "; ".join([*said, *([answer.note] if answer.note else [])])


def first_word(text: str) -> tuple[str, str]:
    """Return the first word, which may stand in quotes, and the rest."""
    quote = text[:1] if text[:1] in ("'", '"') else ""
    if quote and quote in text[1:]:
        word, _, rest = text[1:].partition(quote)
        return word, rest.strip()
    word, _, rest = text.partition(" ")
    return word, rest.strip()


def _grounds(judge: Judge, answer: Answer) -> list[str]:
    from sleicl_chains.evaluation.words import recipe_verdict

    shown = f"with the grimoire {answer.grimoire}" if answer.grimoire else "without a grimoire"
    return [f"{judge.name}: asked {shown}", *(f"  {line}" for line in recipe_verdict(judge.recipe))]


def _count(chat: Chat, turn: Turn) -> str:
    return f"{turn.usage.get('output_tokens') or reply_limit(chat.conversation.weak)} tokens"


def _turns(count: int) -> str:
    return "1 turn" if count == 1 else f"{count} turns"


def _path(given: str) -> Path:
    if not given:
        raise InputError("expected a file behind it, such as talk.json")
    return Path(given).expanduser()
