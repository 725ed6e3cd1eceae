"""The failure table: what plain langchain-ollama makes of each failure, and what this does."""

import re

import pytest

from tests.support.ollama_failures import FAILURES, Failure, serving


@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: failure.name)
@pytest.mark.filterwarnings("ignore:Ollama .* was not tried")
def test_a_failure_is_seen_for_what_it_is(failure: Failure) -> None:
    with serving(failure) as server:
        found = failure.observe(True, server.url)
    assert re.match(failure.guarded, found), found
    assert "\n" not in found


@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: failure.name)
def test_the_same_with_plain_langchain_ollama(failure: Failure) -> None:
    """If one of these fails after an update, langchain-ollama has learned something and a guard may go."""
    with serving(failure) as server:
        found = failure.observe(False, server.url)
    assert re.match(failure.plain, found), found


def test_the_table_is_long_enough() -> None:
    assert len({failure.name for failure in FAILURES}) == len(FAILURES) >= 20
