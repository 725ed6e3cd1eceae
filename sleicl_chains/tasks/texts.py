"""Text from outside: what encodings files have, and what is no text at all."""

from pathlib import Path

from sleicl_chains.errors import InputError
from sleicl_chains.files import TEXT_LIMIT, read_file, read_text

MARKS = (  # the four bytes of UTF-32 begin with the two of UTF-16
    (b"\xff\xfe\0\0", "utf-32"), (b"\0\0\xfe\xff", "utf-32"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"),
)  # fmt: skip
"""What a text that is not UTF-8 may begin with, and the encoding that it then has."""
_MEND = "Save it as UTF-8 (in a spreadsheet: as 'CSV UTF-8')"


def read_encoded(path: Path, what: str, limit: int = TEXT_LIMIT) -> tuple[str, str]:
    """Return a file's text and, unless it is UTF-8, what it was read as.

    A byte-order mark decides; without one, what is not UTF-8 is taken as Windows-1252, as old spreadsheets write it,
    if that gives a text of mostly plain letters.

    Raises:
        InputError: the file cannot be read, or is no text of these.
    """
    try:
        return read_text(path, what, limit), ""
    except InputError as problem:
        data = read_file(path, what, limit)
        if not data or _is_utf8(data) and b"\0" not in data:  # the file was refused for something else
            raise
        if data.startswith(b"PK\x03\x04"):
            raise InputError(f"{path}: found a spreadsheet or archive; expected {what}. {_MEND}") from None
        text, encoding = _decoded(data)
        if not encoding:
            raise InputError(f"{problem}. {_MEND}") from None
        return text, encoding


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def sniffed(part: bytes) -> tuple[str, str]:
    """Return how to decode a text of which a part is not UTF-8, and what should be said of it, if anything."""
    _, said = _decoded(part)
    return ("cp1252", said) if said.startswith("Windows") else ("utf-8-sig", "")


def _decoded(data: bytes) -> tuple[str, str]:
    """Return the text and its encoding; both empty if it has none of those known here."""
    encoding = next((name for mark, name in MARKS if data.startswith(mark)), "cp1252")
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError:
        return "", ""
    if any(sign < " " and sign not in "\t\n\r\f\v" for sign in text):
        return "", ""
    if encoding != "cp1252":
        return text, encoding.upper()
    letters = [sign for sign in text if sign.isalpha()]
    western = 3 * sum(not sign.isascii() for sign in letters) <= len(letters)
    return (text, "Windows-1252, for it is not UTF-8") if western else ("", "")


def whole_text(text: str, what: str) -> str:
    """Return the text if it is valid Unicode.

    Raises:
        InputError: it holds a byte that was not UTF-8, or half of a surrogate pair.
    """
    try:
        text.encode()
    except UnicodeEncodeError as problem:
        code = ord(text[problem.start])
        # Python hides bytes that it could not decode, say of an argument, in these surrogates.
        hidden = 0xDC80 <= code <= 0xDCFF
        found = f"byte 0x{code - 0xDC00:02x}, which is not UTF-8" if hidden else f"half of a surrogate pair, {code:#x}"
        raise InputError(f"{what}, character {problem.start + 1}: found {found}; expected valid Unicode") from None
    return text
