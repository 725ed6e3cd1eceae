"""Write what the package knows of a model's gains: `sleicl_chains/learning/gains.json`, out of `results/learned/`.

    python -m benchmarks.gains

A line for each model, reading and pair of prompts: by task, the difference in accuracy on test rows and its standard
error. `learn` weighs it against what it measures (see `learning/choice.py`), leaving out the task that it learns.
"""

import json
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.learned import RESULTS

FILE = Path(__file__).parent.parent / "sleicl_chains" / "learning" / "gains.json"
PAIRS = (
    ("profound+few-shot", "few-shot"), ("profound", "few-shot"), ("zero-shot", "few-shot"), ("profound", "zero-shot"),
)  # fmt: skip


def main() -> None:
    """Put all results together; of one task and reading the one with the most rows."""
    found = [json.loads(file.read_text(encoding="utf-8")) for file in sorted(RESULTS.glob("*.json"))]
    found.sort(key=lambda one: (one["weights"], one["mode"], one["task"], len(one["rows"])))
    lines = [
        {
            "model": group[0]["model"].removeprefix("embedded:"), "weights": weights, "mode": mode, "arm": arm,
            "against": against, "tasks": {one["task"]: _gain(one["right"], arm, against) for one in group},
        }
        for (weights, mode), each in groupby(found, key=lambda one: (one["weights"], one["mode"]))
        for group in [list(each)]
        for arm, against in PAIRS
    ]  # fmt: skip
    FILE.write_text(json.dumps(lines, indent=1) + "\n", encoding="utf-8")
    for line in lines:
        gains = [one["difference"] for one in line["tasks"].values()]
        print(f"{line['model']}, {line['mode']}: {line['arm']} less {line['against']} {np.mean(gains):+.3f}, {gains}")


def _gain(right: dict[str, str], arm: str, against: str) -> dict[str, Any]:
    steps = np.array([int(ours) - int(theirs) for ours, theirs in zip(right[arm], right[against], strict=True)])
    error = max(float(steps.std()), len(steps) ** -0.5) / len(steps) ** 0.5
    return {"difference": round(float(steps.mean()), 4), "error": round(error, 4), "n": len(steps)}


if __name__ == "__main__":
    main()
