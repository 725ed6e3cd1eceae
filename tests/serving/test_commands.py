"""What can be typed in a chat: messages and commands, on a model that says what the test wants."""

import io
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGenerationChunk

from sleicl_chains.answering.opening import open_store
from sleicl_chains.answers import Answer
from sleicl_chains.cli.printing import printable
from sleicl_chains.errors import InputError, ModelNotFound, RecipeRefused, SleiclError
from sleicl_chains.files import Home
from sleicl_chains.serving.commands import COMMANDS, Chat, completions, first_word, grimoire_named, told
from sleicl_chains.serving.conversation import Conversation
from sleicl_chains.serving.screen import Screen
from tests.support.fake_models import Scorer, Writer
from tests.support.ollama_server import OllamaServer
from tests.support.recipes import recipe_of

MAIL = "Is this e-mail spam?"


class Terminal(io.StringIO):
    """A stream that says that it is one."""

    def isatty(self) -> bool:
        return True


class Speaker(Writer):
    """Streams the given parts; those that are dicts are whole chunks."""

    parts: list[Any] = ["Hello ", "there."]

    def _stream(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> Iterator[ChatGenerationChunk]:
        for part in self.parts:
            if isinstance(part, BaseException):
                raise part
            chunk = AIMessageChunk(content=part) if isinstance(part, str) else AIMessageChunk(**part)
            yield ChatGenerationChunk(message=chunk)


def chat_with(
    weak: BaseChatModel, home: Home, *, stream: Callable[[], io.StringIO] = io.StringIO, library: bool = False,
    name: str = "fake:one", **more: Any,
) -> Chat:  # fmt: skip
    conversation = Conversation(weak, open_store(home) if library else None)
    return Chat(conversation, Screen(stream(), stream(), printable), home=home, name=name, **more)


def said(chat: Chat) -> tuple[str, str]:
    """Return what stands on both streams since the last look."""
    texts = []
    for stream in (chat.screen.out, chat.screen.notes):
        assert isinstance(stream, io.StringIO)
        texts.append(stream.getvalue())
        stream.seek(0)
        stream.truncate()
    return texts[0], texts[1]


def test_a_message_is_answered_and_the_talk_goes_on(home: Home) -> None:
    weak = Writer(reply=lambda prompt: f"answer {prompt.count('human:')}")
    chat = chat_with(weak, home)
    for text in ("one", '"""two\nlines"""', "//help"):
        chat.hear(text)
    assert said(chat) == ("answer 1\nanswer 2\nanswer 3\n", "")
    assert [turn.text for turn in chat.conversation.turns] == ["one", "two\nlines", "/help"]


def test_a_grimoire_is_named_before_the_answer_and_why_says_more(home: Home) -> None:
    chat = chat_with(Writer(reply=lambda prompt: "It is."), home, library=True)
    chat.hear("/why")
    assert said(chat) == ("nothing was asked yet\n", "")
    chat.hear(MAIL)
    out, notes = said(chat)
    assert out == "It is.\n" and notes.startswith("[spam-abd35001: near to ") and notes.count("\n") == 1
    chat.hear("/why")
    first, description, size = said(chat)[0].splitlines()
    assert first == notes.strip().removeprefix("[").removesuffix("]")
    assert "spam" in description and "profound text was shown" in size
    chat.hear("What is the capital of Peru?")
    assert said(chat)[1] == "[no grimoire: none fits]\n"
    chat.hear("/why")
    assert said(chat)[0].startswith("no grimoire: none fits\n  nearest: ")


def test_a_grimoire_can_be_chosen_and_left_out(home: Home) -> None:
    weak = Writer(reply=lambda prompt: "ok")
    chat = chat_with(weak, home, library=True)
    chat.hear("/grimoire spam")  # the task's name stands for its only grimoire
    chat.hear("hi")
    chat.hear("/grimoire none")
    chat.hear("hi")
    out, notes = said(chat)
    assert (out, notes.splitlines()) == ("ok\nok\n", [
        "[every message has spam-abd35001; /grimoire auto goes back]", "[spam-abd35001: chosen by you]",
        "[no grimoires]",
    ])  # fmt: skip
    assert ["spam" in prompt for prompt in weak.asked("reply")] == [True, False]
    chat.hear("/grimoire")
    assert said(chat)[0].startswith("none; expected auto, none, or one of: desk-a4732710, intent-")
    with pytest.raises(SleiclError, match="There is no grimoire 'spa-abd35001'; did you mean 'spam-abd35001'"):
        chat.hear("/grimoire spa-abd35001")


def test_the_prompt_is_what_the_model_was_sent(home: Home) -> None:
    chat = chat_with(Scorer(reply=lambda prompt: "yes"), home)
    with pytest.raises(InputError, match="nothing was sent yet"):
        chat.hear("/prompt")
    chat.conversation.system = "Be brief."
    chat.hear("one")
    chat.hear("two")
    said(chat)
    chat.hear("/prompt")
    assert said(chat) == ("system: Be brief.\nhuman: one\nai: yes\nhuman: two\n", "")
    chat.conversation.use(Writer())  # what was sent to the former model, as that one renders it
    chat.hear("/prompt")
    assert said(chat)[0].startswith("system: Be brief.\nhuman: one")


def test_a_model_that_does_not_render_shows_its_messages(home: Home) -> None:
    chat = chat_with(Writer(), home)
    chat.hear("one")
    said(chat)
    chat.hear("/prompt")
    assert said(chat)[0] == "(Writer does not show its own layout; these are the messages)\nhuman: one\n"


@pytest.mark.parametrize(
    ("typed", "complaint"),
    [
        ("/grimore x", "/grimore is no command; did you mean /grimoire? /help lists them, and //... sends a message"),
        ("/usr/bin/env\nis a path", "/usr/bin/env is no command; /help lists them"),
        ("/", "/ is no command; /help lists them"),
        ("/clear all", "/clear takes nothing behind it; found all"),
        ("/save", "expected a file behind it"),
        ("/retry", "there is nothing to try again yet"),
        ("/task nowhere", "there is no recipe 'nowhere'; expected a file of `sleicl learn`, or one of: none so far"),
        ('""""""', "the message is empty"),
    ],
)
def test_what_cannot_be_done_is_said(typed: str, complaint: str, home: Home) -> None:
    chat = chat_with(Writer(), home)
    with pytest.raises(InputError) as problem:
        chat.hear(typed)
    assert complaint in str(problem.value)
    assert chat.conversation.turns == []


def test_the_help_lists_every_command(home: Home) -> None:
    chat = chat_with(Writer(), home)
    for typed in ("/help", "/?"):
        chat.hear(typed)
        lines = said(chat)[0].splitlines()
        assert [line.split()[0].rstrip(",") for line in lines[:-1]] == [one.name for one in COMMANDS]
        assert lines[-2].startswith("/bye, /exit ") and "Tab" in lines[-1]
        assert max(map(len, lines)) <= 100


@pytest.mark.parametrize("typed", ["/bye", "/exit"])
def test_leaving(typed: str, home: Home) -> None:
    chat = chat_with(Writer(), home)
    chat.hear(typed)
    assert chat.left


def test_a_talk_is_kept_only_when_asked_and_only_over_a_talk(home: Home, tmp_path: Path) -> None:
    replies = iter(["first", "second", "third"])
    chat = chat_with(Writer(reply=lambda prompt: next(replies)), home)
    chat.hear("hi")
    chat.hear("/retry")
    assert [turn.reply for turn in chat.conversation.turns] == ["second"]
    path, other = tmp_path / "a talk.json", tmp_path / "README.md"
    other.write_text("mine", encoding="utf-8")
    assert sorted(one.name for one in tmp_path.iterdir()) == ["README.md"]  # the home is not even made
    chat.hear(f"/save {path}")
    chat.hear(f"/save {path}")  # a talk may be kept anew
    with pytest.raises(InputError, match=r"README.md is there and is no saved talk; choose another name"):
        chat.hear(f"/save {other}")
    assert other.read_text(encoding="utf-8") == "mine" and path.stat().st_mode & 0o777 == 0o600
    chat.hear("/clear")
    assert chat.conversation.turns == []
    said(chat)
    chat.hear("/why")
    chat.hear(f"/load {path}")
    chat.hear("/why")
    out, notes = said(chat)
    assert notes == f"[1 turn from {path}; the talk goes on from there]\n"
    assert out == "nothing was asked yet\nno grimoire: no grimoires wanted\n"
    assert [(turn.text, turn.reply) for turn in chat.conversation.turns] == [("hi", "second")]


@pytest.fixture
def recipe(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A recipe of a model that the test provides, in words."""
    weak = Writer(reply=lambda prompt: "technical" if "screen" in prompt.rpartition("human")[2] else "hm")
    monkeypatch.setattr("sleicl_chains.answering.opening.open_recipe_model", lambda *_, **__: weak)
    path = tmp_path / "desk.json"
    recipe_of(weak, "embedded:smollm2").save(path)
    return path


def test_a_recipe_answers_once_or_until_off(recipe: Path, home: Home) -> None:
    weak = Writer(reply=lambda prompt: "talk")
    chat = chat_with(weak, home)
    chat.hear(f"/task {recipe} My screen is black")
    assert said(chat) == ("technical\n", "") and chat.judge is None
    chat.hear("/task desk")  # by now it is known by its task's name
    chat.hear("The screen again")
    with pytest.raises(SleiclError, match="the reply gives no answer: found 'hm'; expected one of billing, technical"):
        chat.hear("What?")
    chat.hear("/why")
    out, notes = said(chat)
    assert notes == "[desk answers (billing, technical); /task off goes back to the talk]\n"
    assert out.startswith("technical\ndesk: asked with the grimoire desk-1\n  Verdict on the grimoire: ")
    chat.hear("/task off")
    chat.hear("hi")
    assert said(chat) == ("talk\n", "[the talk goes on]\n")
    assert [turn.text for turn in chat.conversation.turns] == ["hi"]  # questions are no part of the talk
    assert weak.asked("reply") == ["human: hi"]


def test_a_label_has_its_probability_and_the_one_that_comes_next() -> None:
    shares = {"billing": 0.6, "technical": 0.3, "sales": 0.1}
    answer = Answer(label="billing", text="billing", valid=True, probability=0.6, scores=shares)
    assert told(answer) == "probability 0.60; next: technical, 0.30"
    # Calibrated: 0.2 is left, and three quarters of it are the next one's.
    assert told(replace(answer, probability=0.8, note="guessed")) == "probability 0.80; next: technical, 0.15; guessed"
    assert told(replace(answer, probability=None, scores={})) == ""


def test_a_recipe_for_a_model_elsewhere_needs_the_user_to_name_it(home: Home, tmp_path: Path) -> None:
    path = tmp_path / "far.json"
    recipe_of(Writer(), "openai:gpt-4o-mini").save(path)
    chat = chat_with(Writer(), home, name="openai:gpt-4o-mini")  # a name that a recipe gave
    with pytest.raises(RecipeRefused):
        chat.hear(f"/task {path}")
    assert chat.judges == {}


def test_another_model_goes_on_with_the_talk(home: Home, server: OllamaServer) -> None:
    chat = chat_with(Writer(reply=lambda prompt: "one"), home, options={"base_url": server.url}, name="ollama:former")
    chat.hear("hi")
    chat.hear("/models")
    assert said(chat)[0].splitlines()[1].startswith("  ollama:smollm2:135m  98 MB  does not follow guides")
    with pytest.raises(ModelNotFound, match="The model 'missing' is not on"):
        chat.hear("/model ollama:missing")
    assert chat.name == "ollama:former"
    chat.hear("/model smollm2:135m")  # as `ollama run` has it
    assert chat.name == "ollama:smollm2:135m" and len(chat.conversation.turns) == 1
    chat.hear("/model")
    assert said(chat)[0].splitlines()[-1] == "ollama:smollm2:135m, context 8192, replies up to 1024"


def test_what_tab_completes(home: Home, tmp_path: Path, recipe: Path, server: OllamaServer) -> None:
    chat = chat_with(Writer(), home, library=True, options={"base_url": server.url})
    assert completions(chat, "hello /m") == ("", [])
    assert completions(chat, "/m") == ("/m", ["/model ", "/models"])
    assert completions(chat, "/grimoire s")[1] == [
        "sentiment-2d74f2aa", "spam-abd35001", "summarise-notes-fdb185e7", "support-d090011a",
    ]  # fmt: skip
    assert completions(chat, "/model ollama:smol") == ("ollama:smol", ["ollama:smollm2:135m"])
    (tmp_path / "a b.json").touch()
    (tmp_path / "a\x1b[2J.json").touch()
    (tmp_path / "all").mkdir()
    assert completions(chat, f"/load {tmp_path}/a") == (f"{tmp_path}/a", [f"{tmp_path}/a b.json", f"{tmp_path}/all/"])
    chat.hear(f"/task {recipe} screen")
    assert completions(chat, "/task ")[1][:2] == ["off", "desk"]
    assert completions(chat, "/bye n") == ("n", [])


def test_first_words() -> None:
    assert first_word("r.json what now") == ("r.json", "what now")
    assert first_word("'my r.json' what 'now'") == ("my r.json", "what 'now'")
    assert first_word("'open") == ("'open", "") and first_word("") == ("", "")


def test_a_grimoire_of_a_file(home: Home, tmp_path: Path) -> None:
    path = tmp_path / "mine.md"
    text = "---\ntask: t\ndescription: Say yes.\n---\n# Simple grimoire\nAlways yes.\n"
    path.write_text(text, encoding="utf-8")
    found = grimoire_named(str(path), None)
    assert not isinstance(found, str) and found.simple == "Always yes."


def test_a_reply_that_was_cut_says_so(home: Home) -> None:
    parts = ["Once upon", {"content": "", "response_metadata": {"finish_reason": "length"}}]
    chat = chat_with(Speaker(parts=parts), home, stream=Terminal)
    chat.hear("a story")
    assert said(chat) == ("Once upon\n", " \x1b[2m[cut at 512 tokens: -o max_tokens=...]\x1b[0m")


def test_thinking_is_dim_for_a_person_and_nothing_for_a_pipe(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    parts = [
        {"content": "", "additional_kwargs": {"reasoning_content": "Let me see. "}},
        "<think>\nHm.", "</think>\n\n", "Yes.",
    ]  # fmt: skip
    watched = chat_with(Speaker(parts=parts), home, stream=Terminal)
    watched.hear("?")
    out, notes = said(watched)
    assert out == "Yes.\n" and notes == "\x1b[2mLet me see. \x1b[0m\x1b[2m\nHm.\x1b[0m\n"
    piped = chat_with(Speaker(parts=parts), home)
    piped.hear("?")
    assert said(piped) == ("Yes.\n", "")
    assert [turn.reply for turn in watched.conversation.turns] == ["Yes."]


@pytest.mark.parametrize("variable", [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_nobody_is_shown_styles_that_does_not_want_them(
    variable: tuple[str, str], home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(*variable)
    chat = chat_with(Speaker(), home, stream=Terminal)
    chat.hear("/clear")
    assert said(chat) == ("", "[0 turns forgotten]\n")


def test_no_reply_and_no_grimoire_moves_the_cursor(home: Home, tmp_path: Path) -> None:
    evil = "\x1b[2Jgone\x9b31m\r\n\x07\u202eback\tdone"
    chat = chat_with(Speaker(parts=[evil]), home, stream=Terminal)
    path = tmp_path / "evil.json"
    path.write_text(json.dumps({"task": "t", "strong_model": "s", "sampler": "none", "profound": evil, "simple": evil}))
    chat.conversation.grimoire = grimoire_named(str(path), None)
    chat.hear("hi")
    chat.hear("/why")
    chat.hear("/prompt")
    seen = "".join(said(chat)).replace("\x1b[2m", "").replace("\x1b[0m", "")
    assert "gone" in seen and "\\u001b[2J" in seen and "\tdone" in seen
    assert not [one for one in seen if one not in "\n\t" and not one.isprintable()]


def test_a_failed_answer_leaves_the_talk_as_it_was(home: Home) -> None:
    weak = Speaker()
    chat = chat_with(weak, home)
    chat.hear("one")
    weak.parts = ["Half ", SleiclError("the server is gone")]
    with pytest.raises(SleiclError, match="gone"):
        chat.hear("two")
    chat.screen.complain("the server is gone")
    weak.parts = ["Whole."]
    chat.hear("/retry")
    assert said(chat) == ("Hello there.\nHalf \nWhole.\n", "the server is gone\n")
    assert [(turn.text, turn.ended) for turn in chat.conversation.turns] == [("one", "whole"), ("two", "whole")]


def test_a_model_that_cannot_read_is_told_once(home_with_weights: Home) -> None:
    from sleicl_chains.serving.commands import open_model

    weak = open_model("embedded:smollm2", home_with_weights, {})
    chat = chat_with(weak, home_with_weights, library=True)
    chat._tell_unreadable()
    chat._tell_unreadable()
    assert said(chat)[1] == (
        "[embedded:smollm2 does not follow guides (.23, chance .25); a larger model may; it is shown no grimoire, "
        "unless you name one with /grimoire]\n"
    )
    assert chat.conversation.pick(MAIL).grimoire is None
