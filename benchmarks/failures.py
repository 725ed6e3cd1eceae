"""The failure table: what plain langchain-ollama makes of each failure of an Ollama server, and what this does.

    python -m benchmarks.failures

Each failure is provoked on a loopback server that replays answers of a real one; the same list is a test.
"""

import warnings

from tests.support.ollama_failures import FAILURES, serving


def main() -> None:
    """Print the table as Markdown."""
    warnings.simplefilter("ignore")
    print("| failure | plain langchain-ollama | sleicl-chains |\n| --- | --- | --- |")
    for failure in FAILURES:
        with serving(failure) as server:
            plain, guarded = (failure.observe(side, server.url).replace(server.url, "URL") for side in (False, True))
        print(f"| {failure.name} | {_cell(plain)} | {_cell(guarded)} |")


def _cell(text: str) -> str:
    short = text if len(text) <= 150 else f"{text[:147]}..."
    return f"`{short.replace('|', '/').replace('`', chr(39))}`"


if __name__ == "__main__":
    main()
