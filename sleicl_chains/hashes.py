"""Short names for contents: the same content has the same one on every machine."""

import hashlib


def short_hash(*parts: str) -> str:
    """Return the first sixteen hex digits of the parts' SHA-256, a zero byte between two."""
    return hashlib.sha256("\0".join(parts).encode(errors="surrogatepass")).hexdigest()[:16]
