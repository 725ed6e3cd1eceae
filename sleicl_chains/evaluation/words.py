"""What the figures of a table or a recipe show, in sentences, bad news included."""

from typing import TYPE_CHECKING

from sleicl_chains.answering.arms import asks_a_model
from sleicl_chains.evaluation.summary import ArmResult, Comparison, Report
from sleicl_chains.statistics import wilson

if TYPE_CHECKING:
    from sleicl_chains.answering.recipes import Recipe, Verdict


def verdict(report: Report) -> list[str]:
    """Say in words what the table shows, bad news included."""
    arms = {arm.arm: arm for arm in report.arms}
    lines = []
    if failed := sum(arm.failed for arm in report.arms):
        lines.append(f"{failed} answers failed (prompt too long or reply rejected); they count as wrong.")
    if unseen := [f"{arm.arm} {arm.unseen:.0%}" for arm in report.arms if arm.unseen > 0]:
        lines.append(
            f"Labels out of sight, scored by a floor: {', '.join(unseen)}. Ollama shows 20 tokens; "
            "embedded:ollama/NAME scores them all."
        )
    if report.grimoire:
        lines.append(_grimoire_verdict(report, report.grimoire))
    models = [arm for arm in report.arms if asks_a_model(arm.arm)]
    best = max(models, key=lambda arm: arm.accuracy, default=None)
    probe = arms.get("probe")
    if best and probe and not probe.seen and probe.accuracy >= best.accuracy:
        lines.append("No arm beats the probe, a linear model on embeddings without any language model.")
    if best and report.majority is not None and report.majority >= best.accuracy:
        lines.append("No arm beats always answering with train's most frequent label.")
    return lines


def _span(difference: float, low: float, high: float, p: float) -> str:
    return f"{difference:+.3f} [{low:+.3f}, {high:+.3f}], {_p(p)}"


def _p(p: float) -> str:
    return f"p = {p:.3f}" if p >= 0.001 else "p < 0.001"


def _grimoire_verdict(report: Report, found: Comparison) -> str:
    """Say whether a grimoire helps or hurts: only where the interval and the exact test agree.

    Nothing is shown between arms that owe something to the evaluated rows, or that are read in different ways.
    """
    span = _span(found.difference, found.low, found.high, found.p)
    arms = {arm.arm: arm for arm in report.arms}
    shown, plain = arms[found.best_with], arms[found.best_without]
    if seen := [f"{arm.arm} was made from {arm.seen}" for arm in (shown, plain) if arm.seen]:
        made = f"of the {report.n} evaluated rows {' and '.join(seen)}"
        return f"No verdict on grimoires: {made}; {shown.arm} against {plain.arm}, not to be trusted: {span}."
    if shown.reading != plain.reading:
        read = " and ".join(f"{arm.arm} is read by {arm.reading or 'other means'}" for arm in (shown, plain))
        return f"No verdict on grimoires: {read}, so their difference is not the grimoire's alone: {span}."
    said = f"{_named(report, shown, plain)}: {span}."
    if found.low > 0 and found.p < 0.05:
        return f"A grimoire helps on these rows. {said} Both were picked on these very rows, which flatters the winner."
    if found.high < 0 and found.p < 0.05:
        return f"Grimoires hurt on these rows. {said}"
    return f"No grimoire is shown to help here. {said}"


def _named(report: Report, shown: ArmResult, plain: ArmResult) -> str:
    """Name the two arms that are compared, and better ones that cannot be compared with each other."""
    passed = [
        f"{arm.arm} ({f'made from {arm.seen} of the rows' if arm.seen else f'read by {arm.reading}'})"
        for arm in report.arms
        for picked in (shown, plain)
        if asks_a_model(arm.arm) and arm.shows_grimoire == picked.shows_grimoire and arm.accuracy > picked.accuracy
    ]
    if passed:
        return f"{shown.arm}, with a grimoire, against {plain.arm}, without, leaving aside {', '.join(passed)}"
    return f"{shown.arm}, the best arm with a grimoire, against {plain.arm}, the best without"


SMALL = 0.03
"""A gain in accuracy that is worth having, and is seldom shown on a hundred rows: about what a grimoire gained alone on
a 1.5B model (docs/situations.md)."""
_ON = {
    "score": "by a sign-flip test of the probabilities' quadratic score",
    "right": "by a sign-flip test of right and wrong",
}


def recipe_verdict(recipe: "Recipe", after: str = "") -> list[str]:
    """Say in words what `learn` found, bad news included: at most five lines.

    They are the verdict, the difference, what could have been shown, the choice, and what to do next. Where nothing
    was tested, or by an earlier version, there are fewer.

    Args:
        recipe: as `learn` or a person wrote it.
        after: what to do next, in words; none leaves the line out.
    """
    found = recipe.verdict
    lines = [_verdict_line(recipe), _difference_line(found), _shown_line(found), _choice_line(recipe)]
    return [line for line in [*lines, after and f"Next: {after}"] if line]


def _verdict_line(recipe: "Recipe") -> str:
    found = recipe.verdict
    if found.difference is None:
        why = f": {found.why.rstrip('.')}" if found.why else ""
        return f"Verdict on the grimoire: none. Nothing was tested{why}."
    said = f"Verdict on the grimoire: {found.finding}."
    if found.pair:
        named = f" ({found.grimoire})" if found.grimoire else ""
        # In an earlier version's recipe the pair says itself how it was read, and may have been read in two ways.
        read = f", read by {recipe.mode}" if found.tested else ""
        said += f" {found.pair[0]}{named} against {found.pair[1]}{read}."
    if not found.rows_known:
        said += " Which rows the grimoire was written from is not known: some may be among these."
    return said


def _difference_line(found: "Verdict") -> str:
    if found.difference is None or found.low is None or found.high is None or found.p is None:
        return ""
    span, p = _span(found.difference, found.low, found.high, found.p).rsplit(", ", 1)
    counts = ""
    if found.accuracy:
        ours, theirs = found.accuracy
        counts = f" ({ours:.3f} against {theirs:.3f}; {found.fixed} fixed, {found.broken} broken)"
    test = f" {_ON[found.tested]}" if found.tested else ""
    level = f"; below {found.level:.2f} something is shown" if found.level is not None else ""
    return f"Difference in accuracy: {span} on {found.n} rows{counts}, {p}{test}{level}.{_undecided(found)}"


def _undecided(found: "Verdict") -> str:
    """Say why nothing is shown where the figures might look otherwise."""
    if found.finding != "no difference shown" or found.low is None or found.high is None or found.p is None:
        return ""
    if found.low == found.high == 0:
        return " Both are right on the same rows, which is not to say that they always would be."
    if found.level is not None and found.p < found.level:
        return " Probabilities and right answers point to different sides, so neither is taken for shown."
    if not found.low <= 0 <= found.high:
        return " The interval is all on one side, but the test does not agree; more rows would tell."
    return ""


def _shown_line(found: "Verdict") -> str:
    """Say which difference so many rows could have shown, and that one not shown may be there."""
    if found.tested is None:
        return ""
    if found.smallest_shown is None:
        could = "On so few rows no difference, however large, would be shown four times in five; take more rows"
    else:
        about = f"about {found.smallest_shown:.2f}"
        could = f"So many rows show a true difference of {about} four times in five; smaller ones"
        could += f", such as +{SMALL}," if found.smallest_shown > SMALL else ""
        could += " take more rows"
    open_still = ' "No difference shown" is not "no difference".' if found.finding == "no difference shown" else ""
    return f"{could}.{open_still}"


def _choice_line(recipe: "Recipe") -> str:
    """Say what the recipe does, on what ground, and how good that is where its reader was not fitted."""
    said, choice = f"The recipe: {recipe.arm}, read by {recipe.mode}", recipe.choice
    if choice is None:
        return f"{said}."
    said += f"; {choice.ground.rstrip('.')}." if choice.ground else "."
    if choice.accuracy is None or not choice.n:
        return said
    low, high = wilson(round(choice.accuracy * choice.n), choice.n)
    unseen = "that it does not show" if recipe.reader is None else "that its reader was not fitted on"
    if any(len(row.said) > 1 for row in recipe.tested[:1]):
        unseen += " (but it was chosen by them, which flatters it)"
    said += f" Right on {choice.accuracy:.3f} [{low:.3f}, {high:.3f}] of {choice.n} rows {unseen}"
    if choice.probe is None:
        return f"{said}."
    as_well = ", which does as well or better" if choice.probe >= choice.accuracy else ""
    return f"{said}; the probe, without any language model, on {choice.probe:.3f}{as_well}."


def tried_against(recipe: "Recipe") -> str:
    """Return what the differences of what was also tried are against, and what their p are."""
    found = recipe.verdict
    # The first prompt that was asked is the pair's without a grimoire, whether there was a grimoire or not.
    baseline = found.pair[1] if found.pair else next((arm for row in recipe.tested for arm in row.said), "the first")
    shows = f" and shows something below {found.level:.2f}" if found.level is not None else ""
    return f"against {baseline}; p holds for all of them together{shows}"


TRIED = ("arm", "grimoire", "rows", "difference in accuracy", "p")
"""The columns of that table."""


def tried_cells(recipe: "Recipe") -> list[tuple[str, ...]]:
    """Return its rows."""
    return [
        (one.arm, one.grimoire, str(one.n), f"{one.difference:+.3f}", _p(one.p).removeprefix("p = ").removeprefix("p "))
        for one in recipe.also_tried
    ]


MANY_ROWS = 100
"""Labelled rows from which on a fitted reading is worth it, see benchmarks/LOG.md."""


def situation(rows: int, *, gives_state: bool) -> str:
    """Return what suits so many labelled rows, on a model that follows guides; docs/situations.md says why.

    Args:
        rows: labelled ones.
        gives_state: whether the model's state can be read, as embedded models allow.
    """
    if not rows:
        return "what suits no labelled rows: the grimoire alone, and a prior taken from texts without answers (--texts)"
    fitted = ", and a reading fitted on all of them (--mode blend)" if rows >= MANY_ROWS and gives_state else ""
    return (
        f"what suits {rows} labelled rows: some of them as examples{fitted}; the grimoire beside them where labels are "
        "conventions"
    )
