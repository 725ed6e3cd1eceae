"""Whether the whole prompt arrived, judged by the number of tokens that the server says it read."""

from dataclasses import dataclass

from sleicl_chains.errors import PromptTooLong
from sleicl_chains.ollama.versions import REFUSES_SINCE, is_before

_CHARACTERS_A_TOKEN = 4.0
"""Until a reply says better; that of English text."""


def too_long(tokens: str, context: int) -> PromptTooLong:
    """Return the error for a prompt that does not fit, with what can be done."""
    return PromptTooLong(
        f"The prompt has {tokens} tokens; the context holds {context}. Use fewer or shorter examples, the simple "
        "grimoire, or a larger context (--option num_ctx=8192)"
    )


@dataclass
class Arrival:
    """What a model's replies tell about the length of its tokens."""

    characters_a_token: float = _CHARACTERS_A_TOKEN

    def estimate(self, characters: int) -> int:
        """Return about how many tokens a text has."""
        return round(characters / self.characters_a_token)

    def refused(self, characters: int, context: int) -> PromptTooLong:
        """Return the error for a prompt that the server refused without saying how long it is."""
        return too_long(f"about {max(self.estimate(characters), context + 1)}", context)

    def check(self, count: int, characters: int, context: int, version: tuple[int, ...]) -> None:
        """Check what the server says it read, and learn from it.

        A server since 0.12.6 has refused what does not fit. An older one leaves half of the context or all
        of it and says HTTP 200, so there a count well below the estimate means a cut prompt.

        Raises:
            PromptTooLong: the front of the prompt, the grimoire in our use, did not arrive.
        """
        expected = self.estimate(characters)
        cut = is_before(version, REFUSES_SINCE) and expected > 0.9 * context and count < 0.75 * expected
        if count >= context or cut:
            raise too_long(f"about {max(expected, context + 1)} (of which {count} arrived)", context)
        if count >= 50:  # below, the template's own tokens count for too much
            self.characters_a_token = characters / count
