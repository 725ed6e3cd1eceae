"""What a recipe says of itself: at most five lines, whatever was found, and those of earlier versions too."""

import json
from pathlib import Path
from typing import Any

import pytest

from sleicl_chains.answering.recipes import Choice, Recipe, Verdict
from sleicl_chains.evaluation.words import recipe_verdict, tried_against, tried_cells
from tests.support.recipes import after_a_test

SHOWN = {
    "difference": 0.1, "low": 0.05, "high": 0.15, "p": 0.0004, "n": 80, "fixed": 9, "broken": 1,
    "accuracy": (0.9, 0.8), "smallest_shown": 0.12,
}  # fmt: skip


def said(verdict: dict[str, Any] | None = None, **changes: Any) -> list[str]:
    return recipe_verdict(after_a_test(verdict=verdict, **changes))


def test_what_helps_is_told_in_five_lines() -> None:
    """Wilson: 72 of 80 is .815 to .948."""
    choice = Choice(arm="simple+few-shot", mode="blend", ground="taken: x. Shown", accuracy=0.9, probe=0.95, n=80)
    recipe = after_a_test(
        verdict=SHOWN | {"finding": "helps"}, mode="blend", arm="simple+few-shot", choice=choice,
    )  # fmt: skip
    assert recipe_verdict(recipe, "go on") == [
        "Verdict on the grimoire: helps. simple+few-shot (desk-1) against few-shot, read by blend.",
        "Difference in accuracy: +0.100 [+0.050, +0.150] on 80 rows (0.900 against 0.800; 9 fixed, 1 broken), p < 0.001"
        " by a sign-flip test of the probabilities' quadratic score; below 0.01 something is shown.",
        "So many rows show a true difference of about 0.12 four times in five; smaller ones, such as +0.03, take more "
        "rows.",
        "The recipe: simple+few-shot, read by blend; taken: x. Shown. Right on 0.900 [0.815, 0.948] of 80 rows that "
        "its reader was not fitted on (but it was chosen by them, which flatters it); the probe, without any language "
        "model, on 0.950, which does as well or better.",
        "Next: go on",
    ]


def test_what_hurts_on_rows_that_may_be_its_own_says_both() -> None:
    verdict = SHOWN | {"finding": "hurts", "difference": -0.1, "low": -0.15, "high": -0.05, "rows_known": False}
    first, second, *_ = said(verdict | {"tested": "right", "level": 0.05})
    assert first == (
        "Verdict on the grimoire: hurts. simple+few-shot (desk-1) against few-shot, read by score. Which rows the "
        "grimoire was written from is not known: some may be among these."
    )
    assert second.startswith("Difference in accuracy: -0.100 [-0.150, -0.050] on 80 rows (")
    assert second.endswith("p < 0.001 by a sign-flip test of right and wrong; below 0.05 something is shown.")


def test_no_difference_shown_is_not_no_difference() -> None:
    lines = said(SHOWN | {"finding": "no difference shown", "p": 0.3, "low": -0.1})
    assert lines[0].startswith("Verdict on the grimoire: no difference shown. simple+few-shot")
    assert lines[1].endswith("below 0.01 something is shown.")
    assert lines[2].endswith('such as +0.03, take more rows. "No difference shown" is not "no difference".')
    assert "such as +0.03" in said(SHOWN | {"finding": "no difference shown", "smallest_shown": 0.04})[2]
    many = said(SHOWN | {"finding": "no difference shown", "n": 2000, "smallest_shown": 0.02})[2]
    assert "0.02 four times" in many and "+0.03" not in many and many.endswith('is not "no difference".')
    assert said()[2] == (
        "On so few rows no difference, however large, would be shown four times in five; take more rows. "
        '"No difference shown" is not "no difference".'
    )


@pytest.mark.parametrize(
    ("found", "words"),
    [
        ({"p": 0.3}, " The interval is all on one side, but the test does not agree; more rows would tell."),
        ({"p": 0.001}, " Probabilities and right answers point to different sides, so neither is taken for shown."),
        ({"p": 1.0, "difference": 0.0, "low": 0.0, "high": 0.0},
         " Both are right on the same rows, which is not to say that they always would be."),
    ],
)  # fmt: skip
def test_figures_that_look_otherwise_are_explained(found: dict[str, Any], words: str) -> None:
    line = said(SHOWN | {"finding": "no difference shown"} | found)[1]
    assert line.endswith(f"below 0.01 something is shown.{words}")
    assert words not in said(SHOWN | {"finding": "helps"} | found)[1]


def test_where_nothing_was_tested_it_says_why_and_no_more() -> None:
    """Wilson: 3 of 4 is .301 to .954."""
    choice = Choice(arm="few-shot", mode="generate", ground="by other tasks", accuracy=0.75, n=4)
    recipe = after_a_test(also_tried=[], tested=[], mode="generate", reader=None, prior="none", choice=choice)
    recipe = recipe.model_copy(update={"verdict": Verdict(finding="no difference shown", why="no grimoire was given")})
    assert recipe_verdict(recipe, "evaluate") == [
        "Verdict on the grimoire: none. Nothing was tested: no grimoire was given.",
        "The recipe: few-shot, read by generate; by other tasks. Right on 0.750 [0.301, 0.954] of 4 rows that it does "
        "not show.",
        "Next: evaluate",
    ]
    by_hand = recipe.model_copy(update={"verdict": Verdict(finding="no difference shown"), "choice": None})
    assert recipe_verdict(by_hand) == [
        "Verdict on the grimoire: none. Nothing was tested.", "The recipe: few-shot, read by generate."
    ]  # fmt: skip


def test_a_recipe_of_an_earlier_version_says_what_it_tested(tmp_path: Path) -> None:
    file = tmp_path / "recipe.json"
    after_a_test(also_tried=[], tested=[], choice=None).save(file)
    old = json.loads(file.read_text("utf-8"))
    old["verdict"] = {
        "finding": "no difference shown", "best_with": "simple (desk-1)+blend", "best_without": "few-shot+blend",
        "difference": 0.05, "low": -0.1, "high": 0.2, "p": 0.5, "n": 40, "why": "", "probe": 0.5, "chosen": 0.7,
    }  # fmt: skip
    old["trials"] = [{"name": "few-shot+blend"}]
    file.write_text(
        json.dumps({key: old[key] for key in old if key not in ("also_tried", "choice", "tested")}), "utf-8"
    )
    assert recipe_verdict(Recipe.load(file)) == [
        "Verdict on the grimoire: no difference shown. simple (desk-1)+blend against few-shot+blend.",
        "Difference in accuracy: +0.050 [-0.100, +0.200] on 40 rows, p = 0.500.",
        "The recipe: few-shot, read by score.",
    ]


def test_what_was_also_tried_has_a_p_for_all_together() -> None:
    recipe = after_a_test()
    together = "against few-shot; p holds for all of them together"
    assert tried_against(recipe) == f"{together} and shows something below 0.01"
    assert tried_against(after_a_test(verdict={"pair": None, "level": None})) == together
    assert tried_cells(recipe) == [
        ("zero-shot", "", "4", "+0.250", "0.800"), ("simple", "desk-1", "2", "-0.500", "< 0.001")
    ]  # fmt: skip
