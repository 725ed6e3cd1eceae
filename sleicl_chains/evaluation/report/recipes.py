"""The test that a recipe was learned by, as a run: the same page shows it row by row."""

from dataclasses import replace
from pathlib import Path

from sleicl_chains.answering.arms import ArmName, names_grimoire
from sleicl_chains.answering.recipes import Recipe, TestedRow
from sleicl_chains.errors import InputError, RunError
from sleicl_chains.evaluation.answered import AnsweredRow
from sleicl_chains.evaluation.report.runs import Run
from sleicl_chains.evaluation.report.sources import Texts
from sleicl_chains.evaluation.summary import Comparison, Report, tabulate
from sleicl_chains.evaluation.words import recipe_verdict, tried_against, tried_cells
from sleicl_chains.tasks.rows import load_examples

HELD_OUT = "each row is answered by a reader that was fitted on others"


def run_of(recipe: Recipe, file: Path) -> Run:
    """Return the rows that a recipe was tested on, with the pair that `learn` named and its verdict.

    Args:
        recipe: as `learn` wrote it.
        file: where it is from, for complaints.

    Raises:
        RunError: it holds no rows of a test.
        InputError: its rows are not answered by the same prompts, or not by those of the pair.
    """
    if not recipe.tested:
        why = f" ({recipe.verdict.why})" if recipe.verdict.why else ""
        raise RunError(
            f"{file}: found no rows of a test in the recipe{why}; expected those that `sleicl learn` keeps of a test. "
            "Run `sleicl learn` again, with 40 labelled rows or more"
        )
    arms = list(recipe.tested[0].said)
    pair = recipe.verdict.pair
    if any(set(row.said) != set(arms) for row in recipe.tested) or not arms or not {*(pair or ())} <= {*arms}:
        raise InputError(
            f"{file}: tested: its rows are not all answered by the same prompts, the pair's among them. It was changed "
            "after learning: run `sleicl learn` again"
        )
    rows: dict[str, list[AnsweredRow]] = {arm: [_answered(recipe, arm, row) for row in recipe.tested] for arm in arms}
    notes = [*recipe.warnings, *([] if recipe.reader is None else [HELD_OUT])]
    table = tabulate(rows, recipe.task.labels, name=recipe.task.name)
    # No difference stands without the p that its test gives it: not the table's, against zero-shot.
    none = {"difference": None, "difference_low": None, "difference_high": None}
    arms_told = [replace(arm, **none) for arm in table["arms"]]
    report = Report(
        **(table | {"arms": arms_told, "grimoire": _compared(recipe)}),
        weak=recipe.weak, train_rows=recipe.rows, notes=notes,
    )  # fmt: skip
    tried = (tried_against(recipe), tried_cells(recipe)) if recipe.also_tried else None
    return Run(report, recipe.date, rows, recipe_verdict(recipe), tried)


def _answered(recipe: Recipe, arm: ArmName, row: TestedRow) -> AnsweredRow:
    label, chance = row.said[arm]
    return AnsweredRow(
        arm=arm, row=row.row, gold=row.gold, prediction=label, valid=label is not None, mode=recipe.mode,
        prior=recipe.prior, grimoire=recipe.verdict.grimoire or None if names_grimoire(arm) else None,
        probability=None if label is None else chance,
    )  # fmt: skip


def _compared(recipe: Recipe) -> Comparison | None:
    """Return the pair that `learn` named beforehand, not the best two of the table."""
    found = recipe.verdict
    if not found.pair or found.difference is None or found.low is None or found.high is None or found.p is None:
        return None
    return Comparison(*found.pair, found.difference, found.low, found.high, found.p)


def texts_of(recipe: Recipe, rows: Path | None) -> Texts:
    """Return the questions from the labelled rows, by their content, and the grimoire that the recipe shows.

    Raises:
        InputError: the file of the rows cannot be read.
    """
    shown = recipe.shown_grimoire()
    grimoires = {shown.id: shown} if shown and recipe.shown.form else {}
    if rows is None:
        how = "A recipe does not hold the texts of its test: --rows FILE, with the labelled rows, shows them."
        return Texts({}, grimoires, [how])
    found = {example.id: example.text for example in load_examples(rows, recipe.task)}
    wanted = [row.row for row in recipe.tested]
    if lost := sum(id not in found for id in wanted):
        which = f"{rows} lacks {lost} of the {len(wanted)} rows of the test"
        return Texts(
            {}, grimoires, [f"The questions could not be found: {which}; name the rows that were learned from."]
        )
    return Texts({id: found[id] for id in wanted}, grimoires)
