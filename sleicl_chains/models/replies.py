"""Which replies are accepted: one set of rules for the writer, the solver and the strong model that is deferred to."""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from sleicl_chains.errors import CutReply, RejectedReply
from sleicl_chains.files import SURROGATE
from sleicl_chains.models.template_tokens import TOKENS_REMOVED, trimmed, without_template_tokens
from sleicl_chains.models.thinking import finished_thinking, unclosed, without_thinking

if TYPE_CHECKING:  # LangChain's messages take a quarter of a second to load
    from langchain_core.messages import AIMessage

_REASON_KEYS = ("finish_reason", "done_reason", "stop_reason", "status")
_CUT = {"length", "max_tokens", "max_output_tokens", "model_length", "model_context_window_exceeded", "incomplete"}
_WITHHELD = {
    "content_filter", "content_filtered", "safety", "refusal", "recitation", "blocklist", "prohibited_content", "spii",
    "guardrail_intervened",
}  # fmt: skip
_BROKEN = {"error", "failed", "insufficient_system_resource"}

_MORE = "allow it more tokens (--option max_tokens=16000)"
MORE_WEAK = "allow more tokens (--option max_tokens=512)"
STRONG = "the strong model's reply"


def cut_by(message: "AIMessage") -> str:
    """Return the provider's word for a reply that ended at a limit of length; empty if it did not."""
    return _reason(message, _CUT)


def _reason(message: "AIMessage", words: set[str]) -> str:
    found = {key: str(message.response_metadata.get(key) or "").lower() for key in _REASON_KEYS}
    return next((f"{key} {word!r}" for key, word in found.items() if word in words), "")


def check_not_withheld(message: "AIMessage", whose: str, help: str) -> None:
    """Refuse what a filter or the model itself held back, and what broke off on the way.

    Raises:
        RejectedReply: it is so.
    """
    if refusal := message.additional_kwargs.get("refusal"):
        raise RejectedReply(f"{whose} was withheld (refusal {str(refusal)[:80]!r}); {help}")
    if reason := _reason(message, _WITHHELD):
        raise RejectedReply(f"{whose} was withheld ({reason}); {help}")
    if reason := _reason(message, _BROKEN):
        raise RejectedReply(f"{whose} broke off ({reason}); the same command asks again")


def cut_reply(text: str) -> CutReply:
    """Return an error that no repetition mends."""
    problem = CutReply(text)
    problem.retryable = False  # the same limit cuts it again
    return problem


def check_reply(message: "AIMessage") -> str:
    """Return the text of a strong model's reply, without its thinking and cleaned as `cleaned` says.

    Raises:
        CutReply: it ended at its limit of length, perhaps in thinking alone.
        RejectedReply: the text is empty, was withheld, or ends inside a thinking block.
    """
    return check_text(message).text


def check_text(message: "AIMessage") -> "Cleaned":
    """Do the same as `check_reply`, and tell what stood beside the text."""
    if reason := cut_by(message):
        thought = "" if without_thinking(message.text) else " before it said anything but thinking"
        raise cut_reply(f"{STRONG} was cut ({reason}){thought}; {_MORE}")
    check_not_withheld(message, STRONG, "try other examples")
    text = finished_thinking(message.text)
    if tag := unclosed(text):
        raise RejectedReply(f"{STRONG} has an unclosed {tag}; {_MORE}")
    if SURROGATE.search(text):
        raise RejectedReply(f"{STRONG} holds half of a surrogate pair; expected valid Unicode")
    found = cleaned(text)
    if not found.text:
        raise RejectedReply(f"{STRONG} is empty; expected a text")
    return found


class Cleaned(NamedTuple):
    """A guide as it is kept."""

    text: str
    warnings: tuple[str, ...]
    """What a person should look at."""


def cleaned(text: str) -> Cleaned:
    r"""Return a guide's text with plain line ends, without one outer code fence and without template tokens.

    A template token, such as `<|im_end|>`, would act as one in every later prompt. At the end of a reply it is what the
    model meant as its end; elsewhere taking it out is told. Chat around the guide stays and is told: which words are
    chat only a person can decide.
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n").strip()
    bare, inside = without_template_tokens(trimmed(text))
    text = _unfenced(bare.strip())
    warnings = [f"{TOKENS_REMOVED}: {' '.join(inside)}"] if inside else []
    if chat := chat_around(text):
        warnings.append(f"the guide may have chat around it: {' ... '.join(chat)}")
    return Cleaned(text, tuple(warnings))


_FENCE = re.compile(r"\A(`{3,}|~{3,})[ \t]*(\w*)[ \t]*\n(.*)\n\1[ \t]*\Z", re.DOTALL)


def _unfenced(text: str) -> str:
    """Take away a code fence around the whole; two blocks with a text between them are no such fence."""
    found = _FENCE.match(text)
    if not found:
        return text
    fence, kind, inner = found.groups()
    inside = len(re.findall(rf"^{fence}", inner, re.MULTILINE))
    return inner.strip() if not inside or (kind and inside % 2 == 0) else text


_OPENING = re.compile(
    r"\A(?:(?:certainly|sure|of course|absolutely|got it|okay|gerne|natürlich|claro|好的|当然)"
    r"[ \t]*[!,.:，！。：][^\n]*|"
    r"(?:here (?:is|are)|here['’]s|below is|hier ist|voici|以下是|以下は)[^\n]*[:：][*_]*[ \t]*(?:\n|\Z))",
    re.IGNORECASE,
)
_CLOSING = re.compile(
    r"^(?:let me know|i hope|hope this|feel free|is there anything|(?:would|do) you (?:like|want) me|"
    r"if you(?:['’]d| would)? (?:need|want|like) (?:me|more|any|further|anything)|lass(?:en sie)? mich wissen|"
    r"希望|如果您|如有)[^\n]*\Z",
    re.IGNORECASE | re.MULTILINE,
)


def chat_around(text: str) -> list[str]:
    """Return a first and a last line that speak to a person, such as "Certainly! Here is ..."."""
    found = [pattern.search(text) for pattern in (_OPENING, _CLOSING)]
    return [" ".join(match[0].split())[:60] for match in found if match]


def check_label(message: "AIMessage", label: str | None, labels: Sequence[str]) -> None:
    """Refuse a reply that is no answer to a labelled task.

    A whole reply without a label is an answer, a wrong one. A reply that was cut, or that thinks on to its end, counts
    only where it names its label in full.

    Args:
        message: the reply.
        label: what was read in it.
        labels: all that could have been.

    Raises:
        CutReply: it was cut before it named one.
        RejectedReply: it is empty, was withheld, or is thinking alone.
    """
    check_not_withheld(message, "the reply", "ask in other words")
    reason = cut_by(message)
    if label is None and reason:
        raise cut_reply(f"the reply was cut ({reason}) before it named a label; {MORE_WEAK}")
    if reason and label is not None and _may_go_on(message.text, label, labels):
        raise cut_reply(f"the reply was cut ({reason}) after {label!r}, where another label may go on; {MORE_WEAK}")
    if label is None:
        check_said(message)


def _may_go_on(text: str, label: str, labels: Sequence[str]) -> bool:
    """Say whether a cut text ends in a label that begins another one, as "hate" begins "hate speech"."""
    ends = text.rstrip().casefold().endswith(label.casefold())
    return ends and any(other != label and other.casefold().startswith(label.casefold()) for other in labels)


def check_said(message: "AIMessage") -> None:
    """Refuse a reply without a word beside its thinking.

    Raises:
        RejectedReply: it is so, or all of it was withheld.
    """
    check_not_withheld(message, "the reply", "ask in other words")
    if without_thinking(message.text):
        return
    if message.text.strip() or cut_by(message):
        raise RejectedReply(f"the reply only thought and gave no answer; {MORE_WEAK}")
    raise RejectedReply("the reply is empty; ask in other words, or take a larger model")


def check_whole(message: "AIMessage") -> None:
    """Refuse an open-ended reply that says nothing or was cut.

    Raises:
        CutReply: it was cut.
        RejectedReply: it is empty, was withheld, or is thinking alone.
    """
    check_said(message)
    if reason := cut_by(message):
        raise cut_reply(f"the reply was cut ({reason}); {MORE_WEAK}")
