"""What a question costs beside the model: `solver.invoke` against plain `ChatOllama.invoke`, on a loopback stub.

    python -m benchmarks.overhead [--rounds 300]

The stub runs in a process of its own and answers at once. The calls are interleaved; medians in milliseconds.
"""

import argparse
import multiprocessing
import statistics
import time
from collections.abc import Callable

from langchain_ollama import ChatOllama

from sleicl_chains.answering.solver import solver
from sleicl_chains.models.ollama.model import OllamaModel
from sleicl_chains.tasks.cards import Task
from tests.support.ollama_server import Asked, OllamaServer, Said, alternatives, chat

TASK = Task(name="moods", task_type="sentiment analysis", description="Classify the mood.", labels=("happy", "sad"))
QUESTION = "My dog is ill, and nobody came to the party."


def answer(asked: Asked) -> Said | None:
    """Answer a chat with a label, and a request for scores with two."""
    if asked.route == "/api/generate":
        return alternatives({" happy": 0.3, " sad": 0.5})
    return None if asked.route != "/api/chat" or asked.render_only else chat("sad")


def serve(urls: "multiprocessing.Queue[str]") -> None:
    """Run the stub until the process is ended."""
    with OllamaServer(answer) as server:
        urls.put(server.url)
        time.sleep(3600)


def measure(calls: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Time the calls in turn; returns milliseconds."""
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(rounds + 10):
        for name, call in calls.items():
            started = time.perf_counter()
            call()
            if number >= 10:
                taken[name].append((time.perf_counter() - started) * 1000)
    return taken


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=300)
    rounds = parser.parse_args().rounds
    spawn = multiprocessing.get_context("spawn")
    urls = spawn.Queue()
    process = spawn.Process(target=serve, args=(urls,), daemon=True)
    process.start()
    url = urls.get(timeout=60)
    plain = ChatOllama(model="smollm2:135m", base_url=url, num_ctx=4096, num_predict=64, temperature=0)
    weak = OllamaModel(model="smollm2:135m", base_url=url)
    generate = solver(weak, TASK, mode="generate")
    score = solver(weak, TASK, mode="score", prior="none")
    calls: dict[str, Callable[[], object]] = {
        "ChatOllama.invoke": lambda: plain.invoke(QUESTION),
        "OllamaModel.invoke": lambda: weak.invoke(QUESTION),
        "solver.invoke, generate": lambda: generate.invoke(QUESTION),
        "solver.invoke, score": lambda: score.invoke(QUESTION),
    }
    taken = measure(calls, rounds)
    base = statistics.median(taken["ChatOllama.invoke"])
    print("| call | median ms | more than ChatOllama |\n| --- | ---: | ---: |")
    for name, times in taken.items():
        median = statistics.median(times)
        print(f"| {name} | {median:.2f} | {median - base:+.2f} |")
    process.terminate()


if __name__ == "__main__":
    main()
