"""What the command line says while answers come, where no terminal draws a bar."""

from collections.abc import Iterator

import pytest

from sleicl_chains.cli.console import Meter


def test_the_estimate_counts_what_the_later_lines_count(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Six arms of 60 rows; the two baselines come first, and the model gives an answer every two seconds."""
    seconds: Iterator[int] = iter(range(0, 10_000, 2))
    monkeypatch.setattr("sleicl_chains.cli.console.time.monotonic", lambda: float(next(seconds)))
    with Meter(["majority", "probe", "zero-shot", "few-shot", "simple", "profound"]) as meter:
        for done in range(1, 121):
            meter("majority" if done <= 60 else "probe", done, 360)
        for done in range(121, 131):
            meter("zero-shot", done, 360)
    assert capsys.readouterr().err.splitlines() == [
        "zero-shot: 125 of 360 answers, about 13 min left by the pace of the first ones",
        "zero-shot: 128 of 360 answers, 0.5/s, about 13 min left",
    ]
