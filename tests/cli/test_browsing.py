"""What `sleicl web` refuses before a page is served."""

import sys
from pathlib import Path

import pytest

from sleicl_chains.files import Home
from tests.support.command import sleicl


def test_a_page_for_others_wants_a_password() -> None:
    done = sleicl("web", "--weak", "embedded:smollm2", "--host", "0.0.0.0")
    assert (done.status, done.out) == (2, "")
    assert done.err == (
        "sleicl: --host 0.0.0.0 lets other machines in, so it takes $SLEICL_WEB_PASSWORD (or --password, which others "
        "see in the list of processes); without --host it is for this machine alone\n"
    )


def test_without_any_model_it_says_how_to_get_one() -> None:
    done = sleicl("web")
    assert done.status == 1 and "sleicl models fetch qwen2.5-coder-1.5b" in done.err and "--weak" in done.err


def test_without_gradio_it_names_the_extra(home_with_weights: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    done = sleicl("web", "--weak", "embedded:smollm2", "--port", "0")
    assert done.err == "sleicl: The page needs gradio: pip install 'sleicl-chains[web]'\n"
    assert (done.status, done.out) == (1, "")


def test_a_recipe_that_is_none_is_told_first(home_with_weights: Home, tmp_path: Path) -> None:
    done = sleicl("web", tmp_path / "no.json", "--weak", "embedded:smollm2", "--port", "0")
    assert done.status == 1 and "no.json: there is no such file" in done.err
