"""Thinking told from the answer while a reply comes in pieces."""

import pytest

from sleicl_chains.models.thinking import ThinkingStream


def told(*pieces: str) -> tuple[str, str]:
    """Return the thinking and the answer."""
    stream = ThinkingStream()
    parts = [part for piece in pieces for part in stream.feed(piece)] + [*stream.end()]
    return "".join(text for text, thinking in parts if thinking), "".join(
        text for text, thinking in parts if not thinking
    )


@pytest.mark.parametrize(
    ("pieces", "thinking", "answer"),
    [
        (["<thi", "nk>Hm", "</th", "ink>Yes"], "Hm", "Yes"),
        (["<Think>Hm", "</THI", "NK>Yes"], "Hm", "Yes"),
        (["\n", "  ", "<think>", "Hm</think>", "Yes"], "Hm", "\n  Yes"),
        (["First\n", "<reasoning>Hm</think></reasoning>Yes"], "Hm</think>", "First\nYes"),
        (["a <", "think>b", "\n 1 <", " 2"], "", "a <think>b\n 1 < 2"),
        (["<think>never ", "ends"], "never ends", ""),
    ],
)
def test_tags_count_at_the_beginning_of_a_line(pieces: list[str], thinking: str, answer: str) -> None:
    assert told(*pieces) == (thinking, answer)
    assert told(*"".join(pieces)) == (thinking, answer), "character by character"
