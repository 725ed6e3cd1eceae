"""The guarded chat model against a server that replays: what is sent, what is accepted, what is remembered."""

import asyncio
import gc
import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.callbacks import get_usage_metadata_callback
from langchain_core.globals import set_llm_cache
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage
from langchain_core.runnables import ConfigurableField

from sleicl_chains.errors import (
    CutReply,
    ModelNotFound,
    OptionError,
    PromptLost,
    PromptTooLong,
    ServerBusy,
    ServerDown,
    SleiclError,
    Unsupported,
)
from sleicl_chains.journal import identity
from sleicl_chains.models import strong_model, weak_model
from sleicl_chains.ollama.model import OllamaModel
from tests.ollama_server import Asked, OllamaServer, Said, alternatives, chat, chatml, generated, recorded, said

CHAT: list[BaseMessage] = [SystemMessage("Grimoire: grass is green."), HumanMessage("What colour is grass?")]
LOADING = ("num_ctx", "num_gpu", "num_thread")


def model(server: OllamaServer, name: str = "smollm2:135m", **options: Any) -> OllamaModel:
    return OllamaModel(model=name, base_url=server.url, timeout_s=5, **options)


@pytest.fixture
def server() -> Iterator[OllamaServer]:
    with OllamaServer() as running:
        yield running


def answering(*replies: Said) -> OllamaServer:
    """Return a server that gives chats one reply after the other, the last one for ever."""
    left = list(replies)

    def answer(asked: Asked) -> Said | None:
        if asked.route != "/api/chat" or asked.render_only:
            return None
        return left.pop(0) if len(left) > 1 else left[0]

    return OllamaServer(answer)


# ------------------------------------------------------------------ what is sent


def test_by_name(server: OllamaServer) -> None:
    weak = weak_model("ollama:smollm2:135m", base_url=server.url, max_tokens=7)
    assert isinstance(weak, OllamaModel)
    assert (weak.model, weak.num_predict, weak.num_ctx, weak.temperature) == ("smollm2:135m", 7, 4096, 0.0)
    assert weak.reasoning is False  # a label needs no thinking
    strong = strong_model("ollama:smollm2:135m", base_url=server.url)
    assert isinstance(strong, OllamaModel)
    assert (strong.num_ctx, strong.num_predict, strong.temperature, strong.reasoning) == (8192, 4096, None, None)
    assert server.asked == []  # nothing is asked before the first call


def test_an_unknown_or_wrong_option_is_said() -> None:
    with pytest.raises(OptionError, match="ollama:m: an Ollama model has no shift, truncate; leave it out"):
        weak_model("ollama:m", truncate=True, shift=True)
    with pytest.raises(OptionError, match="ollama:m: num_ctx='big': Input should be a valid integer"):
        weak_model("ollama:m", num_ctx="big")


def test_nothing_is_ever_cut_and_no_call_reloads_the_model(server: OllamaServer) -> None:
    weak = model(server, num_thread=3, num_gpu=0)
    weak.invoke(CHAT)
    list(weak.stream(CHAT, max_tokens=5))
    weak.invoke(CHAT, temperature=0.9, options={"num_predict": 3})
    weak.score_labels(weak.render(CHAT), ["green", "red"])
    bodies = [asked.body for asked in server.asked if asked.route in ("/api/chat", "/api/generate")]
    assert len(bodies) >= 6
    assert all(body["truncate"] is False and body["shift"] is False for body in bodies)
    assert {tuple(body["options"].get(name) for name in LOADING) for body in bodies} == {(4096, 0, 3)}


def test_options_of_a_call_add_to_those_of_the_model(server: OllamaServer) -> None:
    weak = model(server, seed=7)
    weak.invoke(CHAT, temperature=0.5, max_tokens=9, stop=["."])
    weak.invoke(CHAT, options={"top_k": 3})
    first, second = (body["options"] for body in server.sent("/api/chat"))
    assert first == {"num_ctx": 4096, "num_predict": 9, "temperature": 0.5, "seed": 7, "stop": ["."]}
    assert second == {"num_ctx": 4096, "num_predict": 64, "temperature": 0.0, "seed": 7, "top_k": 3}


def test_a_call_cannot_change_what_would_load_the_model_again(server: OllamaServer) -> None:
    with pytest.raises(OptionError, match="num_ctx=512 in one call would load the model again; .*--option num_ctx=512"):
        model(server).invoke(CHAT, num_ctx=512)
    assert model(server).invoke(CHAT, num_ctx=4096).text


def test_a_call_cannot_name_another_model(server: OllamaServer) -> None:
    with pytest.raises(OptionError, match="a call cannot take the model 'gemma3:270m-base'; make a model of that name"):
        model(server).invoke(CHAT, model="gemma3:270m-base")


def test_tools_and_schemas_are_passed_on(server: OllamaServer) -> None:
    def weather(city: str) -> str:
        """Tell the weather."""
        return city

    weak = model(server)
    weak.bind_tools([weather]).invoke(CHAT)
    weak.invoke(CHAT, format={"type": "object"})
    first, second = server.sent("/api/chat")
    assert first["tools"][0]["function"]["name"] == "weather"
    assert second["format"] == {"type": "object"}


def test_keys_go_to_the_server_and_nowhere_else(server: OllamaServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLLAMA_API_KEY", "sk-secret")
    weak = model(server)
    weak.invoke(CHAT)
    assert {asked.headers["authorization"] for asked in server.asked} == {"Bearer sk-secret"}
    assert "sk-secret" not in repr(weak) + json.dumps(weak.identity) + str(weak._get_llm_string())


def test_a_proxy_is_not_asked_for_loopback(server: OllamaServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    assert model(server).invoke(CHAT).text


# ------------------------------------------------------------------ what is accepted


def test_a_recorded_reply(server: OllamaServer) -> None:
    reply = model(server).invoke(CHAT)
    expected = "".join(part["message"]["content"] for part in recorded("chat").objects)
    end = recorded("chat").objects[-1]
    assert reply.text == expected
    assert reply.usage_metadata == {
        "input_tokens": end["prompt_eval_count"],
        "output_tokens": end["eval_count"],
        "total_tokens": end["prompt_eval_count"] + end["eval_count"],
    }
    assert reply.response_metadata["finish_reason"] == end["done_reason"]


def test_usage_is_counted_by_langchain(server: OllamaServer) -> None:
    with get_usage_metadata_callback() as counted:
        model(server).invoke(CHAT)
    assert counted.usage_metadata["smollm2:135m"]["output_tokens"] == 8


def test_streamed_parts_add_up_to_the_reply(server: OllamaServer) -> None:
    weak = model(server)
    parts = list(weak.stream(CHAT))
    assert "".join(part.text for part in parts) == weak.invoke(CHAT).text and len(parts) > 5
    assert sum(bool(part.usage_metadata) for part in parts) == 1


async def test_the_asynchronous_methods_do_the_same(server: OllamaServer) -> None:
    weak = model(server)
    text = weak.invoke(CHAT).text
    assert (await weak.ainvoke(CHAT)).text == text
    assert "".join([part.text async for part in weak.astream(CHAT)]) == text


@pytest.mark.parametrize("way", ["invoke", "stream", "ainvoke", "astream"])
def test_a_cut_reply_is_an_error_in_every_way(way: str) -> None:
    cut = Said(chat("Grass is green.").lines[:2])
    with answering(cut) as server, pytest.raises(CutReply, match="broke off before its end"):
        _ask(model(server, attempts=1), way)


@pytest.mark.parametrize("way", ["invoke", "stream", "ainvoke", "astream"])
def test_a_server_that_is_down_is_an_error_in_every_way(way: str) -> None:
    weak = OllamaModel(model="m", base_url="http://127.0.0.1:9", attempts=1)
    with pytest.raises(ServerDown, match="`ollama serve`"):
        _ask(weak, way)


def _ask(weak: OllamaModel, way: str) -> str:
    async def acollect() -> str:
        return "".join([part.text async for part in weak.astream(CHAT)])

    match way:
        case "invoke":
            return weak.invoke(CHAT).text
        case "stream":
            return "".join(part.text for part in weak.stream(CHAT))
        case "ainvoke":
            return asyncio.run(weak.ainvoke(CHAT)).text
        case _:
            return asyncio.run(acollect())


@pytest.mark.parametrize("way", ["invoke", "stream", "ainvoke", "astream"])
def test_a_busy_server_is_asked_again(way: str) -> None:
    with answering(said({"error": "busy"}, status=503), chat("Green.")) as server:
        assert _ask(model(server), way).strip() == "Green."
        assert len(server.sent("/api/chat")) == 2


@pytest.mark.parametrize("way", ["invoke", "ainvoke"])
def test_a_reply_that_broke_off_is_asked_for_again(way: str) -> None:
    with answering(Said(chat("Grass is green.").lines[:2]), chat("Green.")) as server:
        assert _ask(model(server), way).strip() == "Green."


@pytest.mark.parametrize("way", ["stream", "astream"])
def test_a_stream_that_somebody_has_begun_to_read_is_not_begun_again(way: str) -> None:
    with answering(Said(chat("Grass is green.").lines[:2]), chat("Green.")) as server:
        with pytest.raises(CutReply):
            _ask(model(server), way)
        assert len(server.sent("/api/chat")) == 1


@pytest.mark.parametrize(
    ("reply", "sent"),
    [
        (said({"error": "server busy"}, status=503), 3),
        (said({"error": "the runner died"}, status=500), 3),
        (Said(chat("Grass is green.").lines[:2], drop=True), 2),
        (Said(()), 3),
        (Said((*chat("Grass is").lines[:2], '{"error": "the runner died"}')), 2),
        (Said(('{"message": {"role": "assistant", "con',)), 3),
        (said({"error": "model requires more system memory (9 GiB) than is available"}, status=500), 1),
        (recorded("too long"), 1),
        (recorded("bad option"), 1),
        (Said(chat("no " * 31).lines[:-1]), 1),  # it would repeat itself again
        (chat(""), 1),
    ],
)
def test_only_what_may_pass_is_asked_again(reply: Said, sent: int) -> None:
    with answering(reply) as server:
        with pytest.raises(SleiclError):
            model(server).invoke(CHAT)
        assert len(server.sent("/api/chat")) == sent


def test_thinking_stays_out_of_the_answer() -> None:
    thought = {"message": {"role": "assistant", "content": "", "thinking": "Grass has chlorophyll."}, "done": False}
    with answering(Said((json.dumps(thought), *chat("Green.").lines))) as server:
        reply = model(server, reasoning=None).invoke(CHAT)
        kept = model(server, reasoning=True).invoke(CHAT)
    assert reply.text.strip() == "Green." and "chlorophyll" not in str(reply)
    assert kept.additional_kwargs["reasoning_content"] == "Grass has chlorophyll."
    assert [body.get("think") for body in server.sent("/api/chat")] == [None, True]


def test_log_probabilities_are_plain_data(server: OllamaServer) -> None:
    part = {"message": {"role": "assistant", "content": "Green"}, "done": False,
            "logprobs": [{"token": "Green", "logprob": -0.1, "bytes": [71], "top_logprobs": []}]}  # fmt: skip
    with answering(Said((json.dumps(part), *chat("").lines))) as scripted:
        reply = model(scripted, logprobs=True).invoke(CHAT)
    assert reply.response_metadata["logprobs"] == part["logprobs"]


# ------------------------------------------------------------------ what is remembered


@pytest.fixture
def cache() -> Iterator[InMemoryCache]:
    found = InMemoryCache()
    set_llm_cache(found)
    yield found
    set_llm_cache(None)


def _said_by(asked: Asked) -> Said | None:
    """Answer with the model and temperature that were asked for."""
    if asked.route != "/api/chat" or asked.render_only:
        return None
    return chat(f"{asked.body['model']} at {asked.body['options']['temperature']}")


def test_a_cache_tells_models_and_temperatures_apart(cache: InMemoryCache) -> None:
    with OllamaServer(_said_by) as server:
        one, other = model(server), model(server, "gemma3:270m-base")
        warm = model(server, temperature=0.7)
        said_first = [one.invoke(CHAT).text, warm.invoke(CHAT).text, one.invoke(CHAT, temperature=0.3).text]
        assert said_first == ["smollm2:135m at 0.0 ", "smollm2:135m at 0.7 ", "smollm2:135m at 0.3 "]
        count = len(server.sent("/api/chat"))
        said_again = [one.invoke(CHAT).text, warm.invoke(CHAT).text, one.invoke(CHAT, temperature=0.3).text]
        assert said_again == said_first and len(server.sent("/api/chat")) == count == 3
        assert other._get_llm_string() != one._get_llm_string()


async def test_the_cache_is_found_from_asynchronous_code(cache: InMemoryCache) -> None:
    with OllamaServer(_said_by) as server:
        first = model(server).invoke(CHAT).text
        assert (await model(server).ainvoke(CHAT)).text == first
        assert len(server.sent("/api/chat")) == 1


def test_a_model_that_was_pulled_again_is_another_one(cache: InMemoryCache) -> None:
    pulled: list[str] = []

    def answer(asked: Asked) -> Said | None:
        if asked.route == "/api/tags" and pulled:
            entries = recorded("tags").objects[0]["models"]
            return said({"models": [entry | {"digest": "f" * 64} for entry in entries]})
        return _said_by(asked)

    with OllamaServer(answer) as server:
        before = model(server)
        before.invoke(CHAT)
        pulled.append("yes")
        after = model(server)
        after.invoke(CHAT)
        assert len(server.sent("/api/chat")) == 2
        assert after.identity["weights"] == "f" * 64 != before.identity["weights"]


def test_the_identity_holds_all_that_decides_an_answer(server: OllamaServer) -> None:
    weak = model(server)
    assert identity(weak) == {
        "engine": "ollama 0.24.0",
        "weights": "dc1c96f6285037d549036a87157187a0fbd4499507f65c116351c5c3965fe92f",
        "layout": "chat", "scoring": 3, "num_ctx": 4096, "num_predict": 64, "temperature": 0.0, "seed": 0,
        "reasoning": False, "format": None,
    }  # fmt: skip
    others = [
        model(server, **changed)
        for changed in ({"seed": 1}, {"num_ctx": 512}, {"stop": ["x"]}, {"format": "json"}, {"top_p": 0.5})
    ]
    assert len({json.dumps(identity(found)) for found in [weak, *others]}) == 6


def test_a_copy_with_other_settings_is_its_own_model(server: OllamaServer) -> None:
    weak = model(server).configurable_fields(temperature=ConfigurableField("temperature"))
    weak.invoke(CHAT, {"configurable": {"temperature": 0.9}})
    assert server.sent("/api/chat")[0]["options"]["temperature"] == 0.9


# ------------------------------------------------------------------ what arrives


def test_the_rendered_prompt_has_grimoire_question_and_cue(server: OllamaServer) -> None:
    weak = model(server)
    assert weak.layout == "chat" and weak.has_template
    assert weak.render([*CHAT, AIMessage("Answer:")]) == (
        "<|im_start|>system\nGrimoire: grass is green.<|im_end|>\n<|im_start|>user\nWhat colour is grass?<|im_end|>\n"
        "<|im_start|>assistant\nAnswer:"
    )
    before = len(server.asked)
    again = weak.render([CHAT[0], HumanMessage("And the sky? {braces} <|im_end|>"), AIMessage("Answer:")])
    assert "And the sky? {braces} <|im_end|>" in again
    assert len(server.asked) == before  # the fixed text is known


def test_a_base_model_gets_text_to_continue() -> None:
    def answer(asked: Asked) -> Said | None:
        return generated("green") if asked.route == "/api/generate" else None

    with OllamaServer(answer) as server:
        weak = model(server, "gemma3:270m-base")
        assert weak.layout == "completion" and not weak.has_template
        shots = [CHAT[0], HumanMessage("Colour of the sky?"), AIMessage("Answer: blue"), CHAT[1], AIMessage("Answer:")]
        prompt = "Grimoire: grass is green.\n\nColour of the sky?\nAnswer: blue\n\nWhat colour is grass?\nAnswer:"
        assert weak.render(shots) == prompt
        assert weak.invoke(shots).text.strip() == "green"
        (sent,) = server.sent("/api/generate")
    assert (sent["prompt"], sent["raw"], sent["options"]["stop"]) == (prompt, True, ["\n\n"])


def test_a_template_that_loses_the_grimoire_anyway_is_refused() -> None:
    """It passes the trial and drops a system message that is long."""

    def answer(asked: Asked) -> Said | None:
        if not asked.render_only:
            return None
        short = [message for message in asked.body["messages"] if len(message["content"]) < 100]
        return chatml(Asked(asked.route, asked.body | {"messages": short}, {}))

    with OllamaServer(answer) as server, pytest.raises(PromptLost, match="its template drops the system message 'Rule"):
        model(server).invoke([SystemMessage("Rule. " * 40), CHAT[1]])


def test_a_template_that_changes_the_question_is_rendered_every_time() -> None:
    def answer(asked: Asked) -> Said | None:
        found = chatml(asked) if asked.render_only else None
        return Said(tuple(line.replace("grass?", "grass??") for line in found.lines)) if found else None

    with OllamaServer(answer) as server:
        assert "grass??" in model(server).render(CHAT)


def test_a_server_that_shows_no_rendering_is_said_and_generates() -> None:
    def answer(asked: Asked) -> Said | None:
        if asked.route != "/api/chat":
            return None
        return chat("green") if asked.body["stream"] else recorded("chat whole")

    with OllamaServer(answer, version="0.11.0") as server:
        weak = model(server)
        with (
            pytest.warns(UserWarning, match="does not show rendered prompts, so .* judged by its number of tokens"),
            pytest.warns(UserWarning, match="Ollama 0.11.0 was not tried; 0.24.0 was"),
        ):
            assert weak.invoke(CHAT).text.strip() == "green"
        assert weak.scoring_problem == "Ollama 0.11.0 gives no log-probabilities (since 0.12.11; update it)"
        with pytest.raises(Unsupported, match="gives no log-probabilities"):
            weak.score_labels("x", ["a", "b"])


def test_a_newer_server_than_was_tried_is_warned_of() -> None:
    with OllamaServer(version="0.31.2") as server:
        with pytest.warns(
            UserWarning, match=r"Ollama 0\.31\.2 was not tried, and runs models in another engine; 0\.24"
        ):
            model(server).invoke(CHAT)
    with OllamaServer(version="0.24.9") as server:
        model(server).invoke(CHAT)  # a warning would be an error here


def test_the_context_is_what_the_model_was_trained_with_at_most(server: OllamaServer) -> None:
    assert model(server, num_ctx=2048).context == 2048
    assert model(server, num_ctx=99999).context == 8192


# ------------------------------------------------------------------ scores


def test_labels_are_scored_in_one_raw_request() -> None:
    def answer(asked: Asked) -> Said | None:
        return alternatives({" green": 0.5, " red": 0.1}) if asked.route == "/api/generate" else None

    with OllamaServer(answer) as server:
        found = model(server).score_labels("Answer:", ["green", "red"])
        (sent,) = server.sent("/api/generate")
    assert found.probabilities == pytest.approx({"green": 5 / 6, "red": 1 / 6})
    assert (sent["raw"], sent["stream"], sent["logprobs"], sent["top_logprobs"]) == (True, False, True, 20)
    assert sent["options"]["num_predict"] == 1 and "format" not in sent


def test_where_the_likeliest_token_ends_the_turn_a_grammar_brings_the_log_probabilities() -> None:
    """Then the real server sends none, since no token is written."""

    def answer(asked: Asked) -> Said | None:
        if asked.route != "/api/generate":
            return None
        if "format" not in asked.body:
            return said({"response": "", "done": True, "done_reason": "stop", "prompt_eval_count": 9})
        return alternatives({"<|im_end|>": 0.6, " green": 0.2, " red": 0.1})

    with OllamaServer(answer) as server:
        found = model(server).score_labels("Answer:", ["green", "red"])
    assert found.coverage == pytest.approx(0.3)


# ------------------------------------------------------------------ many callers


def _echo(asked: Asked) -> Said | None:
    return chat(asked.body["messages"][-1]["content"]) if asked.route == "/api/chat" and not asked.render_only else None


def test_one_object_serves_several_event_loops_and_leaves_no_socket() -> None:
    with OllamaServer(_echo) as server:
        weak = model(server)
        for number in range(3):
            assert asyncio.run(weak.ainvoke(f"question {number}")).text.strip() == f"question {number}"
    del weak
    gc.collect()  # an open socket would warn here, and warnings are errors


def test_many_at_once_get_each_their_own_answer() -> None:
    questions = [f"question {number}" for number in range(60)]

    async def all_of_them(weak: OllamaModel) -> list[str]:
        return [reply.text.strip() for reply in await asyncio.gather(*(weak.ainvoke(text) for text in questions))]

    with OllamaServer(_echo) as server:
        weak = model(server)
        assert asyncio.run(all_of_them(weak)) == questions
        assert [reply.text.strip() for reply in weak.batch([*questions], {"max_concurrency": 16})] == questions


def test_a_call_that_is_given_up_closes_its_connection() -> None:
    hanging = OllamaServer(
        lambda asked: Said(hang=True) if asked.route == "/api/chat" and not asked.render_only else None
    )

    async def give_up(weak: OllamaModel) -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(weak.ainvoke(CHAT), 0.5)

    with hanging as server:
        asyncio.run(give_up(model(server)))
    gc.collect()


def test_threads_ask_what_the_model_is_once(server: OllamaServer) -> None:
    weak = model(server)
    threads = [threading.Thread(target=weak.invoke, args=(CHAT,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(asked.route == "/api/show" for asked in server.asked) == 1


def test_a_missing_model_is_refused_at_once_if_so_wished(server: OllamaServer) -> None:
    with pytest.raises(ModelNotFound, match="Run `ollama pull phi3`. It has: gemma3:270m-base, smollm2:135m"):
        model(server, "phi3", validate_model_on_init=True)


def test_a_busy_server_is_given_up_after_three_times() -> None:
    with answering(said({"error": "busy"}, status=503)) as server, pytest.raises(ServerBusy):
        model(server).invoke(CHAT)


# ------------------------------------------------------------------ what is refused


def test_what_a_call_cannot_give_is_said(server: OllamaServer) -> None:
    """Sent on, the server would ignore it in silence."""
    for wrong in ({"temprature": 0.9}, {"n": 3}, {"options": {"tfs": 1}}, {"mirostat": 1}):
        with pytest.raises(OptionError, match="ollama:smollm2:135m does not know the option"):
            model(server).invoke(CHAT, **wrong)
    assert model(server).bind(min_p=0.1).invoke(CHAT).text
    assert server.sent("/api/chat")[-1]["options"]["min_p"] == 0.1


@pytest.mark.parametrize("name", ["num_batch", "num_gpu", "num_thread", "main_gpu", "use_mmap"])
def test_no_option_of_a_call_loads_the_model_again(server: OllamaServer, name: str) -> None:
    with pytest.raises(OptionError, match=f"{name}=1 in one call would load the model again"):
        model(server).invoke(CHAT, options={name: 1})


def test_settings_without_effect_are_refused_and_others_honoured(server: OllamaServer) -> None:
    settings: dict[str, Any] = {"mirostat": 1, "tfs_z": 0.5, "sync_client_kwargs": {"timeout": 3}}
    for name, value in settings.items():
        with pytest.raises(OptionError, match=f"{name} has no effect here"):
            weak_model("ollama:m", **{name: value})
    weak = model(server, client_kwargs={"headers": {"x-door": "open"}}, top_logprobs=2, num_ctx=None)
    weak.invoke(CHAT)
    assert all(asked.headers["x-door"] == "open" for asked in server.asked)
    (sent,) = server.sent("/api/chat")
    assert (sent["logprobs"], sent["top_logprobs"], sent["options"]["num_ctx"]) == (True, 2, 4096)
    assert identity(weak) != identity(model(server))  # a cached reply without log-probabilities would not do


@pytest.mark.parametrize(
    ("count", "refused"), [(2050, True), (4096, True), (9000, False), (None, False), (0, False), (1500, False)]
)
def test_the_number_of_tokens_read_tells_a_cut_prompt(count: int | None, refused: bool) -> None:
    """A proxy may lose `truncate: false`; half of the context or all of it are the marks of a cut prompt."""
    long = [HumanMessage("word " * 5000)]
    with answering(chat("Green.", prompt_eval_count=count)) as server:
        weak = model(server, num_ctx=8192 if count == 9000 else 4096)
        if count == 9000:
            weak = model(server, num_ctx=8192)
            count_fits = weak.context > 8000
            assert count_fits
            with pytest.raises(PromptTooLong):
                weak.invoke(long)
        elif refused:
            with pytest.raises(PromptTooLong, match=rf"of which {count} arrived"):
                weak.invoke(long)
        else:
            assert weak.invoke(long).text


def test_a_prompt_in_another_script_does_not_make_the_next_one_too_long() -> None:
    with answering(chat("Green.", prompt_eval_count=3000)) as server:
        weak = model(server)
        weak.invoke("\u4e16\u754c" * 1500)
        assert weak.get_num_tokens("x" * 400) == 100


def test_frames_follow_the_weights() -> None:
    """Pulled again and pulled back: each has its own template."""
    digest = ["a" * 64]

    def answer(asked: Asked) -> Said | None:
        if asked.route == "/api/tags":
            return said({"models": [recorded("tags").objects[0]["models"][1] | {"digest": digest[0]}]})
        if asked.render_only:
            return said({"_debug_info": {"rendered_template": digest[0][0] + str(asked.body["messages"])}})
        return None

    with OllamaServer(answer) as server:
        weak = model(server)
        found = []
        for name in "aba":
            digest[0] = name * 64
            weak.server.models(fresh=True)
            found.append(weak.render(CHAT)[0])
    assert found == ["a", "b", "a"]


def test_a_copy_asks_its_own_server(server: OllamaServer) -> None:
    weak = model(server)
    weak.render(CHAT)
    with OllamaServer(_said_by) as other:
        copied = weak.model_copy(update={"model": "gemma3:270m-base", "base_url": other.url})
        assert (copied.layout, copied.server.url) == ("completion", other.url)
    assert (weak.layout, weak.server.url) == ("chat", server.url)


def test_names_that_ollama_takes(server: OllamaServer) -> None:
    for name in ("library/smollm2:135m", "registry.ollama.ai/library/smollm2:135m", "SmolLM2:135m"):
        assert model(server).server.find(name)["name"] == "smollm2:135m"


def test_a_model_pulled_a_moment_ago_is_found() -> None:
    pulled: list[dict[str, Any]] = []
    with OllamaServer(lambda asked: said({"models": pulled}) if asked.route == "/api/tags" else None) as server:
        weak = model(server, "phi3")
        with pytest.raises(ModelNotFound, match="It has: no model yet"):
            _ = weak.known
        pulled.append({"name": "phi3:latest", "digest": "c" * 64})
        assert weak.server.find("phi3")["digest"] == "c" * 64


def test_a_stream_of_thoughts_that_breaks_off_is_no_repetition() -> None:
    parts = [
        {"message": {"role": "assistant", "content": "", "thinking": f"thought {n}"}, "done": False} for n in range(40)
    ]
    with answering(said(*parts)) as server, pytest.raises(CutReply, match="broke off before its end"):
        model(server, attempts=1).invoke(CHAT)


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (said({"error": "cloud is disabled"}, status=403), r"refused the request \(HTTP 403: cloud is disabled\)"),
        (
            Said((), 301, headers={"Location": "https://box/"}),
            "is at another address now; set OLLAMA_HOST=https://box/",
        ),
        (
            said({"error": {"message": "request (302 tokens) exceeds the available context size"}}, status=400),
            "has about",
        ),
        (said({"error": "request canceled"}, status=499), "HTTP 499"),
    ],
)
def test_other_answers_of_a_server(reply: Said, words: str) -> None:
    with answering(reply) as server, pytest.raises(SleiclError, match=words):
        model(server).invoke(CHAT)


def test_what_cannot_be_sent_is_an_error_of_ours(server: OllamaServer) -> None:
    with pytest.raises(SleiclError, match="could not be asked"):
        model(server).invoke("half a pair: \ud800")
    with pytest.raises(SleiclError, match="could not be asked"):
        model(server).invoke(CHAT, temperature=float("nan"))


def test_passwords_are_not_printed() -> None:
    weak = OllamaModel(model="m", base_url="http://me:secret@127.0.0.1:9")
    assert "secret" not in repr(weak) + str(weak._identifying_params)
    with pytest.raises(OptionError) as found:
        OllamaModel(model="m", base_url="http://me:secret@box:port")
    assert "secret" not in str(found.value)


def test_pictures_cannot_be_scored(server: OllamaServer) -> None:
    with pytest.raises(Unsupported, match="renders messages of text"):
        model(server).render([HumanMessage([{"type": "image_url", "image_url": "x"}])])


async def test_the_event_loop_is_never_held_up(cache: InMemoryCache) -> None:
    """A server that takes half a second to say what it has must not stop everything else."""

    def slow(asked: Asked) -> Said | None:
        if asked.route in ("/api/tags", "/api/show"):
            time.sleep(0.5)
        return _said_by(asked)

    gaps = []

    async def tick() -> None:
        while True:
            before = time.perf_counter()
            await asyncio.sleep(0.01)
            gaps.append(time.perf_counter() - before)

    with OllamaServer(slow) as server:
        ticking = asyncio.create_task(tick())
        await model(server).ainvoke(CHAT)
        ticking.cancel()
    assert len(gaps) > 20 and max(gaps) < 0.4


def test_a_stream_given_up_leaves_nothing_behind() -> None:
    """While the loop runs on. If it ends in the same moment, asyncio closes nested generators twice and says so."""
    problems: list[dict[str, Any]] = []

    async def read_one(weak: OllamaModel) -> None:
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: problems.append(context))
        async for _ in weak.astream(CHAT):
            break
        await asyncio.sleep(0.05)

    with OllamaServer() as server:
        for _ in range(5):
            asyncio.run(read_one(model(server)))
    gc.collect()
    assert problems == []
