"""How far a recipe that was exported to Ollama answers like the solver: the same questions by a plain `ollama` client.

    python -m benchmarks.exported --data DIR --grimoires DIR [--model qwen2.5-coder:1.5b] [--task TREC] [--limit 100]
        [--arm simple+few-shot] [--sampler k-means] [--base-url URL] [--threads 1]

The solver reads words (mode `generate`). The client sends nothing but the question, and once more with a system prompt
of its own before it, as many do. The exported model is taken away at the end.
"""

import argparse
import tempfile
from pathlib import Path

import httpx
from ollama import Client

from benchmarks.data import grimoire_of, load
from sleicl_chains.answering.arms import Arm
from sleicl_chains.answering.recipes import Recipe, Shown, Verdict, told_by
from sleicl_chains.answering.solver import solver
from sleicl_chains.files import Home
from sleicl_chains.grimoires.samplers import few_shot_examples
from sleicl_chains.models.names import weak_model
from sleicl_chains.models.ollama.model import OllamaModel
from sleicl_chains.serving.export import create, in_words, rendered
from sleicl_chains.tasks.labels import parse_label

NAME = "sleicl-benchmark-exported"
OWN = "You are a helpful assistant."


def main() -> None:
    """Print one line for each way of asking."""
    options = _options()
    weak = weak_model(f"ollama:{options.model}", base_url=options.base_url, num_thread=options.threads)
    assert isinstance(weak, OllamaModel)
    task, train, test = load(Path(options.data) / options.task, train=100, test=options.limit, seed=0)
    arm, grimoire = Arm.of(options.arm), grimoire_of(Path(options.grimoires) / options.task, options.sampler, task)
    examples = few_shot_examples(task, train, grimoire, seed=0)[0] if arm.shows_examples else []
    recipe = Recipe(
        task=task, weak=f"ollama:{options.model}", model=told_by(weak, task.labels), arm=arm.name, mode="generate",
        prior="none", grimoire=Shown.of(getattr(grimoire, arm.form), id=grimoire.id) if arm.form else None,
        examples=[Shown.of(one.text, one.answer) for one in examples], rows=len(examples), seed=0,
        verdict=Verdict(finding="no difference shown"),
    )  # fmt: skip
    chain, client = solver(recipe, model=weak), Client(weak.server.url)
    try:
        with tempfile.TemporaryDirectory() as folder:
            made = create(recipe, weak, NAME, home=Home(Path(folder)), force=True)
        texts = [row.text for row in test]
        equal = sum(
            rendered(weak.server, NAME, one) == weak.render(in_words(recipe, weak).messages(one)) for one in texts
        )
        print(f"{options.task}, {options.model}, {arm.name}, {len(test)} rows: {made.prompt_tokens} tokens before the "
              f"question; prompts equal to the byte: {equal}", flush=True)  # fmt: skip
        print(
            "| asked by | same label as the solver | same words | valid | right |\n| --- | ---: | ---: | ---: | ---: |"
        )
        answers = [chain.invoke(text) for text in texts]
        by_solver = [(one.label, one.text) for one in answers]
        truth = [row.answer for row in test]
        print(_line("the solver", by_solver, by_solver, truth), flush=True)
        for name, before in (("a plain client", []), ("one with a system prompt of its own", [OWN])):
            said = [_asked(client, text, before) for text in texts]
            print(_line(name, [(parse_label(one, task.labels), one) for one in said], by_solver, truth), flush=True)
    finally:
        httpx.request("DELETE", f"{weak.server.url}/api/delete", json={"model": NAME}, trust_env=False)


def _asked(client: Client, text: str, before: list[str]) -> str:
    turns = [*({"role": "system", "content": one} for one in before), {"role": "user", "content": text}]
    return (client.chat(NAME, messages=turns).message.content or "").strip()


def _line(
    name: str, found: list[tuple[str | None, str]], solver: list[tuple[str | None, str]], truth: list[str]
) -> str:
    pairs = list(zip(found, solver, strict=True))
    shares = (
        sum(one[0] == other[0] for one, other in pairs),
        sum(one[1] == other[1] for one, other in pairs),
        sum(label is not None for label, _ in found),
        sum(label == right for (label, _), right in zip(found, truth, strict=True)),
    )
    return f"| {name} | " + " | ".join(f"{share / len(found):.2f}" for share in shares) + " |"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--grimoires", required=True)
    parser.add_argument("--model", default="qwen2.5-coder:1.5b")
    parser.add_argument("--task", default="TREC")
    parser.add_argument("--limit", type=int, default=100)
    parser.add_argument("--arm", default="simple+few-shot")
    parser.add_argument("--sampler", default="k-means")
    parser.add_argument("--base-url")
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


if __name__ == "__main__":
    main()
