"""`sleicl serve`: what it refuses, and a whole life of it in a process of its own."""

import os
import re
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from sleicl_chains.files import Home
from sleicl_chains.models.llamacpp.model import EmbeddedModel
from tests.support.command import SCRIPT, environment, hear_interrupts, sleicl
from tests.support.recipes import recipe_of


@pytest.fixture
def recipe(weak: EmbeddedModel, tmp_path: Path) -> Path:
    """A recipe of two labels for the small embedded model, in words."""
    found = recipe_of(weak.model_copy(update={"n_ctx": 4096}), "embedded:smollm2")
    found.save(tmp_path / "recipe.json")
    return tmp_path / "recipe.json"


def test_without_anything_to_serve_it_says_what_to_do(home: Home) -> None:
    done = sleicl("serve")
    assert (done.status, done.out) == (1, "")
    assert done.err.startswith("sleicl: No chat model is on this machine: run `ollama pull NAME`")


def test_beyond_this_machine_it_does_not_start_without_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    done = sleicl("serve", "--host", "0.0.0.0", "--weak", "embedded:smollm2")
    assert done.status == 2 and done.err == (
        "sleicl: --host 0.0.0.0 lets other machines in, so it takes $SLEICL_API_KEY (or --api-key, which others see in "
        "the list of processes); without --host it is for this machine alone\n"
    )
    for given in ([], ["--host", "0.0.0.0"]):  # such as a variable that turned out to be empty
        done = sleicl("serve", "--api-key", "", "--weak", "embedded:smollm2", *given)
        assert (done.status, done.err) == (2, "sleicl: --api-key: expected at least 8 characters, found 0\n")
    monkeypatch.setenv("SLEICL_API_KEY", "my long key")
    done = sleicl("serve", "--weak", "embedded:smollm2")
    assert done.status == 2 and "my long key" not in done.err + done.out


def test_two_recipes_of_one_name_are_refused(recipe: Path, home_with_weights: Home) -> None:
    done = sleicl("serve", recipe, recipe)
    assert done.status == 2 and done.err.endswith("its task 'desk' has the name of another recipe; serve them apart\n")


def test_a_port_that_is_taken_is_said_in_one_line(recipe: Path, home_with_weights: Home) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = sleicl("serve", recipe, "--port", port)
    assert done.status == 1 and done.err == (
        f"sleicl: 127.0.0.1, port {port}: Address already in use; --port names another (0 takes a free one)\n"
    )


@contextmanager
def started(*arguments: object, **more: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Start a server, and yield its process and address."""
    command = [str(SCRIPT), "serve", "--port", "0", *map(str, arguments)]
    process = subprocess.Popen(
        command, env=environment(**more), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=hear_interrupts,
    )  # fmt: skip
    assert process.stderr
    try:
        greeting = process.stderr.readline()
        found = re.search(r"http://\S+?(?=/v1)", greeting)
        assert found, greeting + process.stderr.read()
        assert process.stderr.readline() == "Ctrl-C ends it.\n"
        yield process, found[0]
    finally:
        process.kill()
        process.communicate()


@pytest.mark.slow
def test_it_ends_when_it_is_told_to_at_once(recipe: Path, home_with_weights: Home) -> None:
    with started(recipe, "--weak", "embedded:smollm2") as (process, _):
        os.kill(process.pid, signal.SIGTERM)
        assert process.wait(timeout=30) == 0


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_serves_until_it_is_told_to_end_and_finishes_what_runs(
    recipe: Path, home_with_weights: Home, number: signal.Signals
) -> None:
    with started(recipe, "--weak", "embedded:smollm2", SLEICL_API_KEY="k3y-of-mine") as (process, address):
        headers = {"Authorization": "Bearer k3y-of-mine"}

        def ask(model: str, **more: object) -> httpx.Response:
            body = {"model": model, "messages": [{"role": "user", "content": "I was charged twice"}], **more}
            return httpx.post(f"{address}/v1/chat/completions", json=body, headers=headers, timeout=120)

        assert httpx.get(f"{address}/v1/models").status_code == 401
        assert ask("desk").json()["choices"][0]["message"]["content"] in ("billing", "technical")
        assert ask("chat", max_tokens=3).json()["usage"]["completion_tokens"] == 3
        found: list[httpx.Response] = []
        long = threading.Thread(target=lambda: found.append(ask("chat", max_tokens=60)))
        long.start()
        while "sleicl_running 1" not in httpx.get(f"{address}/metrics", headers=headers).text:
            pass
        os.kill(process.pid, number)
        out, err = process.communicate(timeout=60)
        long.join()
    assert (process.returncode, out) == (0, "")
    assert found[0].status_code == 200 and "k3y-of-mine" not in err
    lines = [re.sub(r"^[\d:]+ |, [\d.]+ s.*", "", line) for line in err.splitlines()]
    assert lines == ["GET /v1/models 401", *(
        f"POST /v1/chat/completions {model} 200" for model in ("desk", "chat", "chat")
    )]  # fmt: skip
