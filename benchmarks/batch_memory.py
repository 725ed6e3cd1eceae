"""How much memory `sleicl batch` takes for few rows and for many: peak resident memory, a process of its own each.

    python -m benchmarks.batch_memory [--rows 1000,100000] [--forms csv,jsonl,parquet] [--concurrency 1]

The model is a stub inside the process that answers at once, so the figures are those of reading, asking and writing.
"""

import argparse
import csv
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult

from sleicl_chains import Task, solver
from sleicl_chains.serving.asking import Asking
from sleicl_chains.serving.batch import answer_file

TASK = Task(name="stub", task_type="choice", description="Say which.", labels=("even", "odd"))
TEXT = "a message of some length, as people write them to a desk that answers them, number"


class Stub(BaseChatModel):
    """Answers by the length of the question."""

    @property
    def _llm_type(self) -> str:
        return "stub"

    @property
    def identity(self) -> dict[str, Any]:
        """What tells it from other models."""
        return {"weights": "stub"}

    def _generate(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> ChatResult:
        said = TASK.labels[len(messages[-1].text) % 2]
        return ChatResult(generations=[ChatGeneration(message=AIMessage(said))])


def write_rows(path: Path, count: int) -> None:
    """Write rows of some 100 characters."""
    rows = ({"id": str(number), "text": f"{TEXT} {number}"} for number in range(count))
    with path.open("w", encoding="utf-8", newline="") as file:
        if path.suffix == ".csv":
            writer = csv.DictWriter(file, ["id", "text"])
            writer.writeheader()
            writer.writerows(rows)
        else:
            file.writelines(json.dumps(row) + "\n" for row in rows)


def measure(path: Path, output: Path, concurrency: int) -> dict[str, Any]:
    """Answer a file in this process and return what it took."""
    chain, started = solver(Stub(), TASK, mode="generate"), time.perf_counter()
    found = answer_file(Asking(chain, concurrency=concurrency), path, output)
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # in KiB on Linux
    return {
        "form": output.suffix[1:], "rows": found.rows, "answered": found.answered, "seconds": round(seconds, 1),
        "peak_mib": round(peak),
    }  # fmt: skip


def main() -> None:
    """Measure each size and form."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", default="1000,100000")
    parser.add_argument("--forms", default="csv,jsonl,parquet")
    parser.add_argument("--concurrency", type=int, default=1)
    parser.add_argument("--one", nargs=2, help="an input and an output, measured here")
    given = parser.parse_args()
    if given.one:
        print(json.dumps(measure(Path(given.one[0]), Path(given.one[1]), given.concurrency)))
        return
    with tempfile.TemporaryDirectory() as folder:
        for form in given.forms.split(","):
            for count in map(int, given.rows.split(",")):
                rows = Path(folder) / f"rows-{count}.{'csv' if form == 'csv' else 'jsonl'}"
                write_rows(rows, count)
                command = [sys.executable, "-m", "benchmarks.batch_memory", "--concurrency", str(given.concurrency)]
                output = Path(folder) / f"out-{count}.{form}"
                subprocess.run([*command, "--one", str(rows), str(output)], check=True)


if __name__ == "__main__":
    main()
