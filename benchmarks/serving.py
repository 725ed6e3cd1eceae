"""The server under 64 clients at once on the embedded engine, and what it adds to one client's wait.

    python -m benchmarks.serving [--seconds 60] [--clients 64] [--home DIR] [--weak embedded:smollm2] [--rounds 300]

Each client asks a question of its own again and again: the chat, half of the time as a stream, a recipe that scores
labels, and an echo, all behind one queue of 32. The model draws no dice, so that a reply is compared with what the same
question got when it was asked alone: a mixed-up answer shows. A refused client waits as long as it is told to.

Then one client asks the server in front of an Ollama stub that answers at once, in turn with the same model asked
directly; the difference of the medians is what the server adds. Servers and stub are processes of their own.
"""

import argparse
import asyncio
import json
import multiprocessing
import statistics
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
from langchain_core.language_models import BaseChatModel
from langchain_core.runnables import RunnableLambda

from sleicl_chains.answering.opening import open_store
from sleicl_chains.answering.solver import solver
from sleicl_chains.answers import Answer
from sleicl_chains.files import Home
from sleicl_chains.models.names import weak_model
from sleicl_chains.serving.listening import listening, run
from sleicl_chains.serving.server.app import build
from sleicl_chains.serving.server.menu import Learned, Menu
from sleicl_chains.serving.weak import open_chat_model
from sleicl_chains.tasks.cards import Task
from tests.support.ollama_server import Asked, OllamaServer, Said, chat

TASK = Task(name="moods", task_type="sentiment analysis", description="Classify the mood.", labels=("happy", "sad"))
FREE = Task(name="echo", task_type="", description="Say it again.")
THINGS = ("dog", "parcel", "garden", "train", "letter", "kettle", "piano", "window")
WAYS = ("chat", "chat as a stream", "moods", "echo")


def echoed(question: str) -> Answer:
    """Answer with the question."""
    return Answer(None, question, True)


def serve(weak: str, home: str, url: str | None, addresses: "multiprocessing.Queue[str]") -> None:
    """Run a server until the process is ended."""
    options: dict[str, Any] = {"base_url": url} if url else {"temperature": 0.0, "seed": 0, "n_ctx": 2048}
    place = Home(Path(home))
    talker = open_chat_model(weak, place, {**options, "max_tokens": 8})
    scorer = weak_model(weak, home=place, **options)
    recipes = {
        "moods": Learned("moods", TASK, solver(scorer, TASK, mode="score", prior="content-free"), scored=True),
        "echo": Learned("echo", FREE, RunnableLambda(echoed)),
    }
    with listening("127.0.0.1", 0) as (opened, address):
        run(build(Menu(recipes, talker, open_store(place))), opened, greet=lambda: addresses.put(address))


def stub(urls: "multiprocessing.Queue[str]") -> None:
    """Run an Ollama stub until the process is ended."""

    def answer(asked: Asked) -> Said | None:
        return None if asked.route != "/api/chat" or asked.render_only else chat("all is well")

    with OllamaServer(answer) as server:
        urls.put(server.url)
        time.sleep(3600)


@dataclass
class Tally:
    """What the clients saw."""

    seconds: list[float] = field(default_factory=list)
    statuses: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    """Answers that were another question's."""


def question(client: int) -> str:
    """Return a client's question."""
    thing = THINGS[client % len(THINGS)]
    return f"Customer {client} says: my {thing} number {client * 37} is {'lost' if client % 3 else 'lovely'}."


async def asked(http: httpx.AsyncClient, client: int, way: str) -> tuple[str, str, int]:
    """Return the status of one request, its reply's text, and how long to wait."""
    body = {
        "model": way.split()[0], "messages": [{"role": "user", "content": question(client)}],
        "stream": way.endswith("stream"),
    }  # fmt: skip
    reply = await http.post("/v1/chat/completions", json=body)
    wait = int(reply.headers.get("Retry-After", "0"))
    if reply.status_code != 200:
        return str(reply.status_code), "", wait
    if not body["stream"]:
        return "200", reply.json()["choices"][0]["message"]["content"], wait
    if not reply.text.endswith("data: [DONE]\n\n"):
        return "broken stream", "", wait
    events = [json.loads(line.removeprefix("data: ")) for line in reply.text.split("\n\n")[:-2]]
    return "200", "".join(one["choices"][0]["delta"].get("content") or "" for one in events), wait


async def crowd(address: str, clients: int, seconds: float) -> Tally:
    """Let all clients ask for some time."""
    tally = Tally()
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=address, timeout=330, trust_env=False, limits=limits) as http:
        expected: dict[tuple[int, str], str] = {}
        for client in range(clients):
            for way in WAYS:
                alone = "chat" if way.startswith("chat") else way
                expected[client, way] = expected.get((client, alone)) or (await asked(http, client, way))[1]
        different = {way: len({expected[client, way] for client in range(clients)}) for way in WAYS}
        print(f"asked alone: {different} different replies to {clients} questions each", flush=True)
        ends = time.perf_counter() + seconds

        async def one(client: int) -> None:
            turn = client
            while (began := time.perf_counter()) < ends:
                way = WAYS[turn % len(WAYS)]
                status, text, wait = await asked(http, client, way)
                tally.statuses[status] += 1
                if status == "200":
                    turn += 1
                    tally.seconds.append(time.perf_counter() - began)
                    if text != expected[client, way]:
                        tally.wrong.append(f"{client}, {way}: {text!r} for {expected[client, way]!r}")
                else:
                    await asyncio.sleep(wait)

        await asyncio.gather(*(one(client) for client in range(clients)))
    return tally


def show(tally: Tally, seconds: float, before: int, process: psutil.Process) -> None:
    """Print what became of the crowd."""
    times = sorted(tally.seconds)
    p50, p95 = (times[min(len(times) - 1, int(len(times) * share))] for share in (0.5, 0.95))
    print(f"statuses: {dict(tally.statuses)}; mixed-up answers: {len(tally.wrong)}")
    print(f"answered: {len(times) / seconds:.1f} a second; latency p50 {p50:.2f} s, p95 {p95:.2f} s, queue included")
    print(f"memory: {before / 2**20:.0f} MiB before the crowd, {process.memory_info().rss / 2**20:.0f} MiB after it")
    for line in tally.wrong[:5]:
        print(f"  {line}")


def added(address: str, weak: BaseChatModel, rounds: int) -> None:
    """Print what the server adds for one client."""
    with httpx.Client(base_url=address, timeout=60, trust_env=False) as http:
        body = {"model": "chat", "messages": [{"role": "user", "content": "Hello"}]}
        calls: dict[str, Callable[[], object]] = {
            "the model itself": lambda: weak.invoke("Hello"),
            "through the server": lambda: http.post("/v1/chat/completions", json=body).raise_for_status(),
            "as a stream": lambda: http.post("/v1/chat/completions", json={**body, "stream": True}).raise_for_status(),
            "the echo": lambda: http.post("/v1/chat/completions", json={**body, "model": "echo"}).raise_for_status(),
        }
        taken: dict[str, list[float]] = {name: [] for name in calls}
        for number in range(rounds + 10):
            for name, call in calls.items():
                began = time.perf_counter()
                call()
                if number >= 10:
                    taken[name].append((time.perf_counter() - began) * 1000)
    found = {name: (statistics.median(times), sorted(times)[len(times) // 10]) for name, times in taken.items()}
    base = found["the model itself"]
    for name, (median, tenth) in found.items():
        more = f"({median - base[0]:+.2f}), fastest tenth {tenth:.2f} ({tenth - base[1]:+.2f})"
        print(f"{name}: median {median:.2f} ms {more}, {rounds} rounds")


def main() -> None:
    """Run both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--home", default=".test-home")
    parser.add_argument("--weak", default="embedded:smollm2")
    parser.add_argument("--rounds", type=int, default=300)
    options = parser.parse_args()
    spawn = multiprocessing.get_context("spawn")
    addresses, urls = spawn.Queue(), spawn.Queue()
    server = spawn.Process(target=serve, args=(options.weak, options.home, None, addresses), daemon=True)
    server.start()
    address, process = addresses.get(timeout=120), psutil.Process(server.pid)
    httpx.get(f"{address}/health", trust_env=False).raise_for_status()
    asyncio.run(crowd(address, 1, 0.1))
    before = process.memory_info().rss
    tally = asyncio.run(crowd(address, options.clients, options.seconds))
    show(tally, options.seconds, before, process)
    server.terminate()
    fake = spawn.Process(target=stub, args=(urls,), daemon=True)
    fake.start()
    url = urls.get(timeout=120)
    name = "ollama:smollm2:135m"
    front = spawn.Process(target=serve, args=(name, options.home, url, addresses), daemon=True)
    front.start()
    added(addresses.get(timeout=120), weak_model(name, base_url=url), options.rounds)
    for one in (front, fake):
        one.terminate()


if __name__ == "__main__":
    main()
