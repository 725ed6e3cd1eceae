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
    return f"{difference:+.3f} [{low:+.3f}, {high:+.3f}], " + (f"p = {p:.3f}" if p >= 0.001 else "p < 0.001")


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


def recipe_verdict(recipe: "Recipe") -> list[str]:
    """Say in words what the gate found, bad news included."""
    found = recipe.verdict
    if found.difference is None or found.low is None or found.high is None or found.p is None:
        lines = [f"Verdict on the grimoire: {found.finding} ({found.why})."]
    else:
        span = _span(found.difference, found.low, found.high, found.p)
        lines = [
            f"Verdict on the grimoire: {found.finding}. {found.best_with} against {found.best_without} on "
            f"{found.n} rows set aside: {span}.{_undecided(found.finding, found.low, found.high, found.p)}"
        ]
    return [*lines, f"The recipe: {recipe.name}, read by {recipe.mode}.{_measured(found)}"]


def _undecided(finding: str, low: float, high: float, p: float) -> str:
    """Say why nothing is shown where the figures might look otherwise."""
    if finding != "no difference shown":
        return ""
    if low == high == 0:
        return " Both are right on the same rows, which is not to say that they always would be."
    if not low <= 0 <= high:
        against = "the exact test does" if p >= 0.05 else "the rows to choose on do"
        return f" The interval is all on one side, but {against} not agree; more rows would tell."
    return ""


def _measured(found: "Verdict") -> str:
    """Say how good what was chosen is on rows that it was not chosen on, the probe beside it."""
    if found.chosen is None:
        return ""
    low, high = wilson(round(found.chosen * found.n), found.n)
    line = f" On the {found.n} rows set aside it is right on {found.chosen:.3f} [{low:.3f}, {high:.3f}]"
    if found.probe is None:
        return f"{line}."
    as_well = ", which does as well or better" if found.probe >= found.chosen else ""
    return f"{line}, the probe, without any language model, on {found.probe:.3f}{as_well}."


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
