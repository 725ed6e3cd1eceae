"""How far Ollama's 20 alternatives tell the same as the exact scores, on the same weights and the same prompts.

    python -m benchmarks.agreement --data DIR [--model smollm2:135m] [--tasks TREC,Subj,AgNews] [--limit 100]
        [--arms zero-shot,profound+few-shot --grimoires DIR] [--threads 1]

Each prompt is rendered with the cue "Answer:" by both, Ollama's API (`ollama:NAME`) and the embedded engine on the file
that Ollama holds (`embedded:ollama/NAME`), and compared byte by byte; their raw probabilities are compared, no prior
taken off. Then each answers as its solver does, its own cue and the prior `mean` with it: how often the two give the
same label, and how often each is right.
"""

import argparse
from pathlib import Path

from benchmarks.data import grimoire_of, load
from sleicl_chains.answering.arms import Arm
from sleicl_chains.answering.cues import CUE
from sleicl_chains.answering.prompt import Prompt
from sleicl_chains.evaluation.table import ArmBuilder
from sleicl_chains.models.abilities import LabelScores
from sleicl_chains.models.embedders import embedder
from sleicl_chains.models.llamacpp.model import EmbeddedModel
from sleicl_chains.models.names import weak_model
from sleicl_chains.models.ollama.model import OllamaModel

TRAIN_ROWS = 100


def main() -> None:
    """Print one line a task and arm."""
    options = _options()
    shown = weak_model(f"ollama:{options.model}", num_thread=options.threads)
    exact = weak_model(f"embedded:ollama/{options.model}", threads=options.threads)
    assert isinstance(shown, OllamaModel) and isinstance(exact, EmbeddedModel)
    print(
        "| task | arm | prompts equal | labels out of sight | largest and mean difference in sight "
        "| same likeliest label | same answer | right: Ollama | right: embedded |"
    )
    print("| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for name in options.tasks.split(","):
        for arm in options.arms.split(","):
            print(f"| {name} | {arm} | {_line(options, name, arm, shown, exact)} |", flush=True)


def _line(options: argparse.Namespace, name: str, arm: str, shown: OllamaModel, exact: EmbeddedModel) -> str:
    task, train, test = load(Path(options.data) / name, train=TRAIN_ROWS, test=options.limit, seed=0)
    grimoire = grimoire_of(Path(options.grimoires) / name, options.sampler, task) if options.grimoires else None
    builders = [ArmBuilder(task, weak, embedder(), train, grimoire) for weak in (shown, exact)]
    examples = tuple(builders[1].examples) if Arm.of(arm).shows_examples else ()
    chat = Prompt(task, Arm.of(arm), grimoire, examples, names_texts=not shown.has_template)
    prompts = [[weak.render(chat.messages(row.text, CUE)) for weak in (shown, exact)] for row in test]
    pairs = [(shown.score_labels(one, task.labels), exact.score_labels(one, task.labels)) for one, _ in prompts]
    chains = [builder.build([arm])[arm] for builder in builders]
    answers = [[chain.invoke(row.text).label for row in test] for chain in chains]
    right = [sum(label == row.answer for label, row in zip(said, test, strict=True)) / len(test) for said in answers]
    same = sum(one == other for one, other in zip(*answers, strict=True)) / len(test)
    equal = sum(one == other for one, other in prompts)
    return f"{equal} of {len(test)} | {_cells(pairs, len(task.labels))} | {same:.0%} | {right[0]:.3f} | {right[1]:.3f}"


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
    parser.add_argument("--arms", default="zero-shot")
    parser.add_argument("--grimoires", help="DIR/TASK/*.json, for arms that show one")
    parser.add_argument("--sampler", default="k-means", help="which grimoire: the beginning of its file's name")
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


if __name__ == "__main__":
    main()
