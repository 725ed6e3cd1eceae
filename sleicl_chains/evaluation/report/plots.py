"""The plots of a run's page, as SVG to stand inside HTML; matplotlib draws them, without a window or a global figure.

Colours are names of the page's style sheet, so that a plot follows the reader's light or dark scheme. Text stays
text. All plots have the width of a phone.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from sleicl_chains.evaluation.report.svg import COLOURS, FAINT, INK, drawing
from sleicl_chains.evaluation.summary import ArmResult
from sleicl_chains.statistics import Bin, wilson

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Kind = Literal["baseline", "plain", "grimoire"]
"""Whether an arm asks no model, asks it without a grimoire, or with one; the page gives each a colour."""

_LINES = ("-", "--", ":", "-.")
_LONGEST = 30  # letters of an arm's name beside its bar


def bars(arms: Sequence[ArmResult], kinds: Mapping[str, Kind]) -> str:
    """Return a bar an arm, in the table's order, with its interval."""
    with drawing("bars", 0.55 + 0.27 * len(arms)) as (axes, finished):
        places = range(len(arms))
        colours = [COLOURS[kinds[arm.arm]] for arm in arms]
        reach = [
            [max(0.0, arm.accuracy - arm.low) for arm in arms],
            [max(0.0, arm.high - arm.accuracy) for arm in arms],
        ]
        axes.barh(places, [arm.accuracy for arm in arms], 0.62, color=colours)
        axes.errorbar([arm.accuracy for arm in arms], places, xerr=reach, fmt="none", ecolor=INK, elinewidth=1.1)
        axes.set_yticks(places, [_short(arm.arm) for arm in arms])
        axes.set(xlim=(0, 1), ylim=(len(arms) - 0.4, -0.6), xlabel="accuracy")
        axes.grid(axis="x", alpha=0.5)
        axes.set_axisbelow(True)
    return finished[0]


def reliability(curves: Mapping[str, Sequence[Bin]], kinds: Mapping[str, Kind]) -> str:
    """Return the accuracy of each bin of answers over their mean probability, with its interval."""
    with drawing("reliability", 3.6) as (axes, finished):
        axes.plot([0, 1], [0, 1], color=FAINT, linewidth=1)
        for (arm, bins), line in zip(curves.items(), _LINES, strict=False):
            x, y = [part.probability for part in bins], [part.accuracy for part in bins]
            ends = [wilson(round(part.accuracy * part.rows), part.rows) for part in bins]
            below = [max(0.0, part.accuracy - low) for part, (low, _) in zip(bins, ends, strict=True)]
            above = [max(0.0, high - part.accuracy) for part, (_, high) in zip(bins, ends, strict=True)]
            axes.errorbar(
                x, y, yerr=[below, above], color=COLOURS[kinds[arm]], linestyle=line, marker="o", markersize=3.5,
                linewidth=1.6, elinewidth=0.7, label=_label(arm),
            )  # fmt: skip
        axes.set(xlim=(0, 1.02), ylim=(0, 1.02), xlabel="probability given", ylabel="share right")
        _legend(axes)
    return finished[0]


def risk(curves: Mapping[str, Sequence[tuple[float, float]]], kinds: Mapping[str, Kind]) -> str:
    """Return the share of wrong answers over the share of questions answered, the surest first."""
    with drawing("risk", 3.6) as (axes, finished):
        for (arm, points), line in zip(curves.items(), _LINES, strict=False):
            x, y = zip(*points, strict=True)
            axes.plot(x, y, color=COLOURS[kinds[arm]], linestyle=line, linewidth=1.6, label=_label(arm))
        axes.set(xlim=(0, 1.02), xlabel="share of the answers kept, the surest first", ylabel="share wrong")
        axes.set_ylim(0, max(0.1, axes.get_ylim()[1]))
        axes.grid(axis="y", alpha=0.5)
        _legend(axes)
    return finished[0]


def costs(arms: Sequence[ArmResult], rows: int, kinds: Mapping[str, Kind]) -> str:
    """Return each arm's accuracy over its prompt tokens a question; named are those that no cheaper arm equals."""
    with drawing("costs", 3.6) as (axes, finished):
        spent = {arm.arm: arm.prompt_tokens_total / rows for arm in arms}
        for arm in arms:
            axes.plot(spent[arm.arm], arm.accuracy, "o", color=COLOURS[kinds[arm.arm]], markersize=6)
        most = max(1.0, *spent.values())
        axes.set(xlim=(-0.04 * most, 1.06 * most), xlabel="prompt tokens a question", ylabel="accuracy")
        lowest, highest = min(arm.accuracy for arm in arms), max(arm.accuracy for arm in arms)
        room = max(0.05, highest - lowest)
        axes.set_ylim(max(-0.02, lowest - 0.1 * room), highest + 0.2 * room)
        axes.grid(alpha=0.5)
        axes.set_axisbelow(True)
        for arm in front(arms):
            right = spent[arm.arm] > most / 2
            axes.annotate(
                _short(arm.arm), (spent[arm.arm], arm.accuracy), (4 if right else -4, 6), textcoords="offset points",
                ha="right" if right else "left",
            )  # fmt: skip
    return finished[0]


def front(arms: Sequence[ArmResult]) -> list[ArmResult]:
    """Return the arms that are better than every arm of fewer prompt tokens, the cheapest first."""
    found: list[ArmResult] = []
    for arm in sorted(arms, key=lambda one: (one.prompt_tokens_total, -one.accuracy)):
        if not found or arm.accuracy > found[-1].accuracy:
            found.append(arm)
    return found


def _short(arm: str) -> str:
    return arm if len(arm) <= _LONGEST else f"{arm[: _LONGEST - 1]}…"


def _label(arm: str) -> str:
    return _short(arm).lstrip("_") or "arm"  # matplotlib leaves out what begins with _


def _legend(axes: "Axes") -> None:
    axes.legend(loc="best", handlelength=2.6)
