"""The plots of a run's page, as SVG to stand inside HTML; matplotlib draws them, without a window or a global figure.

Colours are names of the page's style sheet, so that a plot follows the reader's light or dark scheme. Text stays
text. All plots have the width of a phone.
"""

import io
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

from sleicl_chains.evaluation.summary import ArmResult
from sleicl_chains.statistics import Bin, wilson

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Kind = Literal["baseline", "plain", "grimoire"]
"""Whether an arm asks no model, asks it without a grimoire, or with one; the page gives each a colour."""

# What matplotlib is told, and what the page calls it.
_COLOURS = {
    "baseline": "#00fe01", "plain": "#00fe02", "grimoire": "#00fe03", "ink": "#00fe04", "faint": "#00fe05",
}  # fmt: skip
_INK, _FAINT = _COLOURS["ink"], _COLOURS["faint"]
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none", "text.parse_math": False, "font.size": 10, "font.family": "sans-serif",
    "axes.spines.top": False, "axes.spines.right": False, "axes.labelcolor": _INK, "axes.edgecolor": _FAINT,
    "text.color": _INK, "xtick.color": _INK, "ytick.color": _INK, "xtick.major.size": 0, "ytick.major.size": 0,
    "grid.color": _FAINT, "legend.frameon": False,
}  # fmt: skip
_WIDTH = 4.7  # inches: at the width of a phone its text is still read
_LINES = ("-", "--", ":", "-.")
_LONGEST = 30  # letters of an arm's name beside its bar


def bars(arms: Sequence[ArmResult], kinds: Mapping[str, Kind]) -> str:
    """Return a bar an arm, in the table's order, with its interval."""
    with _drawing("bars", 0.55 + 0.27 * len(arms)) as (axes, finished):
        places = range(len(arms))
        colours = [_COLOURS[kinds[arm.arm]] for arm in arms]
        reach = [
            [max(0.0, arm.accuracy - arm.low) for arm in arms],
            [max(0.0, arm.high - arm.accuracy) for arm in arms],
        ]
        axes.barh(places, [arm.accuracy for arm in arms], 0.62, color=colours)
        axes.errorbar([arm.accuracy for arm in arms], places, xerr=reach, fmt="none", ecolor=_INK, elinewidth=1.1)
        axes.set_yticks(places, [_short(arm.arm) for arm in arms])
        axes.set(xlim=(0, 1), ylim=(len(arms) - 0.4, -0.6), xlabel="accuracy")
        axes.grid(axis="x", alpha=0.5)
        axes.set_axisbelow(True)
    return finished[0]


def reliability(curves: Mapping[str, Sequence[Bin]], kinds: Mapping[str, Kind]) -> str:
    """Return the accuracy of each bin of answers over their mean probability, with its interval."""
    with _drawing("reliability", 3.6) as (axes, finished):
        axes.plot([0, 1], [0, 1], color=_FAINT, linewidth=1)
        for (arm, bins), line in zip(curves.items(), _LINES, strict=False):
            x, y = [part.probability for part in bins], [part.accuracy for part in bins]
            ends = [wilson(round(part.accuracy * part.rows), part.rows) for part in bins]
            below = [max(0.0, part.accuracy - low) for part, (low, _) in zip(bins, ends, strict=True)]
            above = [max(0.0, high - part.accuracy) for part, (_, high) in zip(bins, ends, strict=True)]
            axes.errorbar(
                x, y, yerr=[below, above], color=_COLOURS[kinds[arm]], linestyle=line, marker="o", markersize=3.5,
                linewidth=1.6, elinewidth=0.7, label=_label(arm),
            )  # fmt: skip
        axes.set(xlim=(0, 1.02), ylim=(0, 1.02), xlabel="probability given", ylabel="share right")
        _legend(axes)
    return finished[0]


def risk(curves: Mapping[str, Sequence[tuple[float, float]]], kinds: Mapping[str, Kind]) -> str:
    """Return the share of wrong answers over the share of questions answered, the surest first."""
    with _drawing("risk", 3.6) as (axes, finished):
        for (arm, points), line in zip(curves.items(), _LINES, strict=False):
            x, y = zip(*points, strict=True)
            axes.plot(x, y, color=_COLOURS[kinds[arm]], linestyle=line, linewidth=1.6, label=_label(arm))
        axes.set(xlim=(0, 1.02), xlabel="share of the answers kept, the surest first", ylabel="share wrong")
        axes.set_ylim(0, max(0.1, axes.get_ylim()[1]))
        axes.grid(axis="y", alpha=0.5)
        _legend(axes)
    return finished[0]


def costs(arms: Sequence[ArmResult], rows: int, kinds: Mapping[str, Kind]) -> str:
    """Return each arm's accuracy over its prompt tokens a question; named are those that no cheaper arm equals."""
    with _drawing("costs", 3.6) as (axes, finished):
        spent = {arm.arm: arm.prompt_tokens_total / rows for arm in arms}
        for arm in arms:
            axes.plot(spent[arm.arm], arm.accuracy, "o", color=_COLOURS[kinds[arm.arm]], markersize=6)
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


# ------------------------------------------------------------------ from a figure to SVG


@contextmanager
def _drawing(name: str, height: float) -> Iterator[tuple["Axes", list[str]]]:
    """Give axes to draw on and a list that holds the SVG once they are drawn on; no other plot has this name."""
    import matplotlib
    from matplotlib.figure import Figure

    finished: list[str] = []
    # The page's font has letters that the one that matplotlib measures with may lack.
    with (
        matplotlib.rc_context(_STYLE | {"svg.hashsalt": name}),
        warnings.catch_warnings(action="ignore", category=UserWarning),
    ):
        figure = Figure(figsize=(_WIDTH, height), layout="constrained")
        yield figure.subplots(), finished
        buffer = io.StringIO()
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    finished.append(_inline(buffer.getvalue()))


def _inline(svg: str) -> str:
    """Return an SVG file's element alone, in the page's colours and font, with no id that nothing refers to."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<svg[^>]*?( viewBox=\"[^\"]*\")[^>]*>", r"<svg\1>", svg, count=1)
    svg = re.sub(r"<style.*?</style>", "", svg, count=1, flags=re.DOTALL)  # it would hold for the whole page
    svg = re.sub(r"(<text style=\"[^\"]*?) font-family: [^;\"]*;?", r"\1", svg)
    for name, stand_in in _COLOURS.items():
        svg = svg.replace(stand_in, f"var(--{name})")
    used = set(re.findall(r"#([\w-]+)", svg))
    return re.sub(r' id="([^"]+)"', lambda found: found[0] if found[1] in used else "", svg)


def _short(arm: str) -> str:
    return arm if len(arm) <= _LONGEST else f"{arm[: _LONGEST - 1]}…"


def _label(arm: str) -> str:
    return _short(arm).lstrip("_") or "arm"  # matplotlib leaves out what begins with _


def _legend(axes: "Axes") -> None:
    axes.legend(loc="best", handlelength=2.6)
