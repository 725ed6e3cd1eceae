"""The choice: what is expected of a prompt, by hand, and which is taken on that ground."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from sleicl_chains.answering.recipes import Finding, Verdict
from sleicl_chains.files import Home
from sleicl_chains.learning import choice
from sleicl_chains.learning.choice import LEAST_GAIN, SPREAD, Candidate, Known, choose, known_gain
from sleicl_chains.models.reading import Reading, keep_reading
from tests.support.fake_models import Scorer

PAIR, BASE = "profound+few-shot", "few-shot"
UNKNOWN = Known()


def candidate(arm: str, steps: Sequence[float] = (), known: Known = UNKNOWN) -> Candidate:
    return Candidate(arm, arm.startswith(("profound", "simple")), steps, known)


def steps(fixed: int, broken: int, n: int) -> list[float]:
    return [1.0] * fixed + [-1.0] * broken + [0.0] * (n - fixed - broken)


def verdict(finding: Finding) -> Verdict:
    return Verdict(finding=finding, pair=(PAIR, BASE))


NOTHING = verdict("no difference shown")


def test_the_expected_gain_by_hand() -> None:
    """100 rows, 12 fixed and 4 broken: d = .08, variance .16 - .0064 = .1536, 1/s^2 = 100 / .1536 = 651.04.

    Other tasks: m = .02, t = .04, 1/t^2 = 625. (12.5 + 52.083) / 1276.04 = .050612
    """
    one = candidate(PAIR, steps(12, 4, 100), Known(0.02, 0.04, 7, "m"))
    assert one.difference == pytest.approx(0.08) and one.expected == pytest.approx(0.050612, abs=1e-6)


def test_where_there_are_scores_they_are_weighed() -> None:
    """100 rows, .06 by their scores, 50 of .2 and 50 of -.08: variance .0196, 1/s^2 = 100 / .0196 = 5102.

    Nothing is known: t = .05, 1/t^2 = 400. .06 * 5102 / 5502 = .0556; the accuracy is told beside it.
    """
    one = Candidate(PAIR, True, steps(4, 3, 100), UNKNOWN, None, [0.2, -0.08] * 50)
    assert one.difference == pytest.approx(0.01) and one.expected == pytest.approx(0.055638, abs=1e-6)
    assert one.ground.startswith(f"{PAIR} +0.010 on 100 rows (+0.060 told from probabilities, which is weighed); ")


@pytest.mark.parametrize("arm", [PAIR, "zero-shot"])
def test_a_prompt_that_is_right_less_often_is_not_taken_for_its_probabilities(arm: str) -> None:
    one = Candidate(arm, arm == PAIR, steps(1, 6, 90), UNKNOWN, None, [0.07] * 90)
    assert one.expected > 0.05 and choose(BASE, [one], NOTHING, "blend").arm == BASE
    better = Candidate(arm, arm == PAIR, steps(6, 1, 90), UNKNOWN, None, [0.07] * 90)
    assert choose(BASE, [better], NOTHING, "blend").arm == arm


def test_rows_that_never_differ_do_not_show_that_none_would() -> None:
    """50 rows, none different: variance 1/50, 1/s^2 = 2500; m = .05, t = .02: 125 / 5000 = .025."""
    assert candidate(PAIR, steps(0, 0, 50), Known(0.05, 0.02)).expected == pytest.approx(0.025)
    assert candidate(PAIR, steps(50, 0, 50), Known(0.0, 0.02)).expected == pytest.approx(0.5)


def test_without_rows_it_is_what_is_known() -> None:
    assert candidate(PAIR, (), Known(0.03, 0.02, 7)).expected == 0.03
    assert candidate(PAIR).expected == 0.0 and candidate(PAIR).difference == 0.0


def test_it_lies_between_what_was_measured_and_what_is_known() -> None:
    for known in (Known(-0.05, 0.01), Known(0.2, 0.1), Known(0.0, 0.03)):
        one = candidate(PAIR, steps(9, 3, 60), known)
        low, high = sorted((one.difference, known.mean))
        assert low < one.expected < high


def test_more_rows_or_more_spread_between_tasks_count_for_more() -> None:
    known = Known(0.0, 0.03)
    few, many = (candidate(PAIR, steps(n // 8, 0, n), known).expected for n in (40, 400))
    assert 0 < few < many < 1 / 8
    assert candidate(PAIR, steps(5, 0, 40), Known(0.0, 0.1)).expected > few


def test_a_grimoire_of_an_expected_gain_is_taken_and_the_ground_told() -> None:
    one = candidate(PAIR, steps(12, 4, 100), Known(0.02, 0.04, 7, "qwen"))
    found = choose(BASE, [candidate("zero-shot", steps(2, 10, 100)), one], NOTHING, "blend")
    assert (found.arm, found.mode, found.expected) == (PAIR, "blend", one.expected)
    assert found.ground == (
        "taken: profound+few-shot +0.080 on 100 rows; on 7 other tasks qwen gained +0.020 by it; expected +0.051. Not "
        "shown on these rows alone"
    )
    assert choose(BASE, [one], verdict("helps"), "blend").ground.endswith(". Shown on these rows")


def test_what_was_shown_of_the_pair_is_not_said_of_another_prompt() -> None:
    found = choose(BASE, [candidate("profound", steps(20, 0, 100)), candidate(PAIR, steps(9, 1, 100))],
                   verdict("helps"), "blend")  # fmt: skip
    assert found.arm == "profound" and found.ground.endswith(". Not shown on these rows alone")


@pytest.mark.parametrize(("gain", "taken"), [(LEAST_GAIN * 0.99, BASE), (LEAST_GAIN * 1.01, PAIR), (-0.1, BASE)])
def test_below_the_least_gain_no_grimoire_is_taken(gain: float, taken: str) -> None:
    for finding in ("no difference shown", "helps"):
        found = choose(BASE, [candidate(PAIR, (), Known(gain, 0.02, 7, "qwen"))], verdict(finding), "score")
        assert found.arm == taken and found.expected == (gain if taken == PAIR else 0.0)


def test_one_that_hurts_is_never_taken() -> None:
    sure = Known(0.3, 0.01, 7, "qwen")
    found = choose(BASE, [candidate("profound", (), sure), candidate(PAIR, (), sure)], verdict("hurts"), "score")
    assert (found.arm, found.expected, found.ground) == (BASE, 0.0, "no grimoire, since it hurts")
    other = choose(BASE, [candidate("zero-shot", (), sure), candidate(PAIR, (), sure)], verdict("hurts"), "score")
    assert other.arm == "zero-shot" and other.ground.endswith("; no grimoire, since it hurts")


def test_zero_shot_is_taken_where_more_is_expected_of_it() -> None:
    better, worse = candidate("zero-shot", steps(12, 2, 80)), candidate("zero-shot", steps(2, 12, 80))
    found = choose(BASE, [better], NOTHING, "score")
    assert (found.arm, found.expected) == ("zero-shot", better.expected)
    assert found.ground.startswith("zero-shot +0.125 on 80 rows; of other tasks nothing is known")
    assert choose(BASE, [worse], NOTHING, "score").model_dump() == {
        "arm": BASE, "mode": "score", "expected": 0.0, "ground": "no grimoire to weigh", "accuracy": None,
        "probe": None, "n": 0,
    }  # fmt: skip


def test_a_grimoire_must_gain_on_the_best_prompt_without() -> None:
    plain = candidate("zero-shot", (), Known(0.05, 0.02, 7, "qwen"))
    near, far = (candidate(PAIR, (), Known(0.05 + gain, 0.02, 7, "qwen")) for gain in (0.005, 0.015))
    found = choose(BASE, [plain, near], NOTHING, "score")
    assert found.arm == "zero-shot" and "; no grimoire: profound+few-shot; " in found.ground
    assert choose(BASE, [plain, far], NOTHING, "score").arm == PAIR


def test_of_equal_ones_the_cheaper_is_taken() -> None:
    same = Known(0.05, 0.02, 7, "qwen")
    found = choose(BASE, [candidate("profound", (), same), candidate(PAIR, (), same)], NOTHING, "score")
    assert found.arm == "profound"


def test_nothing_to_choose_from() -> None:
    assert choose("zero-shot", [], NOTHING, "generate").arm == "zero-shot"


class Known7(Scorer):
    """A model whose weights have a digest."""

    weights_digest: str = "abc"


def gains(tasks: dict[str, tuple[float, float]], **more: Any) -> list[dict[str, Any]]:
    found = {name: {"difference": difference, "error": error} for name, (difference, error) in tasks.items()}
    about = {"weights": "abc", "model": "qwen", "mode": "score", "arm": PAIR, "against": BASE}
    return [{**about, "tasks": found, **more}]


TASKS = {"trec": (-0.03, 0.01), "subj": (0.13, 0.01), "doors": (0.5, 0.01)}


def known(monkeypatch: pytest.MonkeyPatch, found: list[dict[str, Any]], task: str = "new", **more: Any) -> Known:
    monkeypatch.setattr(choice, "_gains", lambda: found)
    asked = {"weak": Known7(), "mode": "score", "arm": PAIR, "against": BASE, "task": task, **more}
    return known_gain(**asked)


def test_mean_and_spread_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """-.03 and .13: mean .05, variance .0128, of which chance makes .0001; the mean of two is unsure by half of it."""
    found = known(monkeypatch, gains(TASKS), "doors")
    assert found.mean == pytest.approx(0.05) and (found.tasks, found.model) == (2, "qwen")
    assert found.spread == pytest.approx((0.0127 + 0.0128 / 2) ** 0.5)
    everywhere = known(monkeypatch, gains(TASKS))
    assert everywhere.tasks == 3 and everywhere.mean == pytest.approx(0.2)


def test_what_chance_explains_is_no_spread(monkeypatch: pytest.MonkeyPatch) -> None:
    """.02 and .08, each measured to +-.2: tasks spread by the least that is taken, .05, and the mean is unsure."""
    found = known(monkeypatch, gains({"a": (0.02, 0.2), "b": (0.08, 0.2)}))
    assert found.spread == pytest.approx((0.0025 + 0.0425 / 2) ** 0.5)


@pytest.mark.parametrize("name", ["doors", "DOORS ", " Doors"])
def test_a_task_is_left_out_of_what_is_known_for_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert known(monkeypatch, gains(TASKS), name).tasks == 2


@pytest.mark.parametrize(
    "other",
    [{"weak": Scorer()}, {"weak": Known7(weights_digest="abd")}, {"mode": "blend"}, {"arm": "profound"},
     {"against": "zero-shot"}],
    ids=["no digest", "other weights", "other reading", "other prompt", "other baseline"],
)  # fmt: skip
def test_nothing_is_known_of_another_model_reading_or_pair(other: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert known(monkeypatch, gains(TASKS)) != Known()
    assert known(monkeypatch, gains(TASKS), **other) == Known(0.0, SPREAD, 0, "")


def test_one_task_tells_nothing_of_the_spread_between_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    assert known(monkeypatch, gains({"trec": (0.02, 0.01)})) == Known()
    assert known(monkeypatch, gains({"trec": (0.02, 0.01), "doors": (0.5, 0.01)}), "doors") == Known()
    assert known(monkeypatch, []) == Known()


@pytest.mark.parametrize(("low", "expected"), [(0.26, 0), (0.9, 3)], ids=["does not read", "reads"])
def test_nothing_is_known_of_a_model_that_does_not_read(
    low: float, expected: int, monkeypatch: pytest.MonkeyPatch, home: Home
) -> None:
    keep_reading(Known7(), Reading(0.95, low, 0.99, 0.25, 40, 0.3, 0.5, 0.4, 0.6, "score", "1"), home)
    assert known(monkeypatch, gains(TASKS)).tasks == expected


def test_the_packaged_gains_can_be_read() -> None:
    """By the keys that the choice looks at; a task is named once."""
    for found in choice._gains():
        assert set(found) >= {"weights", "model", "mode", "arm", "against", "tasks"} and len(found["tasks"]) > 1
        for one in found["tasks"].values():
            assert -1 <= one["difference"] <= 1 and 0 <= one["error"] < 1


def test_they_are_part_of_the_package() -> None:
    assert (Path(choice.__file__).parent / "gains.json").is_file()
