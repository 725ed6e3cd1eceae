"""Whether the whole prompt arrived, judged by the number of tokens that the server says it read."""

from dataclasses import dataclass

from sleicl_chains.errors import PromptTooLong
from sleicl_chains.models.ollama.versions import REFUSES_SINCE, Version, is_before

_CHARACTERS_A_TOKEN = 4.0
"""Of English text. Only longer tokens are learned, so that no prompt is refused for one in another script."""
_HALF = 8
"""Tokens by which a halved prompt may miss half of the context (ollama#17427: num_ctx / 2 + 2)."""


@dataclass
class Arrival:
    """What a model's replies tell about the length of its tokens."""

    context: int = 0
    """Of the model, in tokens; set before a request is sent."""
    largest: int = 0
    """The context that the model was trained with; 0 where it is not known."""
    characters_a_token: float = _CHARACTERS_A_TOKEN

    def estimate(self, characters: int) -> int:
        """Return about how many tokens a text has."""
        return round(characters / self.characters_a_token)

    def check(self, count: int, characters: int, version: Version) -> None:
        """Check what the server says it read, and learn from it; 0 is no statement.

        A server since 0.12.6 refuses what does not fit. An older one, or one behind a proxy that loses
        `truncate: false`, leaves half of the context or all of it and says HTTP 200: there the count is that of a
        cut prompt, and on old servers any count well below the estimate is suspicious.

        Raises:
            PromptTooLong: the front of the prompt, the grimoire in our use, did not arrive.
        """
        if not count:
            return
        expected = self.estimate(characters)
        halved = expected > self.context and abs(count - self.context // 2) <= _HALF
        short = is_before(version, REFUSES_SINCE) and expected > 0.9 * self.context and count < 0.75 * expected
        if count >= self.context or halved or short:
            raise self.too_long(characters, f" (of which {count} arrived)")
        if count >= 50:  # below, the template's own tokens count for too much
            self.characters_a_token = max(self.characters_a_token, characters / count)

    def too_long(self, characters: int, arrived: str = "") -> PromptTooLong:
        """Return the error for a prompt that does not fit; the server does not say how long it is."""
        tokens = max(self.estimate(characters), self.context + 1)
        enough = 2 ** (tokens - 1).bit_length()
        if self.largest and self.context >= self.largest:
            larger = "or a model that holds more: this one was trained with no larger context"
        else:
            larger = f"or a larger context (--option num_ctx={min(enough, self.largest or enough)})"
        return PromptTooLong(
            f"The prompt has about {tokens} tokens{arrived}; the context holds {self.context}. Use a shorter text, "
            f"fewer or shorter examples, the simple grimoire, {larger}"
        )
