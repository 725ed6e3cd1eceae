"""A file from a stranger sends nothing anywhere: no question, no key, to no address that the user has not named."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sleicl_chains.answering.consent import plain_options, stays_here
from sleicl_chains.answering.opening import open_grimoire, open_solver, open_task
from sleicl_chains.answering.recipes import Recipe, told_by
from sleicl_chains.answering.solver import solver
from sleicl_chains.errors import RecipeRefused
from sleicl_chains.files import Home
from sleicl_chains.models.names import weak_model
from sleicl_chains.tasks.cards import Task, load_task
from sleicl_chains.tasks.infer import PLACEHOLDER
from tests.answering.test_recipes import LINEAR, SCORED, bare, recipe
from tests.support.command import Desk, Done, Parrot, learning, sleicl
from tests.support.fake_models import Writer
from tests.support.ollama_server import Asked, OllamaServer, Said, chat
from tests.support.openai_server import OpenAIServer


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OLLAMA_API_KEY"):
        monkeypatch.setenv(name, "sk-of-the-user")


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk.at(tmp_path / "desk")


@pytest.fixture
def stranger() -> Iterator[Parrot]:
    """A server that somebody else runs; it answers, so that a question which gets there is a question given away."""
    with Parrot(lambda text: "billing") as server:
        yield server


@pytest.fixture
def learned(desk: Desk, stranger: Parrot, tmp_path: Path) -> Path:
    """A recipe for the stranger's server, whose requests are counted from here on."""
    file = tmp_path / "recipe.json"
    done = sleicl(*learning(desk, file, "--weak", "openai:m", *stranger.options))
    assert done.status == 0, done.err
    stranger.requests.clear()
    return file


def rewritten(file: Path, **changes: Any) -> Path:
    """Change a recipe as its author can; texts keep their hashes."""
    found = json.loads(file.read_text(encoding="utf-8"))
    found["options"] |= changes.pop("options", {})
    file.write_text(json.dumps(found | changes), encoding="utf-8")
    return file


def used(how: str, file: Path, desk: Desk, *more: object) -> Done:
    """Use a recipe on the command line, with a home of its own each time: no journal may answer."""
    if how == "ask":
        return sleicl("ask", "Where is my money?", "--recipe", file, "--no-journal", *more)
    source = ["--task", desk.card, "--rows", desk.test, "--no-journal"]
    return sleicl("evaluate", *source, "--recipe", file, "--arms", "recipe", *more)


def complaint(done: Done) -> str:
    lines = [line for line in done.err.splitlines() if line.startswith("sleicl: ")]
    assert (done.status, done.out, len(lines)) == (1, "", 1) and "Traceback" not in done.err, done.err
    return lines[0]


both = pytest.mark.parametrize("how", ["ask", "evaluate"])

# ------------------------------------------------------------------ addresses and names


@both
def test_a_recipes_address_gets_nothing_until_the_user_repeats_it(
    how: str, learned: Path, desk: Desk, stranger: Parrot
) -> None:
    file = rewritten(learned, options={"base_url": stranger.base_url})
    line = complaint(used(how, file, desk))
    assert f"names the model 'openai:m' and the address '{stranger.base_url}'; a file does not decide" in line
    assert f"repeat it: --weak openai:m --base-url {stranger.base_url}" in line
    assert f"--base-url {stranger.base_url}" in complaint(used(how, file, desk, "--weak", "openai:m"))
    assert "--weak openai:m (in Python" in complaint(used(how, file, desk, *stranger.options))
    assert stranger.requests == []
    done = used(how, file, desk, "--weak", "openai:m", *stranger.options)
    assert done.status == 0 and len(stranger.requests) == (1 if how == "ask" else 8), done.err


@both
@pytest.mark.parametrize("name", ["base_url", "openai_api_base", "openai_proxy"])
def test_an_address_under_any_name_is_not_asked(
    how: str, name: str, learned: Path, desk: Desk, stranger: Parrot
) -> None:
    """The proxy is dropped without a word: to the user's own address nothing is missing."""
    with Parrot(lambda text: "billing") as other:
        file = rewritten(learned, options={name: other.base_url})
        used(how, file, desk)
        used(how, file, desk, "--weak", "openai:m")
        assert used(how, file, desk, "--weak", "openai:m", *stranger.options).status == 0
        assert other.requests == [] and stranger.requests != []


def test_what_goes_with_a_request_is_not_the_files_to_say(learned: Path, desk: Desk, stranger: Parrot) -> None:
    """With it a file could choose a dearer tier, tools, or a log of the questions."""
    hostile = {
        "extra_body": {"evil": 1},
        "model_kwargs": {"evil": 1},
        "service_tier": "evil",
        "default_query": {"e": 1},
    }
    assert used("ask", learned, desk, "--weak", "openai:m", *stranger.options).status == 0
    again = rewritten(learned, options=hostile | {"default_headers": {"evil": "1"}, "organization": "evil"})
    assert used("ask", again, desk, "--weak", "openai:m", *stranger.options).status == 0
    first, second = stranger.requests
    assert first == second and "evil" not in json.dumps(second)


def test_a_recipe_that_is_learned_now_holds_no_address(learned: Path) -> None:
    assert json.loads(learned.read_text(encoding="utf-8"))["options"] == {}


def test_another_kind_of_model_is_refused_before_any_request(learned: Path, desk: Desk, server: OllamaServer) -> None:
    line = complaint(used("ask", learned, desk, "--weak", "ollama:smollm2:135m", "--base-url", server.url))
    assert "The recipe was learned for openai:m with settings" in line and server.asked == []


def test_the_server_is_named_where_it_is_another(learned: Path, desk: Desk, stranger: Parrot) -> None:
    with OpenAIServer([]) as other:
        line = complaint(used("ask", learned, desk, "--weak", "openai:m", "--base-url", other.base_url))
        assert stranger.base_url in line and other.base_url in line and other.requests == []
    assert stranger.requests == []


def test_in_python_too_the_model_is_the_users_to_open(learned: Path, stranger: Parrot) -> None:
    found = Recipe.load(rewritten(learned, options={"base_url": stranger.base_url}))
    for use in (lambda: solver(found), lambda: found.prompt("Hm?")):
        with pytest.raises(RecipeRefused, match="names the model 'openai:m' and the address"):
            use()
    assert stranger.requests == []
    model = weak_model("openai:m", base_url=stranger.base_url)
    assert solver(found, model=model).invoke("Hm?").label == "billing"


def test_what_is_to_be_repeated_can_be_pasted_into_a_shell(learned: Path, desk: Desk) -> None:
    line = complaint(used("ask", rewritten(learned, weak="openai:m; rm -rf ~"), desk))
    assert "--weak 'openai:m; rm -rf ~'" in line


# ------------------------------------------------------------------ Ollama


def replying(asked: Asked) -> Said | None:
    return chat("billing") if asked.route == "/api/chat" and not asked.render_only else None


def for_ollama(folder: Path, desk: Desk, name: str = "ollama:smollm2:135m", **options: Any) -> Path:
    """Write a recipe for the model that the loopback servers have."""
    with OllamaServer() as own:
        told = told_by(weak_model("ollama:smollm2:135m", base_url=own.url))
    found = bare(Writer).model_copy(update={"task": load_task(desk.card), "weak": name, "model": told})
    found.save(folder / "ollama.json")
    return rewritten(folder / "ollama.json", options=options)


@both
def test_an_ollama_recipes_address_gets_nothing_until_the_user_repeats_it(how: str, desk: Desk, tmp_path: Path) -> None:
    with OllamaServer(replying) as server:
        file = for_ollama(tmp_path, desk, base_url=server.url)
        line = complaint(used(how, file, desk))
        assert line.endswith(
            f"repeat it: --base-url {server.url} (in Python: solver(recipe, model=..., embeddings=...))"
        )
        used(how, file, desk, "--weak", "ollama:smollm2:135m")
        assert server.asked == []
        done = used(how, file, desk, "--base-url", server.url)
        assert done.status == 0 and server.sent("/api/chat"), done.err


def test_the_users_own_ollama_needs_no_repeating(desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with OllamaServer(replying) as server:
        monkeypatch.setenv("OLLAMA_HOST", server.url)
        assert used("ask", for_ollama(tmp_path, desk, base_url=f"{server.url}/"), desk).out == "billing\n"
        assert used("ask", for_ollama(tmp_path, desk), desk).out == "billing\n"


@pytest.mark.parametrize("name", ["ollama:gpt-oss:120b-cloud", "ollama:kimi-k2:cloud"])
def test_a_cloud_model_is_paid_and_remote_though_its_server_is_local(
    name: str, desk: Desk, tmp_path: Path, server: OllamaServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OLLAMA_HOST", server.url)
    assert f"--weak {name}" in complaint(used("ask", for_ollama(tmp_path, desk, name), desk))
    assert server.asked == []


@pytest.mark.parametrize(
    ("name", "host", "here"),
    [
        ("embedded:smollm2", "", True),
        ("embedded:ollama/smollm2", "", True),
        ("wordllama", "", True),
        ("minilm", "", True),
        ("", "", True),
        ("ollama:a", "127.0.0.1:9", True),
        ("ollama:a", "http://[::1]:9", True),
        ("ollama:a", "localhost", True),
        ("ollama:a", "https://ollama.com", False),
        ("ollama:a", "10.0.0.1", False),
        ("ollama:a-cloud", "127.0.0.1:9", False),
        ("openai:m", "", False),
        ("anthropic:m", "", False),
        ("paste:folder", "", False),
        ("OLLAMA:a", "127.0.0.1:9", False),
    ],
)
def test_what_stays_on_this_machine(name: str, host: str, here: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLLAMA_HOST", host)
    assert stays_here(name) is here


# ------------------------------------------------------------------ embeddings


@both
def test_a_recipes_paid_embeddings_get_nothing_until_the_user_repeats_them(
    how: str, learned: Path, desk: Desk, stranger: Parrot, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The user's own key and the provider's own address: each question would cost money that nobody agreed to."""
    with OpenAIServer([]) as provider:
        for name in ("OPENAI_BASE_URL", "OPENAI_API_BASE"):
            monkeypatch.setenv(name, provider.base_url)
        file = rewritten(learned, embeddings="openai:large", embeddings_fingerprint="3-abc")
        weak = ["--weak", "openai:m", *stranger.options]
        line = complaint(used(how, file, desk, *weak))
        assert "names the embeddings 'openai:large'" in line and "repeat it: --embeddings openai:large" in line
        assert provider.requests == [] and stranger.requests == []
        complaint(used(how, file, desk, *weak, "--embeddings", "openai:large"))  # it refuses to embed
        assert [request["model"] for request in provider.requests] == ["large"] and stranger.requests == []


def test_other_embeddings_than_the_recipes_are_misuse(learned: Path, desk: Desk, stranger: Parrot) -> None:
    done = used("ask", learned, desk, "--weak", "openai:m", *stranger.options, "--embeddings", "minilm")
    assert done.status == 2 and "--embeddings: found minilm; the recipe was learned with none" in done.err
    assert stranger.requests == []


# ------------------------------------------------------------------ options and numbers


def test_only_plain_options_are_a_files_to_say() -> None:
    plain = {"n_ctx": 8192, "temperature": 0.0, "use_mmap": False, "reasoning": "low", "seed": None, "top_p": 0.9}
    hostile = {
        "base_url": "http://a", "api_key": "k", "client_kwargs": {}, "default_headers": {}, "extra_body": {},
        "path": "/etc/passwd", "stop": ["a"], "temperature": "hot", "top_k": float("inf"), "num_ctx": 10**12,
        "reasoning_effort": "low; and more", "name": "x", "max_retries": 10**6, "validate_model_on_init": True,
    }  # fmt: skip
    assert plain_options(plain) == plain and plain_options(hostile) == {}
    assert recipe(options=plain | {"path": "/etc/passwd"}).options == plain


@pytest.mark.parametrize("value", ["NaN", "Infinity", "1e999", "1e308"])
def test_a_number_that_is_none_is_refused_before_any_request(
    value: str, learned: Path, desk: Desk, stranger: Parrot
) -> None:
    reader = LINEAR | SCORED | {"mean": [0.0, 123456.5]}
    text = json.dumps(json.loads(learned.read_text()) | {"mode": "score", "reader": reader}).replace("123456.5", value)
    learned.write_text(text)
    line = complaint(used("ask", learned, desk, "--weak", "openai:m", *stranger.options))
    assert "a fitted reader cannot be read (mean.1: " in line and line.endswith("run `sleicl learn` again")
    assert stranger.requests == []


# ------------------------------------------------------------------ opening


def test_opening_warns_and_prints_nothing(tmp_path: Path, home: Home, capfd: pytest.CaptureFixture[str]) -> None:
    card, guide = tmp_path / "card.json", tmp_path / "guide.md"
    about = {"name": "desk", "description": PLACEHOLDER, "labels": ["a", "b"]}
    card.write_text(json.dumps(about))
    guide.write_text("---\ntask: desk\nlabels: [c, d]\n---\n\n# Simple grimoire\n\nMoney.\n")
    with pytest.warns(UserWarning, match="still has the description that `sleicl init` wrote"):
        task = open_task(card)
    with pytest.warns(UserWarning, match="the grimoire guide is for other labels: c, d"):
        open_grimoire(str(guide), task, home)
    assert capfd.readouterr() == ("", "")


def test_a_card_without_labels_beside_a_grimoire_with_some_is_told(tmp_path: Path, home: Home) -> None:
    guide, plain = tmp_path / "guide.md", tmp_path / "plain.md"
    guide.write_text("---\ntask: desk\nlabels: [c, d]\n---\n\n# Simple grimoire\n\nMoney.\n")
    plain.write_text("---\ntask: desk\n---\n\n# Simple grimoire\n\nMoney.\n")
    task = Task(name="desk", description="Say which team it is for.")
    with pytest.warns(UserWarning) as said:
        open_grimoire(str(guide), task, home)
        open_grimoire(str(plain), task, home)
    assert [str(one.message) for one in said] == [
        "the grimoire guide is for the labels c, d; the task has none: answers will be free text"
    ]


def test_the_command_line_shows_what_opening_warns_of(desk: Desk, stranger: Parrot) -> None:
    card, guide = desk.folder / "new.json", desk.folder / "guide.md"
    about = {"name": "desk", "description": PLACEHOLDER, "labels": ["billing", "technical"]}
    card.write_text(json.dumps(about))
    guide.write_text("---\ntask: desk\nlabels: [c, d]\n---\n\n# Simple grimoire\n\nMoney.\n")
    source = ["--task", card, "--grimoire", guide, "--weak", "openai:m", *stranger.options]
    for _ in range(2):
        done = sleicl("ask", "Where is my money?", *source)
        assert done.out == "billing\n" and "Warning: the grimoire guide is for other labels: c, d.\n" in done.err
        assert f"Warning: {card} still has the description that `sleicl init` wrote; models are shown it" in done.err


def test_a_solver_is_opened_from_names_without_a_question(desk: Desk, stranger: Parrot, home: Home) -> None:
    opened = open_solver(
        load_task(desk.card), None, home, weak="openai:m", options={"base_url": stranger.base_url}
    )  # fmt: skip
    assert stranger.requests == [] and opened.task.labels == ("billing", "technical")
    assert opened.chain.invoke("Where is my money?").label == "billing"
