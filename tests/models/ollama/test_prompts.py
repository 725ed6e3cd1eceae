"""What of a prompt arrives at the model, what is refused, and how labels are scored, on a replaying server."""

from typing import Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage

from sleicl_chains.errors import (
    CutReply,
    ModelNotFound,
    OptionError,
    PromptLost,
    PromptTooLong,
    SleiclError,
    Unsupported,
)
from sleicl_chains.models.identity import identity
from sleicl_chains.models.names import weak_model
from sleicl_chains.models.ollama.model import OllamaModel
from tests.support.ollama_server import (
    CHAT,
    Asked,
    OllamaServer,
    Said,
    alternatives,
    answering,
    chat,
    chatml,
    generated,
    model,
    recorded,
    said,
    said_by,
)

# ------------------------------------------------------------------ what arrives


def test_the_rendered_prompt_has_grimoire_question_and_cue(server: OllamaServer) -> None:
    weak = model(server)
    assert weak.layout == "chat" and weak.has_template
    assert weak.render([*CHAT, AIMessage("Answer:")]) == (
        "<|im_start|>system\nGrimoire: grass is green.<|im_end|>\n<|im_start|>user\nWhat colour is grass?<|im_end|>\n"
        "<|im_start|>assistant\nAnswer:"
    )
    before = len(server.asked)
    with pytest.warns(UserWarning, match=r"ollama:\S+: a text holds <\|im_end\|>"):
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
    with pytest.warns(UserWarning, match="trained with 8192 tokens, to which the server lowers num_ctx=99999"):
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


@pytest.mark.parametrize("count", [2050, 4096])
def test_the_number_of_tokens_read_tells_a_cut_prompt(count: int) -> None:
    """A proxy may lose `truncate: false`; half of the context or all of it are the marks of a cut prompt."""
    with answering(chat("Green.", prompt_eval_count=count)) as server:
        with pytest.raises(
            PromptTooLong, match=rf"about 62\d\d tokens \(of which {count} arrived\); the context holds 4096"
        ):
            model(server).invoke([HumanMessage("word " * 5000)])


@pytest.mark.parametrize("count", [None, 0, 1500])
def test_a_number_that_says_nothing_is_not_held_against_a_reply(count: int | None) -> None:
    """0.30.0 left cached tokens out; and a text of long words has few tokens."""
    with answering(chat("Green.", prompt_eval_count=count)) as server:
        assert model(server).invoke([HumanMessage("word " * 5000)]).text


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
    with OllamaServer(said_by) as other:
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


def test_what_helps_against_a_prompt_that_is_too_long() -> None:
    """A larger context only where the model has one, and one that is large enough."""

    def answer(asked: Asked) -> Said | None:
        return recorded("too long") if asked.route == "/api/chat" and not asked.render_only else None

    with OllamaServer(answer) as server:
        with pytest.raises(PromptTooLong, match=r"about 1500 tokens; the context holds 1024.*num_ctx=2048"):
            model(server, num_ctx=1024).invoke("word " * 1200)
        with pytest.raises(PromptTooLong, match="this one was trained with no larger context"):
            model(server, num_ctx=8192).invoke("word " * 8000)


def test_options_of_the_embedded_engine_are_understood() -> None:
    weak = weak_model("ollama:m", n_ctx=512, threads=2)
    assert isinstance(weak, OllamaModel) and (weak.num_ctx, weak.num_thread) == (512, 2)


@pytest.mark.parametrize("name", ["ollama:", "embedded:ollama/"])
def test_a_name_without_a_model_is_said(name: str) -> None:
    with pytest.raises(ModelNotFound, match="names no model; expected .*NAME, see `sleicl models list`"):
        weak_model(name)
