"""Which Ollama can do what, and with which this was run."""

import re
import warnings

Version = tuple[int, ...]

REFUSES_SINCE: Version = (0, 12, 6)
"""The first server that refuses an over-long prompt when told `truncate: false`; older ones cut its front."""
LOGPROBS_SINCE: Version = (0, 12, 11)
"""The first server with `logprobs`; older ones ignore the field."""
TRIED: Version = (0, 24, 0)
"""The server that this was run with."""
OTHER_ENGINE_SINCE: Version = (0, 30, 0)
"""From here on Ollama runs models in llama.cpp's own server; none of these was tried."""


def numbers(text: str) -> Version:
    """Return a version as numbers: "v0.24.0-rc1" as (0, 24, 0). A build that was given none calls itself 0.0.0."""
    found = re.match(r"v?(\d+(?:\.\d+)*)", text)
    return tuple(int(part) for part in found[1].split(".")) if found else (0, 0, 0)


def dotted(version: Version) -> str:
    """Return a version as people write it."""
    return ".".join(map(str, version))


def is_before(version: Version, since: Version) -> bool:
    """Tell whether a server is older; one that does not know its version is taken for new."""
    return any(version) and version < since


def untried(version: Version) -> str:
    """Return why a version may behave otherwise than described; empty for the one that was tried."""
    if version[:2] == TRIED[:2] or not any(version):
        return ""
    engine = ", and runs models in another engine" if version >= OTHER_ENGINE_SINCE else ""
    return (
        f"Ollama {dotted(version)} was not tried{engine}; {dotted(TRIED)} was. "
        "`sleicl models check NAME` says what works"
    )


def warn_untried(version: Version) -> None:
    """Warn of a version that was not tried."""
    if reason := untried(version):
        warnings.warn(reason, stacklevel=2)
