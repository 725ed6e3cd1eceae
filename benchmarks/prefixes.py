"""How a label that begins another is to be scored: by the end of the turn, or by what the longer label leaves.

Both are held against the probability of the whole labels, each followed by an end of some kind, and against what the
model writes. `python benchmarks/prefixes.py --data DIR [--weak NAME]`; DIR as for `paper.py`; 100 test rows a set.
"""

import argparse
import json
import math
from pathlib import Path

import numpy as np
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score

from sleicl_chains.models.llamacpp.model import EmbeddedModel
from sleicl_chains.models.llamacpp.scoring import spell
from sleicl_chains.models.names import weak_model
from sleicl_chains.prompts import fill

SETS = (
    ("hate_speech18", {"hate": "hate", "no hate": "hate free"}),
    ("hate_speech18", {"no hate": "no", "hate": "no doubt hate"}),
    ("Subj", {"subjective": "opinion", "objective": "opinion free"}),
    ("SST5", {"positive": "good", "negative": "good for nothing"}),
    ("AgNews", {"World": "news", "Sports": "news about sports"}),
)
"""Labels of the data set, and what they are called here: the first begins the second or the other way round."""
PER_LABEL = 50
STOPS = "\n.,;:!?\"')"


class Scorer:
    """Reads one model's probabilities after a prompt."""

    def __init__(self, model: EmbeddedModel) -> None:
        self.model, self.engine = model, model.engine
        self.end = self.engine.tokens(self.engine._get("/props")["eos_token"], special=True)[-1]

    def chances(self, ids: list[int], tokens: list[int]) -> dict[int, float]:
        """Return the probabilities of tokens among all."""
        return self.model._next_tokens()._beside_drawn([*ids], tokens)

    def stops(self, ids: list[int]) -> float:
        """Return the probability that a text ends here, or goes on with a mark or a new line."""
        body = {"prompt": ids, "n_predict": 1, "temperature": 1.0, "samplers": [], "post_sampling_probs": True}
        for seed in range(20):  # where a piece of a character is drawn, there is no list
            reply = self.engine.post("/completion", body | {"n_probs": 2000, "seed": seed})
            if found := reply.get("completion_probabilities"):
                listed = found[0]["top_probs"]
                return math.fsum(
                    entry["prob"]
                    for entry in listed
                    if entry["id"] == self.end or (entry["token"].strip(" ")[:1] or " ") in STOPS
                )
        raise RuntimeError("no whole character was drawn")

    def log_odds(self, text: str, short: str, long: str) -> tuple[float, float, float, bool]:
        """Return the longer label's log-odds by the three rules, and whether it is what the model writes."""
        prompt = self.prompt(text, (short, long))
        start, (begun, whole) = spell(self.engine, prompt, (short, long))
        ids = [*(self.engine.prompt_tokens(prompt) if start == [prompt] else map(int, start)), *begun]
        step, *rest = whole[len(begun) :]
        chances = self.chances(ids, [step, self.end])
        sequence, place = chances[step], [*ids, step]
        for token in rest:
            sequence *= self.chances(place, [token])[token]
            place.append(token)
        sequence *= self.stops(place) / max(1e-12, self.stops(ids))
        body = {"prompt": ids, "n_predict": 6, "temperature": 0.0}
        written = self.engine.post("/completion", body)["content"].startswith(long.removeprefix(short))
        by_end = math.log(chances[step] / chances[self.end])
        return by_end, math.log(chances[step] / (1 - chances[step])), math.log(sequence), written

    def prompt(self, text: str, labels: tuple[str, str]) -> str:
        """Return the rendered prompt of one row."""
        card = {"task_type": "", "description": "Classify the text.", "labels": ", ".join(labels), "grimoire": ""}
        said = text if self.model.has_template else f"Text: {text}"
        system = fill("answer_label", **card).strip()
        return self.model.render([SystemMessage(system), HumanMessage(said), AIMessage("Answer:")])


def measure(scorer: Scorer, data: Path, task: str, names: dict[str, str]) -> None:
    """Print one set's figures."""
    rows = [json.loads(line) for line in (data / task / "test.jsonl").read_text(encoding="utf-8").splitlines()]
    chosen = [row for label in names for row in [row for row in rows if row["answer"] == label][:PER_LABEL]]
    short, long = sorted(names.values(), key=len)
    found = [scorer.log_odds(row["text"], short, long) for row in chosen]
    *rules, written = (np.array(column) for column in zip(*found, strict=True))
    gold = np.array([names[row["answer"]] == long for row in chosen])
    print(f"{task}: {short!r} and {long!r}, {len(gold)} rows; the longer is written in {written.mean():.2f}")
    for rule, odds in zip(("end", "remainder", "sequence"), rules, strict=True):
        print(
            f"  {rule:9} share of longer {np.mean(1 / (1 + np.exp(-odds))):.3f}, AUC {roc_auc_score(gold, odds):.3f}, "
            f"as written {((odds > 0) == written).mean():.2f}, from sequence {np.mean(abs(odds - rules[2])):.2f} nats, "
            f"rank correlation {spearmanr(odds, rules[2])[0]:.2f}",
            flush=True,
        )


def main() -> None:
    """Measure all sets."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--weak", default="embedded:smollm2")
    given = parser.parse_args()
    model = weak_model(given.weak, n_ctx=2048)
    assert isinstance(model, EmbeddedModel)
    for task, names in SETS:
        measure(Scorer(model), given.data, task, names)


if __name__ == "__main__":
    main()
