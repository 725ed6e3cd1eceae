"""Control tokens of chat templates in a text, where they are no text: a model may read them as the end of a turn."""

import re

TOKENS_REMOVED = "template tokens were removed"
"""What a warning about them begins with."""

_ROLES = r"(?:system|user|assistant|model|human|tool|developer)"
_OPENED = (  # what begins a turn goes with the name of whose turn it is
    rf"<\|im_start\|>\s*{_ROLES}?[ \t]*\n?|<\|start_header_id\|>\s*{_ROLES}?\s*<\|end_header_id\|>|"
    rf"<start_of_turn>\s*{_ROLES}?[ \t]*\n?|<\|start\|>\s*{_ROLES}?"
)
_ANY = (
    rf"{_OPENED}|<\|[\w▁ .-]{{1,40}}\|>|<｜[\w▁ .-]{{1,40}}｜>|</?s>|<(?:start|end)_of_turn>|<(?:bos|eos|pad|unk)>|"
    r"\[/?INST\]|<</?SYS>>|\[/?(?:SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_RESULTS|TOOL_CALLS)\]"
)
_TOKEN = re.compile(_ANY)
_ENDS = re.compile(rf"\A(?:\s|{_ANY})+|(?:\s|{_ANY})+\Z")


def without_template_tokens(text: str) -> tuple[str, list[str]]:
    """Return a text without template tokens, and each kind that was found, in order.

    Such as `<|im_end|>`, `<|eot_id|>`, `</s>`, `<end_of_turn>` and `[INST]`, whichever model the text is for. Repeated
    until none is left: taking one out may put another together.
    """
    found: dict[str, None] = {}
    while tokens := [match[0] for match in _TOKEN.finditer(text)]:
        found |= dict.fromkeys(token.strip() for token in tokens)
        text = _TOKEN.sub("", text)
    return text, list(found)


def trimmed(text: str) -> str:
    """Return a text without the template tokens and white space at its two ends."""
    return _ENDS.sub("", text)
