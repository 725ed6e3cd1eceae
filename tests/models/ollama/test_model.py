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
from langchain_core.runnables import ConfigurableField

from sleicl_chains.errors import (
    CutReply,
    ModelNotFound,
    OptionError,
    ServerBusy,
    ServerDown,
    SleiclError,
)
from sleicl_chains.models.identity import identity
from sleicl_chains.models.names import strong_model, weak_model
from sleicl_chains.models.ollama.model import OllamaModel
from tests.support.ollama_server import (
    CHAT,
    Asked,
    OllamaServer,
    Said,
    answering,
    chat,
    model,
    recorded,
    said,
    said_by,
)

LOADING = ("num_ctx", "num_gpu", "num_thread")


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
    always = {"num_ctx": 4096, "seed": 7, "repeat_penalty": 1.0}
    assert first == {**always, "num_predict": 9, "temperature": 0.5, "stop": ["."]}
    assert second == {**always, "num_predict": 64, "temperature": 0.0, "top_k": 3}


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


def test_a_cache_tells_models_and_temperatures_apart(cache: InMemoryCache) -> None:
    with OllamaServer(said_by) as server:
        one, other = model(server), model(server, "gemma3:270m-base")
        warm = model(server, temperature=0.7)
        said_first = [one.invoke(CHAT).text, warm.invoke(CHAT).text, one.invoke(CHAT, temperature=0.3).text]
        assert said_first == ["smollm2:135m at 0.0 ", "smollm2:135m at 0.7 ", "smollm2:135m at 0.3 "]
        count = len(server.sent("/api/chat"))
        said_again = [one.invoke(CHAT).text, warm.invoke(CHAT).text, one.invoke(CHAT, temperature=0.3).text]
        assert said_again == said_first and len(server.sent("/api/chat")) == count == 3
        assert other._get_llm_string() != one._get_llm_string()


async def test_the_cache_is_found_from_asynchronous_code(cache: InMemoryCache) -> None:
    with OllamaServer(said_by) as server:
        first = model(server).invoke(CHAT).text
        assert (await model(server).ainvoke(CHAT)).text == first
        assert len(server.sent("/api/chat")) == 1


def test_a_model_that_was_pulled_again_is_another_one(cache: InMemoryCache) -> None:
    pulled: list[str] = []

    def answer(asked: Asked) -> Said | None:
        if asked.route == "/api/tags" and pulled:
            entries = recorded("tags").objects[0]["models"]
            return said({"models": [entry | {"digest": "f" * 64} for entry in entries]})
        return said_by(asked)

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
        "repeat_penalty": 1.0, "reasoning": False, "format": None,
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


async def test_the_event_loop_is_never_held_up(cache: InMemoryCache) -> None:
    """A server that takes half a second to say what it has must not stop everything else."""

    def slow(asked: Asked) -> Said | None:
        if asked.route in ("/api/tags", "/api/show"):
            time.sleep(0.5)
        return said_by(asked)

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
