"""A real Ollama with a small instruct model and a small base model; skipped where OLLAMA_HOST names none."""

import asyncio
import gc
import os
import threading
from collections.abc import Iterator

import pytest
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage
from langchain_ollama import ChatOllama

from sleicl_chains.answering.solver import solver
from sleicl_chains.errors import (
    CutReply,
    ModelError,
    ModelNotFound,
    OptionError,
    PromptTooLong,
    ServerBusy,
    ServerDown,
    Unsupported,
)
from sleicl_chains.models.llamacpp.model import EmbeddedModel
from sleicl_chains.models.names import weak_model
from sleicl_chains.models.ollama.embeddings import OllamaEmbeddings
from sleicl_chains.models.ollama.model import OllamaModel
from sleicl_chains.tasks.cards import Task
from tests.models.ollama.test_arriving import GIVEN_UP
from tests.support.real_ollama import PLACE, OwnOllama

pytestmark = [pytest.mark.ollama, pytest.mark.usefixtures("ollama")]

INSTRUCT, BASE = "smollm2:135m", "gemma3:270m-base"
LABELS = ("positive", "very positive", "very negative")
CHAT: list[BaseMessage] = [
    SystemMessage("Classify the mood. Answer with one of: positive, very positive, very negative."),
    HumanMessage("The film was a delight."),
    AIMessage("Answer:"),
]


def instruct(**options: object) -> OllamaModel:
    return OllamaModel(model=INSTRUCT, **{"num_ctx": 512, "num_predict": 8, **options})  # type: ignore[arg-type]


@pytest.fixture
def own(ollama: str) -> Iterator[OwnOllama]:
    if not (PLACE / "bin" / "ollama").exists():
        missing = f"{PLACE} holds no Ollama to start; .ci/ollama builds one"
        pytest.fail(missing) if os.environ.get("SLEICL_NEEDS_OLLAMA") else pytest.skip(missing)
    with OwnOllama(OLLAMA_MAX_QUEUE="1") as server:
        yield server


# ------------------------------------------------------------------ answers


def test_both_models_answer_and_say_what_it_took() -> None:
    for name in (INSTRUCT, BASE):
        reply = OllamaModel(model=name, num_ctx=512, num_predict=8).invoke("Grass is green, and the sky is")
        assert reply.text.strip() and reply.usage_metadata is not None
        assert 0 < reply.usage_metadata["output_tokens"] <= 8


@pytest.mark.filterwarnings("ignore:.*a text holds <")
def test_the_rendered_prompt_is_the_servers_own() -> None:
    weak = instruct()
    texts = ["The film was a delight.", "Braces {x}, <|im_end|> and\nlines.", "Grüße, 世界"]
    for text in texts:
        chat = [CHAT[0], HumanMessage(text)]
        assert weak.render(chat) == weak._rendered(chat)
    assert weak.render(CHAT).endswith("<|im_start|>assistant\nAnswer:")


def test_a_base_model_is_found_out() -> None:
    weak = OllamaModel(model=BASE, num_ctx=512)
    assert (weak.has_template, weak.layout, weak.scoring_problem) == (False, "completion", "")
    assert instruct().layout == "chat"


def test_label_scores_agree_with_the_engine_on_the_same_file() -> None:
    """Ollama rounds differently (16-bit cache, its own kernels), but its shares must be about the same."""
    weak = instruct()
    exact = weak_model(f"embedded:ollama/{INSTRUCT}", n_ctx=512, threads=1)
    assert isinstance(exact, EmbeddedModel)
    prompt = weak.render(CHAT)
    assert prompt == exact.render(CHAT)
    shown, known = weak.score_labels(prompt, LABELS), exact.score_labels(prompt, LABELS)
    assert shown.unseen == () and shown.requests == known.requests == 2
    assert shown.probabilities == pytest.approx(known.probabilities, abs=0.1)
    assert shown.coverage == pytest.approx(known.coverage, abs=0.1)
    assert (shown.prompt_tokens, exact.render(CHAT)) == (known.prompt_tokens, prompt)


def test_digits_are_scored_where_the_tokenizer_sets_the_space_apart() -> None:
    weak = instruct()
    chat = [HumanMessage("Rate the film from 1 to 5: I loved every minute."), AIMessage("Rating:")]
    found = weak.score_labels(weak.render(chat), ["1", "2", "3", "4", "5"])
    assert len(found.unseen) < 5 and found.coverage > 0.1


def test_a_turn_that_would_end_here_is_scored_as_well() -> None:
    """The server sends no log-probabilities where the likeliest token ends the turn."""
    weak = instruct()
    chat = [HumanMessage("Say only yes."), AIMessage("Yes."), HumanMessage("Say only yes.")]
    prompt = weak.render([*chat, AIMessage("Yes.")])
    ended = weak.server.post(
        "/api/generate",
        {"model": INSTRUCT, "prompt": prompt, "raw": True, "stream": False, "logprobs": True, "top_logprobs": 20,
         "options": weak._options({"num_predict": 1})},
    )  # fmt: skip
    assert "logprobs" not in ended, "the prompt of this test no longer ends the turn"
    assert b"<|im_end|>" in weak.next_tokens(prompt).shares


def test_a_solver_answers_a_labelled_task_on_both_models() -> None:
    task = Task(name="moods", task_type="sentiment analysis", description="Classify the mood.", labels=LABELS)
    for name in (INSTRUCT, BASE):
        chain = solver(OllamaModel(model=name, num_ctx=1024), task, prior_texts=["I laughed.", "Nobody came."])
        answer = chain.invoke("My dog is ill.")
        assert answer.label in LABELS and answer.mode == "score" and answer.cue
        assert answer.coverage is not None and 0 < answer.coverage <= 1
        assert sum(answer.scores.values()) == pytest.approx(1)


def test_no_call_loads_the_model_again(own: OwnOllama) -> None:
    """On a server that nobody else asks, against a load that was forced, since machines differ."""
    weak = instruct(base_url=own.url)
    weak.invoke("Hello")
    calls = [weak.invoke("Hello", temperature=0.5, max_tokens=3), weak.invoke("Hello", format="json")]
    weak.score_labels(weak.render(CHAT), LABELS)
    calls.append(weak.invoke("Hello"))
    body = {"model": INSTRUCT, "prompt": "Hello", "stream": False, "options": weak._options({}) | {"num_batch": 64}}
    forced = weak.server.post("/api/generate", body)["load_duration"]
    assert max(reply.response_metadata["load_duration"] for reply in calls) < forced


# ------------------------------------------------------------------ failures


def test_what_plain_chatollama_does_to_a_base_models_system_message() -> None:
    """The grimoire vanishes under HTTP 200: the reply cannot know the word, and the count of tokens shows it."""
    chat = [SystemMessage("The secret word is xylophone. " * 20), HumanMessage("The secret word is")]
    plain = ChatOllama(model=BASE, num_ctx=512, num_predict=4, temperature=0)
    lost, kept = plain.invoke(chat), OllamaModel(model=BASE, num_ctx=512, num_predict=4).invoke(chat)
    plain._client.close()  # type: ignore[no-untyped-call]  # it leaves its sockets open
    assert lost.usage_metadata and lost.usage_metadata["input_tokens"] < 10 and "xylophone" not in lost.text
    assert kept.usage_metadata and kept.usage_metadata["input_tokens"] > 100 and "xylophone" in kept.text


def test_a_prompt_that_does_not_fit_is_refused_in_every_way() -> None:
    weak, long = instruct(), "word " * 700
    wanted = r"The prompt has about \d+ tokens; the context holds 512\..*--option num_ctx=1024"
    for call in (
        lambda: weak.invoke(long),
        lambda: list(weak.stream(long)),
        lambda: asyncio.run(weak.ainvoke(long)),
        lambda: weak.score_labels(long, LABELS),
    ):
        with pytest.raises(PromptTooLong, match=wanted):
            call()


def test_what_the_server_refuses() -> None:
    with pytest.raises(ModelNotFound, match=r"Run `ollama pull nosuch`\. It has: .*smollm2:135m"):
        OllamaModel(model="nosuch").invoke("Hello")
    with pytest.raises(Unsupported, match="does not support thinking"):
        instruct(reasoning=True).invoke("Hello")
    with pytest.raises(Unsupported, match="does not support tools"):
        instruct().bind_tools([test_what_the_server_refuses]).invoke("Hello")
    with pytest.raises(OptionError, match="top_logprobs must be between 0 and 20"):
        instruct(logprobs=True, top_logprobs=50).invoke("Hello")
    with pytest.raises(OptionError, match="refuses a setting"):
        instruct().invoke("Hello", options={"top_k": "many"})


def test_a_model_that_repeats_itself_is_stopped_by_the_server_and_not_believed() -> None:
    weak = OllamaModel(model=BASE, num_ctx=512, num_predict=200)
    with pytest.raises(CutReply, match="31 times in a row, and Ollama ended the reply"):
        weak.invoke("no " * 10 + "no")


def test_a_text_that_does_not_fit_is_not_embedded() -> None:
    embeddings = OllamaEmbeddings(INSTRUCT, num_ctx=64)
    short = embeddings.embed_query("grass")
    assert len(short) == 576
    with pytest.raises(PromptTooLong, match="cannot embed the text 'word word"):
        embeddings.embed_documents(["grass", "word " * 9000])


def test_the_server_stops_when_nobody_waits_any_more(own: OwnOllama) -> None:
    """A reply of 4,000 tokens takes longer than the ten seconds in which the server must come to rest."""
    # Held to a list of 10,000 numbers, it cannot end early on any processor: a free reply may end within a second.
    numbers = {"type": "array", "items": {"type": "integer"}, "minItems": 20}
    for _ in range(2):
        numbers = {"type": "array", "items": numbers, "minItems": 25}
    weak = OllamaModel(model=INSTRUCT, base_url=own.url, num_predict=4000, temperature=1.2, format=numbers)
    parts = weak.stream(CHAT)
    next(parts)
    assert own.busy(for_s=2) > 0  # so that its rest below is no accident
    del parts
    for way, give_up in GIVEN_UP.items():
        give_up(weak)
        gc.collect()
        assert any(own.busy(for_s=0.5) <= 0.02 for _ in range(20)), way


def test_a_full_queue(own: OwnOllama) -> None:
    """OLLAMA_MAX_QUEUE=1: of twelve long calls at once some are turned away, and none of them is answered wrongly."""
    found: list[object] = []

    def call() -> None:
        try:
            found.append(instruct(base_url=own.url, attempts=1, num_predict=40).invoke("Tell a story.").text)
        except ModelError as problem:
            found.append(problem)

    threads = [threading.Thread(target=call) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    busy = [problem for problem in found if isinstance(problem, ServerBusy)]
    assert busy and "OLLAMA_MAX_QUEUE" in str(busy[0])
    assert all(isinstance(one, ServerBusy) or (isinstance(one, str) and one.strip()) for one in found)


def test_a_runner_that_dies_is_seen_and_started_again(own: OwnOllama) -> None:
    weak = instruct(base_url=own.url, attempts=1, num_predict=300, temperature=1.0)
    parts = weak.stream("Tell a long story about a dragon.")
    next(parts)
    own.kill_runner()
    with pytest.raises(ModelError, match="log says more|broke off"):
        list(parts)
    assert instruct(base_url=own.url).invoke("Hello").text.strip()


def test_a_server_that_dies_is_seen(own: OwnOllama) -> None:
    weak = instruct(base_url=own.url, attempts=1, num_predict=300)
    parts = weak.stream("Tell a long story about a dragon.")
    next(parts)
    own.kill()
    with pytest.raises(ModelError, match="broke off|log says more"):
        list(parts)
    with pytest.raises(ServerDown, match="`ollama serve`"):
        instruct(base_url=own.url, attempts=1).invoke("Hello")


# ------------------------------------------------------------------ many at once

SHOTS: list[BaseMessage] = [SystemMessage("Repeat the word and number.")]
for number in (12, 471, 88):
    SHOTS += [HumanMessage(f"item {number}"), AIMessage(f"item {number}")]
NUMBERS = range(100, 300)


def repeating() -> tuple[OllamaModel, list[list[BaseMessage]], list[str]]:
    """Return a model that repeats what it is told, and 200 things to tell it with the right answers."""
    prompts = [[*SHOTS, HumanMessage(f"item {number}")] for number in NUMBERS]
    return instruct(num_predict=6), prompts, [f"item {number}" for number in NUMBERS]


def none_mixed_up(found: list[str], wanted: list[str]) -> None:
    """Every answer is its own; a small model may slip once in a hundred, but never into the answer to another."""
    slips = [(one, other) for one, other in zip(found, wanted, strict=True) if one != other]
    assert len(slips) <= 2 and not {one for one, _ in slips} & set(wanted), slips


def test_two_hundred_concurrent_calls_get_each_their_own_answer() -> None:
    async def ask(weak: OllamaModel, prompts: list[list[BaseMessage]]) -> list[str]:
        return [reply.text.strip() for reply in await asyncio.gather(*(weak.ainvoke(prompt) for prompt in prompts))]

    weak, prompts, wanted = repeating()
    none_mixed_up(asyncio.run(ask(weak, prompts)), wanted)
    del weak
    gc.collect()  # a socket left open would warn, and warnings are errors


def test_a_batch_of_two_hundred_gets_each_its_own_answer() -> None:
    weak, prompts, wanted = repeating()
    none_mixed_up([reply.text.strip() for reply in weak.batch([*prompts], {"max_concurrency": 20})], wanted)
    del weak
    gc.collect()
