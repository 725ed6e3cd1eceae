"""From a figure of matplotlib to SVG that stands inside the page, in the page's colours and font."""

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = {
    "baseline": "#00fe01", "plain": "#00fe02", "grimoire": "#00fe03", "ink": "#00fe04", "faint": "#00fe05",
}  # fmt: skip
"""By the page's name for a colour, the stand-in that matplotlib draws it in."""
INK, FAINT = COLOURS["ink"], COLOURS["faint"]
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none", "text.parse_math": False, "font.size": 10, "font.family": "sans-serif",
    "axes.spines.top": False, "axes.spines.right": False, "axes.labelcolor": INK, "axes.edgecolor": FAINT,
    "text.color": INK, "xtick.color": INK, "ytick.color": INK, "xtick.major.size": 0, "ytick.major.size": 0,
    "grid.color": FAINT, "legend.frameon": False,
}  # fmt: skip
_WIDTH = 4.7  # inches: at the width of a phone its text is still read


@contextmanager
def drawing(name: str, height: float) -> Iterator[tuple["Axes", list[str]]]:
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
    for name, stand_in in COLOURS.items():
        svg = svg.replace(stand_in, f"var(--{name})")
    used = set(re.findall(r"#([\w-]+)", svg))
    return re.sub(r' id="([^"]+)"', lambda found: found[0] if found[1] in used else "", svg)
