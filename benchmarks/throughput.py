"""How busy a solver keeps the engine: questions a second and prompt tokens evaluated, against the least there could be.

    python -m benchmarks.throughput --data DIR --grimoires DIR [--task TREC] [--models embedded:smollm2,ollama:NAME]
        [--arms few-shot,profound] [--modes score,hidden] [--questions 20] [--repeats 10] [--home DIR]

A first pass over distinct questions, starting with nothing in the engine's cache, keeps every request that evaluates
tokens. Then the chain and the bare requests, sent as they are over one open connection, take turns over the same
questions; who comes first changes each time. The journal is off. Prints a row for each model, arm and mode:

- questions a second of both, and their ratio: the geometric mean over the repeats with its 95% t-interval;
- prompt tokens that the engine says it evaluated in the first pass, and the least: the beginning that all prompts share
  once, and each question's other tokens once. In brackets, the ratio to a least where questions that begin alike share
  that too. Ollama does not tell cached tokens from others.

Keeps the rows in `results/throughput.json`. Run it on a quiet machine; a server that does not answer is left out.
"""

import argparse
import json
import math
import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import httpx
from langchain_core.language_models import BaseChatModel

from benchmarks.data import grimoire_of, load
from sleicl_chains.answering.arms import Arm
from sleicl_chains.answering.chains import Fit, chain_of
from sleicl_chains.answering.observer import Observer, mode_problem
from sleicl_chains.answering.readings import Mode
from sleicl_chains.answering.steps import Solver
from sleicl_chains.errors import SleiclError
from sleicl_chains.evaluation.table import ArmBuilder
from sleicl_chains.files import Home
from sleicl_chains.models.embedders import embedder
from sleicl_chains.models.llamacpp.model import EmbeddedModel
from sleicl_chains.models.names import weak_model
from sleicl_chains.models.ollama.model import OllamaModel
from sleicl_chains.tasks.rows import Example
from sleicl_chains.tasks.splits import distinct

RESULTS = Path(__file__).parent / "results" / "throughput.json"
ROUTES = ("/completion", "/api/generate")
"""Where tokens are evaluated."""
TRAIN_ROWS = 48
"""Few-shot examples are chosen among them."""
FITTED_ROWS = 12
"""How well the state is read does not matter here."""


@dataclass
class Recorder:
    """Keeps the requests of each question while it is on; a hook of an httpx client."""

    on: bool = False
    questions: list[list[bytes]] = field(default_factory=list)
    """The bodies, a list a question."""
    evaluated: int | None = 0
    """Prompt tokens evaluated, all requests together; None where the engine does not tell."""

    def __call__(self, response: httpx.Response) -> None:
        """Keep a request."""
        if not self.on or response.request.url.path not in ROUTES:
            return
        self.questions[-1].append(response.request.read())
        response.read()
        told = response.json().get("timings", {}).get("prompt_n")
        self.evaluated = None if told is None or self.evaluated is None else self.evaluated + told


@dataclass(frozen=True)
class Row:
    """A row of the table."""

    model: str
    arm: str
    mode: str
    questions: int
    solver: float
    """Questions a second."""
    raw: float
    ratio: float
    low: float
    high: float
    evaluated: int | None
    least: int | None
    least_shared: int | None
    """Where questions that begin alike share that as well."""


def main() -> None:
    """Measure every combination, print and keep."""
    options = _options()
    print(f"{os.cpu_count()} cores; {options.task}; {options.questions} questions, {options.repeats} repeats")
    print("| model | arm | mode | solver q/s | raw q/s | ratio | tokens evaluated | least | ratio |")
    print("|---|---|---|---:|---:|---:|---:|---:|---:|", flush=True)
    rows = []
    for model, arm, mode in product(options.models.split(","), options.arms.split(","), options.modes.split(",")):
        try:
            row = measure(options, model, Arm.of(arm), mode)
        except SleiclError as problem:
            print(f"{model}, {arm}, {mode}: left out: {problem}", flush=True)
            continue
        rows.append(asdict(row))
        print(_line(row), flush=True)
    Path(options.results).write_text(
        json.dumps({"cores": os.cpu_count(), "task": options.task, "rows": rows}, indent=1) + "\n"
    )


def measure(options: argparse.Namespace, model: str, arm: Arm, mode: Mode) -> Row:
    """Measure one model, arm and mode.

    Raises:
        SleiclError: the model cannot be asked, or not in this mode.
    """
    recorder = Recorder()
    weak = opened(model, Home.at(options.home), recorder)
    if problem := mode_problem(weak, mode):
        raise SleiclError(problem)
    observer, train, texts = asked(options, weak, arm)
    blocks = observer.blocks(mode)
    client = bare_client(weak)
    _ = observer.cue  # asks the model where it must be chosen
    recorder.on = True
    for text in texts:
        recorder.questions.append([])
        observer.observe(text, blocks)
    recorder.on = False
    route = ROUTES[isinstance(weak, OllamaModel)]
    bodies = [body for one in recorder.questions for body in one]
    chain = chain_of(Solver(observer, mode), Fit(rows=tuple(train)))
    chain.invoke(train[0].text)  # fits the reader

    def solve() -> None:
        for text in texts:
            chain.invoke(text)

    def feed() -> None:
        for body in bodies:
            client.post(route, content=body, headers={"content-type": "application/json"}).raise_for_status()

    feed()
    pairs = [timed(solve, feed, swapped=bool(turn % 2)) for turn in range(options.repeats)]
    ratio, low, high = interval([bare / ours for ours, bare in pairs])
    ours, bare = (len(texts) / statistics.median(times) for times in zip(*pairs, strict=True))
    least, shared = None, None
    if recorder.evaluated is not None and isinstance(weak, EmbeddedModel):
        least, shared = fewest([[tokens_of(body, weak) for body in one] for one in recorder.questions])
    return Row(model, str(arm), mode, len(texts), ours, bare, ratio, low, high, recorder.evaluated, least, shared)


def opened(name: str, home: Home, recorder: Recorder) -> BaseChatModel:
    """Return the model with a recorder on its connections."""
    hooks: dict[str, list[Callable[..., Any]]] = {"response": [recorder]}
    if name.startswith("ollama:"):
        return weak_model(name, home=home, client_kwargs={"event_hooks": hooks})
    weak = weak_model(name, home=home)
    if isinstance(weak, EmbeddedModel):
        weak.engine.close()  # another arm may have left its beginning in the cache
        weak.engine._client.event_hooks = hooks
    return weak


def bare_client(weak: BaseChatModel) -> httpx.Client:
    """Return a client that sends to the engine what it is given."""
    if isinstance(weak, EmbeddedModel):
        return httpx.Client(**weak.engine._connection())
    assert isinstance(weak, OllamaModel)
    return httpx.Client(base_url=weak.server.url, timeout=600.0, trust_env=False)


def asked(options: argparse.Namespace, weak: BaseChatModel, arm: Arm) -> tuple[Observer, list[Example], list[str]]:
    """Return the observer of an arm, rows to fit a reader on, and the questions."""
    folder = Path(options.data) / options.task
    task, train, test = load(folder, train=TRAIN_ROWS, test=options.questions, seed=0)
    grimoire = grimoire_of(Path(options.grimoires) / options.task, options.sampler, task)
    examples = ArmBuilder(task, weak, embedder(), train).examples if arm.examples == "few-shot" else []
    observer = Observer(weak, task, arm, grimoire, tuple(examples), cue_texts=tuple(row.text for row in train))
    return observer, [row for row in train if row not in examples][:FITTED_ROWS], [row.text for row in distinct(test)]


# ------------------------------------------------------------------ figures


def timed(solve: Callable[[], None], feed: Callable[[], None], *, swapped: bool) -> tuple[float, float]:
    """Return the seconds that each takes, run in turn."""
    taken = {}
    for call in (feed, solve) if swapped else (solve, feed):
        started = time.perf_counter()
        call()
        taken[call] = time.perf_counter() - started
    return taken[solve], taken[feed]


def interval(ratios: Sequence[float]) -> tuple[float, float, float]:
    """Return the geometric mean and its 95% t-interval."""
    from scipy.stats import t

    logs = [math.log(ratio) for ratio in ratios]
    mean, n = statistics.mean(logs), len(logs)
    half = float(t.ppf(0.975, n - 1)) * statistics.stdev(logs) / math.sqrt(n) if n > 1 else math.inf
    return math.exp(mean), math.exp(mean - half), math.exp(mean + half)


def tokens_of(body: bytes, weak: EmbeddedModel) -> tuple[int, ...]:
    """Return the tokens of a request's prompt: a text, or a list of texts and tokens."""
    prompt = json.loads(body)["prompt"]
    parts = [prompt] if isinstance(prompt, str) else prompt
    pieces = [weak.engine.prompt_tokens(part) if isinstance(part, str) else [part] for part in parts]
    return tuple(token for piece in pieces for token in piece)


def fewest(prompts: Sequence[Sequence[tuple[int, ...]]]) -> tuple[int, int]:
    """Return the tokens that must be evaluated: without and with sharing among questions that begin alike.

    Args:
        prompts: the prompts of each question's requests.
    """
    every = [prompt for one in prompts for prompt in one]
    first, last = min(every), max(every)  # what these share, all share
    front = len(os.path.commonprefix([first, last]))
    return front + sum(_beginnings(one) - front for one in prompts), _beginnings(every)


def _beginnings(prompts: Sequence[tuple[int, ...]]) -> int:
    """Return how many different beginnings some token sequences have: the nodes of their tree."""
    ordered = sorted(set(prompts))
    shared = [len(os.path.commonprefix([a, b])) for a, b in zip(ordered, ordered[1:], strict=False)]
    return sum(map(len, ordered)) - sum(shared)


def _line(row: Row) -> str:
    tokens = "not told | | "
    if row.evaluated is not None and row.least and row.least_shared:
        ratios = f"{row.evaluated / row.least:.3f} ({row.evaluated / row.least_shared:.3f})"
        tokens = f"{row.evaluated} | {row.least} | {ratios}"
    ratio = f"{row.ratio:.3f} [{row.low:.3f}, {row.high:.3f}]"
    return f"| {row.model} | {row.arm} | {row.mode} | {row.solver:.2f} | {row.raw:.2f} | {ratio} | {tokens} |"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--grimoires", required=True)
    parser.add_argument("--task", default="TREC")
    parser.add_argument("--sampler", default="k-means", help="which grimoire: the beginning of its file's name")
    parser.add_argument("--models", default="embedded:smollm2,ollama:smollm2:135m")
    parser.add_argument("--arms", default="few-shot,profound")
    parser.add_argument("--modes", default="score,hidden")
    parser.add_argument("--questions", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--results", default=str(RESULTS))
    parser.add_argument("--home")
    return parser.parse_args()


if __name__ == "__main__":
    main()
