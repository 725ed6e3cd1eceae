"""Answers a file with a stub for a model, slowly enough to be killed: python -m tests.support.batch_stub IN OUT"""

import sys
import time
from pathlib import Path

from langchain_core.runnables import Runnable, RunnableLambda

from sleicl_chains.answers import Answer
from sleicl_chains.errors import PromptTooLong, RejectedReply
from sleicl_chains.serving import outputs
from sleicl_chains.serving.asking import Asking
from sleicl_chains.serving.batch import answer_file


def stub(pause_s: float = 0.0) -> Runnable[str, Answer]:
    """Return a chain whose answer is the question's length, even or odd; some words make it fail."""

    def answer(question: str) -> Answer:
        time.sleep(pause_s)
        if "endless" in question:
            raise PromptTooLong("the prompt is too long")
        if "cut" in question:
            raise RejectedReply("the reply was cut")
        label = ("even", "odd")[len(question) % 2]
        return Answer(label=label, text=label, valid=True, mode="score", probability=1 / (1 + len(question)))

    return RunnableLambda(answer).with_config(metadata={"settings": "stub"})


def main(source: str, output: str) -> None:
    outputs._SAFE_S = 0.02  # written so often that a kill falls between two times
    answer_file(Asking(stub(0.002)), Path(source), Path(output))


if __name__ == "__main__":
    main(*sys.argv[1:])
