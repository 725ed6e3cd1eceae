"""How far Ollama's 20 alternatives tell the same as the exact scores, on the same weights and the same prompts.

    python -m benchmarks.agreement --data DIR [--model smollm2:135m] [--tasks TREC,Subj,AgNews] [--limit 100]

Zero-shot prompts with the cue "Answer:", rendered once and given to both: Ollama's API (`ollama:NAME`) and the embedded
engine on the file that Ollama holds (`embedded:ollama/NAME`). Probabilities are raw, no prior is taken off.
"""

import argparse
from pathlib import Path

from sleicl_chains.answering.arms import Arm
from sleicl_chains.answering.cues import CUE
from sleicl_chains.answering.prompt import Prompt
from sleicl_chains.evaluation.table import limited
from sleicl_chains.models.abilities import LabelScores
from sleicl_chains.models.llamacpp.model import EmbeddedModel
from sleicl_chains.models.names import weak_model
from sleicl_chains.models.ollama.model import OllamaModel
from sleicl_chains.tasks.cards import load_task
from sleicl_chains.tasks.rows import load_examples


def main() -> None:
    """Print one line a task."""
    options = _options()
    shown = weak_model(f"ollama:{options.model}", num_thread=1)
    exact = weak_model(f"embedded:ollama/{options.model}", threads=1)
    assert isinstance(shown, OllamaModel) and isinstance(exact, EmbeddedModel)
    print(
        "| task | prompts equal | labels out of sight | largest and mean difference in sight | same likeliest label |"
    )
    print("| --- | ---: | ---: | ---: | ---: |")
    for name in options.tasks.split(","):
        folder = Path(options.data) / name
        task = load_task(folder / "task.json")
        chat = Prompt(task, Arm(), names_texts=not shown.has_template)
        texts = [example.text for example in limited(load_examples(folder / "test.jsonl", task), options.limit)]
        prompts = [(shown.render(chat.messages(text, CUE)), exact.render(chat.messages(text, CUE))) for text in texts]
        pairs = [(shown.score_labels(one, task.labels), exact.score_labels(one, task.labels)) for one, _ in prompts]
        equal = sum(one == other for one, other in prompts)
        print(f"| {name} | {equal} of {len(texts)} | {_cells(pairs, len(task.labels))} |", flush=True)


def _cells(pairs: list[tuple[LabelScores, LabelScores]], labels: int) -> str:
    hidden = sum(len(one.unseen) for one, _ in pairs) / (len(pairs) * labels)
    differences = [difference for pair in pairs for difference in _differences(*pair)]
    same = sum(_best(one) == _best(other) for one, other in pairs) / len(pairs)
    return f"{hidden:.0%} | {max(differences):.3f}, {sum(differences) / len(differences):.4f} | {same:.0%}"


def _differences(shown: LabelScores, exact: LabelScores) -> list[float]:
    """Return how far the probabilities of labels in sight are apart, of the whole vocabulary and not of the labels."""
    seen = [label for label in exact.probabilities if label not in shown.unseen]
    share = sum(shown.probabilities[label] for label in seen) or 1.0
    return [
        abs(shown.probabilities[label] / share * shown.coverage - exact.probabilities[label] * exact.coverage)
        for label in seen
    ] or [0.0]


def _best(scores: LabelScores) -> str:
    return max(scores.probabilities, key=lambda label: scores.probabilities[label])


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--model", default="smollm2:135m")
    parser.add_argument("--tasks", default="TREC,Subj,AgNews")
    parser.add_argument("--limit", type=int, default=100)
    return parser.parse_args()


if __name__ == "__main__":
    main()
