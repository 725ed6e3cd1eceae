"""How many tokens a text is, about, before any model is asked."""

import re

_LATIN = re.compile(r"[\x00-\u024f]")
# Chinese, Japanese, Korean, their punctuation, and emoji
_WIDE = re.compile(r"[\u3000-\u9fff\uac00-\ud7a3\uf900-\ufaff\uff00-\uffef\U0001f000-\U0003ffff]")


def estimate_tokens(text: str) -> int:
    """Return about how many tokens a text is: a fourth of its Latin characters, half of others, and each wide one.

    So much is usual for models that know the language; one that does not may need three times as many.
    """
    latin, wide = len(_LATIN.findall(text)), len(_WIDE.findall(text))
    return round(latin / 4 + (len(text) - latin - wide) / 2 + wide)
