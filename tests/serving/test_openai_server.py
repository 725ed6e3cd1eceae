"""The server as OpenAI's own client and LangChain's see it."""

import math
from collections.abc import Iterator
from typing import Any, Literal

import httpx
import openai
import pytest
from langchain_openai import ChatOpenAI
from openai import OpenAI
from pydantic import BaseModel

from sleicl_chains.answers import Answer
from sleicl_chains.errors import PromptTooLong, RejectedReply, ServerDown
from sleicl_chains.files import Home
from sleicl_chains.serving.server.replies import shares
from tests.support.serving import Serving, Talker, desk, menu_of, serving

LIST = "notes-to-list-b5baed14"


def ask(text: Any, *before: dict[str, Any]) -> Any:
    return [*before, {"role": "user", "content": text}]


def client_of(server: Serving, **settings: Any) -> OpenAI:
    return OpenAI(base_url=server.url, api_key="none", max_retries=0, **settings)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Serving, Talker]]:
    """One server for all: each home makes an index of its own."""
    talker = Talker()
    with serving(menu_of(talker, Home(tmp_path_factory.mktemp("home")), desk())) as server:
        yield server, talker


@pytest.fixture
def talker(running: tuple[Serving, Talker]) -> Iterator[Talker]:
    """The chat's model; what a test changes of it holds for this test."""
    talker = running[1]
    before = {name: getattr(talker, name) for name in ("reply", "fails_at", "problem")}
    talker.calls.clear()
    yield talker
    for name, value in before.items():
        setattr(talker, name, value)


@pytest.fixture
def server(running: tuple[Serving, Talker]) -> Serving:
    return running[0]


@pytest.fixture
def client(server: Serving) -> Iterator[OpenAI]:
    with client_of(server) as found:
        yield found


def test_models_are_recipes_chat_and_chat_with_each_grimoire(client: OpenAI) -> None:
    names = [one.id for one in client.models.list()]
    assert names[:2] == ["desk", "chat"] and f"chat:{LIST}" in names
    assert [client.models.retrieve(name).id for name in ("desk", f"chat:{LIST}")] == ["desk", f"chat:{LIST}"]
    with pytest.raises(openai.NotFoundError) as refused:
        client.models.retrieve("dusk")
    assert (refused.value.code, refused.value.param) == ("model_not_found", "model")
    assert "Did you mean desk?" in refused.value.message


def test_a_chat_is_answered_whole_and_with_what_it_cost(client: OpenAI, talker: Talker) -> None:
    talk = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hi."},
    ]
    parts = [{"type": "text", "text": "Are"}, {"type": "text", "text": "you there?"}]
    raw = client.chat.completions.with_raw_response.create(
        model="chat", messages=ask(parts, *talk), temperature=0.5, max_tokens=50, seed=7, stop="###", top_p=0.9,
    )  # fmt: skip
    found = raw.parse()
    assert found.choices[0].message.content == "You said Are\nyou there?"
    assert (found.choices[0].finish_reason, found.choices[0].logprobs, found.model) == ("stop", None, "chat")
    assert found.usage and (found.usage.prompt_tokens, found.usage.completion_tokens) == (11, 4)
    assert talker.calls == [(
        "system: Be brief.\nhuman: Hello\nai: Hi.\nhuman: Are\nyou there?",
        {"temperature": 0.5, "max_tokens": 50, "seed": 7, "stop": ["###"]},
    )]  # fmt: skip
    told = {name: value for name, value in raw.headers.items() if name.startswith("x-sleicl")}
    assert told == {"x-sleicl-grimoire": "none", "x-sleicl-why": told["x-sleicl-why"], "x-sleicl-ignored": "top_p"}


def test_the_grimoire_that_fits_stands_before_the_model_and_in_the_headers(client: OpenAI, talker: Talker) -> None:
    text = "Turn these loose notes into a clear list: milk, call Ana, book the train"
    raw = client.chat.completions.with_raw_response.create(model="chat", messages=ask(text))
    assert raw.headers["x-sleicl-grimoire"] == LIST and raw.headers["x-sleicl-why"].startswith("near to its ")
    assert "Put into the line what its doer needs" in talker.calls[0][0]
    raw = client.chat.completions.with_raw_response.create(model=f"chat:{LIST}", messages=ask("Hello"))
    assert (raw.headers["x-sleicl-grimoire"], raw.headers["x-sleicl-why"]) == (LIST, "chosen by you")


def test_a_chat_streams_word_by_word_and_ends_with_the_usage(client: OpenAI) -> None:
    stream = client.chat.completions.create(
        model="chat", messages=ask("one two"), stream=True, stream_options={"include_usage": True}, max_tokens=2
    )
    with stream:
        chunks = [*stream]
    words = [one.choices[0].delta.content for one in chunks if one.choices]
    assert words == ["", "You", " said", " one", " two", None]
    assert [one.choices[0].finish_reason for one in chunks if one.choices] == [None] * 5 + ["length"]
    assert not chunks[-1].choices and chunks[-1].usage and chunks[-1].usage.total_tokens == 7
    assert len({one.id for one in chunks}) == 1


def test_thinking_is_no_part_of_the_content(client: OpenAI, talker: Talker) -> None:
    talker.reply = lambda prompt: "<think>\nHmm.\n</think>\n\nFour."
    found = client.chat.completions.create(model="chat", messages=ask("Two and two?")).choices[0].message
    assert (found.content or "").strip() == "Four." and "Hmm." in found.model_dump()["reasoning_content"]


def test_a_recipe_answers_with_a_label_and_says_what_it_did_not_look_at(client: OpenAI) -> None:
    messages = ask("I was charged twice", {"role": "system", "content": "Be nice."}, {"role": "user", "content": "Hi"},
                   {"role": "assistant", "content": "Hello"})  # fmt: skip
    raw = client.chat.completions.with_raw_response.create(
        model="desk", messages=messages, logprobs=True, top_logprobs=2, temperature=1
    )
    assert raw.headers["x-sleicl-ignored"] == "system, earlier turns, temperature"
    assert raw.headers["x-sleicl-grimoire"] == "desk-1"
    (choice,) = raw.parse().choices
    assert choice.message.content == "billing" and choice.logprobs and choice.logprobs.content
    (token,) = choice.logprobs.content
    assert (token.token, token.bytes) == ("billing", [*b"billing"])
    assert {one.token: round(math.exp(one.logprob), 6) for one in token.top_logprobs} == {
        "billing": 0.75, "technical": 0.25,
    }  # fmt: skip


def test_a_label_streams_as_one_piece_with_its_probability(client: OpenAI) -> None:
    with client.chat.completions.create(model="desk", messages=ask("Paid twice"), stream=True, logprobs=True) as stream:
        chunks = [*stream]
    assert [one.choices[0].delta.content for one in chunks] == ["", "billing", None]
    found = chunks[1].choices[0].logprobs
    assert found and found.content and math.isclose(math.exp(found.content[0].logprob), 0.75, abs_tol=1e-6)


def test_probabilities_add_up_where_the_answer_is_calibrated() -> None:
    answer = Answer("a", "a", True, probability=0.5, scores={"a": 0.8, "b": 0.15, "c": 0.05})
    assert [(label, round(share, 4)) for label, share in shares(answer)] == [("a", 0.5), ("b", 0.375), ("c", 0.125)]
    assert shares(Answer("a", "a", True, probability=1.0, scores={"a": 1.0, "b": 0.0})) == [("a", 1.0), ("b", 0.0)]
    assert shares(Answer("a", "a", True)) == []


class Handled(BaseModel):
    team: Literal["technical", "billing"]


def test_a_recipe_answers_in_the_json_that_is_asked_for(client: OpenAI) -> None:
    found = client.chat.completions.parse(model="desk", messages=ask("Paid twice"), response_format=Handled)
    assert found.choices[0].message.parsed == Handled(team="billing")
    plain = client.chat.completions.create(
        model="desk", messages=ask("Paid twice"), response_format={"type": "json_object"}
    )
    assert plain.choices[0].message.content == '{"answer": "billing"}'


def test_a_chat_is_held_to_a_schema_where_its_model_can_be(client: OpenAI, talker: Talker) -> None:
    client.chat.completions.create(
        model="chat", messages=ask("hi"),
        response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}},
    )  # fmt: skip
    assert talker.calls[0][1] == {"held_to": {"type": "object"}}


@pytest.mark.parametrize(
    ("field", "body"),
    [
        ("tools", {"tools": [{"type": "function", "function": {"name": "f"}}]}),
        ("functions", {"functions": [{"name": "f"}]}),
        ("n", {"n": 2}),
        ("modalities", {"modalities": ["text", "audio"]}),
        ("audio", {"audio": {"voice": "alloy"}}),
        ("messages.0.content", {"messages": ask([{"type": "image_url", "image_url": {"url": "data:"}}])}),
        ("messages.0.content", {"messages": ask([{"type": "input_audio", "input_audio": {}}])}),
        ("messages.1.role", {"messages": ask("x") + [{"role": "tool", "content": "y", "tool_call_id": "1"}]}),
        ("messages", {"messages": ask("x") + [{"role": "assistant", "content": "y"}]}),
        ("messages", {"messages": []}),
        ("messages", {"messages": ask("  ")}),
        ("model", {"model": 3}),
        ("temperature", {"temperature": 9}),
        ("max_tokens", {"max_tokens": 0}),
        ("logprobs", {"logprobs": True}),
        ("top_logprobs", {"top_logprobs": 3}),
        ("stop.0", {"stop": [1]}),
        ("top_logprobs", {"logprobs": True, "top_logprobs": 21}),
        ("response_format", {"response_format": {"type": "yaml"}}),
        ("response_format", {"model": "desk", "response_format": {
            "type": "json_schema", "json_schema": {"schema": {"properties": {"x": {"enum": ["a", "b"]}}}}}}),
    ],
)  # fmt: skip
def test_what_is_not_served_is_refused_by_the_name_of_its_field(
    client: OpenAI, field: str, body: dict[str, Any]
) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(**{"model": "chat", "messages": ask("x"), **body})
    assert (refused.value.param, refused.value.type) == (field, "invalid_request_error")


@pytest.mark.parametrize(
    "body", [b"", b"{", b'{"model": "chat", "messages": "x"}', b"[" * 100_000, b'"\\ud800"', b"\xff"]
)
def test_what_is_no_request_gets_an_error_and_no_trace(server: Serving, body: bytes) -> None:
    reply = httpx.post(f"{server.url}/chat/completions", content=body)
    assert reply.status_code == 400 and reply.json()["error"]["type"] == "invalid_request_error"


def test_a_greeting_that_comes_first_and_messages_in_a_row_are_taken(client: OpenAI, talker: Talker) -> None:
    messages = ask("b", {"role": "assistant", "content": "How can I help?"}, {"role": "user", "content": "a"})
    raw = client.chat.completions.with_raw_response.create(model="chat", messages=messages)
    assert talker.calls[0][0] == "human: a\n\nb" and raw.headers["x-sleicl-ignored"] == "greeting"


@pytest.mark.parametrize(
    ("problem", "status", "code"),
    [
        (PromptTooLong("The prompt has 9,000 tokens"), 400, "context_length_exceeded"),
        (ServerDown("No Ollama server answers"), 503, "model_unavailable"),
        (RejectedReply("empty"), 502, "rejected_reply"),
        (RuntimeError("/home/me/secret"), 500, "internal_error"),
    ],
)
def test_what_goes_wrong_before_the_first_word_has_a_status(
    client: OpenAI, talker: Talker, problem: Exception, status: int, code: str
) -> None:
    talker.fails_at, talker.problem = 0, problem
    for stream in (False, True):
        with pytest.raises(openai.APIStatusError) as refused:
            client.chat.completions.create(model="chat", messages=ask("x"), stream=stream)
        assert (refused.value.status_code, refused.value.code) == (status, code)
        assert "secret" not in refused.value.message
        assert int(refused.value.response.headers.get("Retry-After", "1")) >= 1
        assert ("Retry-After" in refused.value.response.headers) == (status == 503)


def test_what_goes_wrong_in_the_midst_of_a_stream_ends_it_with_an_error(
    server: Serving, client: OpenAI, talker: Talker
) -> None:
    talker.fails_at, talker.problem = 2, ServerDown("No Ollama server answers")
    server.log.clear()
    heard = []
    with (
        client.chat.completions.create(model="chat", messages=ask("one two"), stream=True) as stream,
        pytest.raises(openai.APIError, match="No Ollama server answers"),
    ):
        for chunk in stream:
            heard.append(chunk.choices[0].delta.content)
    assert heard == ["", "You", " said"]
    assert server.logged(1) == ["POST /v1/chat/completions chat 503"]


def test_langchains_model_of_openai_chats_streams_and_reads_probabilities(server: Serving) -> None:
    model = ChatOpenAI(model="chat", base_url=server.url, api_key="none", max_retries=0)  # type: ignore[arg-type]
    assert model.invoke([("system", "Be brief."), ("user", "Hello")]).text == "You said Hello"
    assert [one.text for one in model.stream("a b") if one.text] == ["You", " said", " a", " b"]
    recipe = ChatOpenAI(model="desk", base_url=server.url, api_key="none", logprobs=True)  # type: ignore[arg-type]
    answer = recipe.invoke("Paid twice")
    (token,) = answer.response_metadata["logprobs"]["content"]
    assert (answer.text, token["token"]) == ("billing", "billing")
    structured = ChatOpenAI(model="desk", base_url=server.url, api_key="none")  # type: ignore[arg-type]
    found = structured.with_structured_output(Handled, method="json_schema").invoke("Paid twice")
    assert found == Handled(team="billing")
