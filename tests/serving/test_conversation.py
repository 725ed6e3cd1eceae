"""A conversation as programs use it: fake models whose prompts are seen, and the embedded small one."""

import json
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult

from sleicl_chains.errors import InputError, PromptTooLong, ServerDown, StoreError
from sleicl_chains.files import Home
from sleicl_chains.grimoires.store import GrimoireStore
from sleicl_chains.models.names import weak_model
from sleicl_chains.serving.conversation import Conversation, Piece
from sleicl_chains.serving.picking import Picker


class Talker(BaseChatModel):
    """Says what it is told to say, and keeps what it was sent."""

    says: list[Any]
    """A reply each: its pieces, or an error raised in their place."""
    n_ctx: int = 4096
    max_tokens: int = 100
    most: int = 10**9
    """Characters of a prompt that it takes."""
    sent: list[list[BaseMessage]] = []
    options: list[dict[str, Any]] = []

    @property
    def _llm_type(self) -> str:
        return "talker"

    def _generate(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> ChatResult:
        text = "".join(str(chunk.message.content) for chunk in self._stream(messages))
        return ChatResult(generations=[ChatGeneration(message=AIMessage(text))])

    def _stream(
        self, messages: list[BaseMessage], stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None, **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:  # fmt: skip
        if sum(len(message.text) for message in messages) > self.most:
            raise PromptTooLong("too long")
        self.sent.append(messages)
        self.options.append(kwargs)
        said = self.says.pop(0) if self.says else ["fine"]
        for piece in said:
            if isinstance(piece, BaseException):
                raise piece
            chunk = AIMessageChunk(**piece) if isinstance(piece, dict) else AIMessageChunk(content=piece)
            yield ChatGenerationChunk(message=chunk)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> GrimoireStore:
    return GrimoireStore(tmp_path_factory.mktemp("talk"))


def said(talk: Conversation, text: str) -> str:
    return "".join(talk.stream(text))


def shown(messages: list[BaseMessage]) -> list[tuple[str, str]]:
    return [(one.type, one.text) for one in messages]


def test_each_message_has_its_grimoire_and_the_talk_before_it(store: GrimoireStore) -> None:
    model = Talker(says=[["It is ", "spam."], ["You are welcome."]])
    talk = Conversation(model, store, system="Be brief.")
    assert said(talk, "Is this mail a scam? “You have won, click here”") == "It is spam."
    turn = talk.turns[-1]
    assert turn.grimoire and turn.grimoire.task == "spam" and turn.why.startswith("near to “Is this mail a scam?”")
    assert (turn.reply, turn.ended) == ("It is spam.", "whole")
    system = model.sent[0][0].text
    assert system.startswith("Be brief.") and turn.grimoire.text() in system
    assert said(talk, "how long do I boil an egg?") == "You are welcome."
    assert talk.turns[-1].grimoire is None and talk.turns[-1].why == "none fits"
    assert shown(model.sent[1]) == [
        ("system", "Be brief."),
        ("human", "Is this mail a scam? “You have won, click here”"),
        ("ai", "It is spam."),
        ("human", "how long do I boil an egg?"),
    ]


def test_the_turn_and_its_grimoire_are_known_before_the_first_word(store: GrimoireStore) -> None:
    talk = Conversation(Talker(says=[["yes"]]), store)
    talk.stream("Is this spam?")
    assert talk.turns[-1].grimoire and talk.turns[-1].ended == "open"


def test_chosen_by_the_user_or_none(store: GrimoireStore) -> None:
    model = Talker(says=[])
    chosen = store.get("urgency-4d55f81a")
    talk = Conversation(model, store, grimoire=chosen)
    said(talk, "Is this spam?")
    assert talk.turns[-1].grimoire == chosen and talk.turns[-1].why == "chosen by you"
    talk.grimoire = "none"
    said(talk, "Is this spam?")
    assert talk.turns[-1].grimoire is None and talk.turns[-1].why == "no grimoires wanted"
    bare = Conversation(Talker(says=[]))
    said(bare, "Is this spam?")
    assert bare.turns[-1].grimoire is None and bare.messages("hi") == [*bare.messages("hi")[:-1], HumanMessage("hi")]


def test_a_model_that_is_known_not_to_read_gets_none(home_with_weights: Home) -> None:
    store, weak = GrimoireStore(home_with_weights), weak_model("embedded:smollm2", home=home_with_weights)
    talk = Conversation(weak, store)
    assert talk.unreadable.startswith("embedded:smollm2 does not follow guides")
    assert talk.pick("Is this spam?").grimoire is None and talk.pick("Is this spam?").why == talk.unreadable
    trusting = Conversation(weak, store, unreadable="")
    assert trusting.unreadable == "" and trusting.pick("Is this spam?").grimoire
    talk.grimoire = store.get("spam-abd35001")
    assert talk.pick("hi").grimoire, "what the user chooses is shown all the same"


def test_the_oldest_turns_go_first_and_the_grimoire_never(store: GrimoireStore) -> None:
    """A context of 1,200 tokens, 100 for the reply; each turn is about 100 + 2 x 8, the guide about 600."""
    model = Talker(says=[["a" * 200]] * 9, n_ctx=1200)
    talk = Conversation(model, store)
    for number in range(6):
        said(talk, f"{number} " + "b" * 198)
    said(talk, "Is this mail a scam?")
    system, *turns, last = model.sent[-1]
    assert talk.turns[-1].grimoire and talk.turns[-1].grimoire.text() in system.text
    assert last.text == "Is this mail a scam?"
    kept = [one.text[0] for one in turns if one.type == "human"]
    assert 0 < len(kept) < 6 and kept == [str(number) for number in range(6 - len(kept), 6)]
    assert len(turns) == 2 * len(kept)


def test_a_model_whose_replies_may_fill_its_context_still_remembers_the_talk() -> None:
    model = Talker(says=[["one"], ["two"]], n_ctx=1000, max_tokens=1000)
    talk = Conversation(model)
    said(talk, "a")
    said(talk, "b")
    assert shown(model.sent[1]) == [("human", "a"), ("ai", "one"), ("human", "b")]


def test_a_prompt_that_is_longer_than_estimated_is_asked_again_without_the_oldest_turn(store: GrimoireStore) -> None:
    model = Talker(says=[["one"], ["two"], ["three"]], most=60)
    talk = Conversation(model, store)
    said(talk, "what is the capital of France, a")
    said(talk, "how old is the universe, b")
    assert said(talk, "who was first, c") == "three"
    assert [one.text for one in model.sent[-1]][-1] == "who was first, c"
    assert len(model.sent[-1]) < 5
    with pytest.raises(PromptTooLong):
        said(talk, "d" * 61)
    assert talk.turns[-1].ended == "failed"


def test_a_failed_turn_is_not_shown_again_and_can_be_retried(store: GrimoireStore) -> None:
    model = Talker(says=[["half of", ServerDown("gone")], ["whole"], ["again"]])
    talk = Conversation(model, store)
    with pytest.raises(ServerDown):
        said(talk, "how are you?")
    assert (talk.turns[-1].ended, talk.turns[-1].reply) == ("failed", "half of")
    assert said(talk, "still there?") == "whole"
    assert shown(model.sent[1]) == [("human", "still there?")]
    assert "".join(piece.text for piece in talk.retry()) == "again"
    assert [turn.text for turn in talk.turns] == ["how are you?", "still there?"]


def test_a_reply_that_is_left_early_stays_as_far_as_it_came(store: GrimoireStore) -> None:
    model = Talker(says=[["one ", "two ", "three"], ["go on"]])
    talk = Conversation(model, store)
    stream = talk.pieces("count")
    assert next(iter(stream)).text == "one "
    stream.close()
    assert (talk.turns[-1].ended, talk.turns[-1].reply) == ("stopped", "one")
    said(talk, "and then?")
    assert ("ai", "one") in shown(model.sent[-1])


def test_thinking_is_apart_and_never_history(store: GrimoireStore) -> None:
    model = Talker(
        says=[
            ["<thi", "nk>Hm, ", "let me see</think>", "\nNow <b>x</b>"],
            [{"content": "", "additional_kwargs": {"reasoning_content": "quietly"}}, "Yes."],
        ]
    )
    talk = Conversation(model, store)
    pieces = list(talk.pieces("why?"))
    assert "".join(one.text for one in pieces if one.thinking) == "Hm, let me see"
    assert "".join(one.text for one in pieces if not one.thinking).strip() == "Now <b>x</b>"
    assert talk.turns[-1].reply == "Now <b>x</b>"
    assert list(talk.pieces("sure?")) == [Piece("quietly", thinking=True), Piece("Yes.")]
    assert shown(model.sent[1]) == [("human", "why?"), ("ai", "Now <b>x</b>"), ("human", "sure?")]


def test_cut_replies_and_usage(store: GrimoireStore) -> None:
    usage = {"input_tokens": 5, "output_tokens": 2, "total_tokens": 7}
    end = {"content": "on", "response_metadata": {"finish_reason": "length"}, "usage_metadata": usage}
    talk = Conversation(Talker(says=[["on and ", end]]), store)
    said(talk, "talk")
    assert (talk.turns[-1].ended, talk.turns[-1].usage) == ("cut", usage)


async def test_without_blocking(store: GrimoireStore) -> None:
    talk = Conversation(Talker(says=[["It is ", "spam."]]), store)
    assert "".join([piece.text async for piece in talk.apieces("Is this spam?")]) == "It is spam."
    assert talk.turns[-1].ended == "whole" and talk.turns[-1].grimoire


def test_of_messages_that_a_client_sends(store: GrimoireStore) -> None:
    before = [
        SystemMessage("Be kind."),
        AIMessage("Hello, what can I do?"),
        HumanMessage("Is this mail a scam?"),
        AIMessage("Yes."),
    ]
    model = Talker(says=[["Also."]])
    talk = Conversation.of(model, store, before)
    assert [(turn.text, turn.reply) for turn in talk.turns] == [("Is this mail a scam?", "Yes.")]
    said(talk, "and this one?")
    assert talk.turns[-1].grimoire and talk.turns[-1].grimoire.task == "spam" and talk.turns[-1].pick.held
    with pytest.raises(InputError, match="found tool"):
        Conversation.of(model, store, [HumanMessage("a"), ToolMessage("b", tool_call_id="1")])
    with pytest.raises(InputError, match="must be the assistant's"):
        Conversation.of(model, store, [HumanMessage("a")])


def test_saved_and_loaded(store: GrimoireStore, tmp_path: Path) -> None:
    talk = Conversation(Talker(says=[["Yes."]]), store, system="Be kind.")
    said(talk, "Is this mail a scam?")
    file = tmp_path / "talk.json"
    talk.save(file)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    other = Conversation(Talker(says=[]), store)
    other.load(file)
    assert other.system == "Be kind." and other.turns == [
        type(talk.turns[0])(one.text, one.pick, one.reply, one.ended) for one in talk.turns
    ]
    talk.turns[0].text = "long " * 300_000
    talk.save(file)
    other.load(file)
    assert other.turns[0].text == talk.turns[0].text
    file.write_text(json.dumps({"sleicl": "conversation", "turns": [{"text": 1}]}))
    with pytest.raises(InputError, match=r"turns\.0\.text|text"):
        other.load(file)
    assert other.turns, "what was there stays"


class Local(Talker):
    """A model that renders its own prompts, as the local ones do."""

    def render(self, messages: Sequence[BaseMessage]) -> str:
        return str(messages)


async def test_a_label_is_asked_for_without_dice(store: GrimoireStore) -> None:
    model, other = Local(says=[]), Talker(says=[])
    talk = Conversation(model, store)
    said(talk, "Is this mail a scam?")
    said(talk, "how long do I boil an egg?")
    assert [piece.text async for piece in talk.apieces("Is this spam?", temperature=0.5)]
    assert model.options == [{"temperature": 0.0}, {}, {"temperature": 0.5}]
    said(Conversation(other, store), "Is this mail a scam?")
    assert other.options == [{}], "some models of providers know no temperature"


def test_a_retry_that_cannot_begin_takes_nothing_away(tmp_path: Path) -> None:
    talk = Conversation(Talker(says=[]), GrimoireStore(Home(tmp_path)))
    said(talk, "hello")
    (tmp_path / "chroma").rename(tmp_path / "old")
    (tmp_path / "chroma").write_text("no folder")
    talk.picker = Picker(GrimoireStore(Home(tmp_path)))
    with pytest.raises(StoreError):
        talk.retry()
    assert [turn.text for turn in talk.turns] == ["hello"]


@pytest.mark.parametrize("problem", [ServerDown("gone"), RuntimeError("gone")])
def test_a_retry_that_fails_leaves_what_was_answered_before(problem: Exception, store: GrimoireStore) -> None:
    model = Talker(says=[["whole"], ["half of", problem], ["on"]])
    talk = Conversation(model, store)
    said(talk, "still there?")
    with pytest.raises(type(problem), match="gone"):
        list(talk.retry())
    assert [(turn.text, turn.reply, turn.ended) for turn in talk.turns] == [("still there?", "whole", "whole")]
    said(talk, "and now?")
    assert shown(model.sent[2]) == [("human", "still there?"), ("ai", "whole"), ("human", "and now?")]


def test_an_empty_message_and_nothing_to_retry(store: GrimoireStore) -> None:
    talk = Conversation(Talker(says=[]), store)
    with pytest.raises(InputError, match="the message"):
        talk.stream("half \udc80")
    with pytest.raises(InputError, match="the message is empty"):
        talk.stream(" ")
    with pytest.raises(InputError, match="nothing to try again"):
        talk.retry()
    assert talk.turns == []
