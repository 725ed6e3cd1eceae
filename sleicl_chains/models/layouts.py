"""How a chat is written down for a model that was trained on none."""

from collections.abc import Sequence

from langchain_core.messages import BaseMessage

STOP = "\n\n"
"""Where a reply in the completion layout ends: a base model goes on with a question of its own."""


def completion(messages: Sequence[BaseMessage]) -> str:
    """Return a chat as a text to be continued: blocks of question and answer, a blank line between them.

    An AI message stands on the line below its question, so "Answer: Sports" below a text; a last one
    is left open.
    """
    blocks: list[str] = []
    for message in messages:
        if message.type in ("ai", "AIMessageChunk") and blocks:
            blocks[-1] += f"\n{message.text}"
        else:
            blocks.append(message.text.strip())
    return "\n\n".join(blocks)
