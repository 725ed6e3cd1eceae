"""The page of a run: one HTML file that needs nothing beside it and asks nothing of the network."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from sleicl_chains.answering.arms import asks_a_model
from sleicl_chains.evaluation.answered import AnsweredRow
from sleicl_chains.evaluation.report import plots
from sleicl_chains.evaluation.report.plots import Kind
from sleicl_chains.evaluation.report.runs import Run
from sleicl_chains.evaluation.report.sources import Texts
from sleicl_chains.evaluation.summary import ArmResult
from sleicl_chains.evaluation.words import TRIED, verdict
from sleicl_chains.statistics import calibration_bins, expected_calibration_error, risk_coverage

_LONGEST = 1000  # letters of a question or a reply


@dataclass(frozen=True)
class Change:
    """What the two compared arms made of a row."""

    question: str
    """Empty where it is not known."""
    row: str
    gold: str
    before: str
    after: str


@dataclass(frozen=True)
class Page:
    """What the template asks for. Without `texts` nothing in it is from a question, a reply or a grimoire."""

    run: Run
    texts: Texts | None = None

    @property
    def weak(self) -> str:
        """The weak model's name; on a page without texts no path of this machine."""
        name = self.run.report.weak
        kind, colon, path = name.partition(":")
        is_path = path.endswith(".gguf")
        return f"{kind}{colon}{path.replace(chr(92), '/').rsplit('/', 1)[-1]}" if is_path and not self.texts else name

    @property
    def verdict(self) -> list[str]:
        """What was found, in words."""
        return list(self.run.verdict) or verdict(self.run.report)

    @cached_property
    def kinds(self) -> dict[str, Kind]:
        """What each arm is."""
        return {arm.arm: self._kind(arm) for arm in self.run.report.arms}

    def _kind(self, arm: ArmResult) -> Kind:
        if not asks_a_model(arm.arm):
            return "baseline"
        return "grimoire" if arm.shows_grimoire else "plain"

    @cached_property
    def best(self) -> ArmResult:
        """The best arm in which the weak model answers; in a table without one the first arm."""
        return (self.run.weak_arms or self.run.report.arms)[0]

    @cached_property
    def sure(self) -> dict[str, tuple[list[float], list[bool]]]:
        """Probabilities, and whether the answers are right, by arm, of the best and the two compared."""
        names = dict.fromkeys([self.best.arm, *(self.run.pair or ())])
        return {arm: found for arm in names if (found := self.run.confidences(arm))}

    def trust(self, arm: str) -> tuple[float, float] | None:
        """Return an arm's calibration error and the area under its risk-coverage curve, also of runs that lack them."""
        found = self.run.confidences(arm)
        return (expected_calibration_error(*found), risk_coverage(*found)[1]) if found else None

    def tokens(self, arm: ArmResult) -> float | None:
        """Return prompt tokens a question; None where a model was asked and its tokens were not counted."""
        if asks_a_model(arm.arm) and not arm.prompt_tokens_total:
            return None
        return arm.prompt_tokens_total / self.run.report.n

    @property
    def readings(self) -> list[str]:
        """How the two compared arms are read: one way, or one each; none where none are compared."""
        arms = {arm.arm: arm for arm in self.run.report.arms}
        return list(dict.fromkeys(arms[arm].reading for arm in self.run.pair or ()))

    @property
    def form(self) -> str | None:
        """Which text the compared arm shows, where its name says so."""
        name = self.run.pair[0] if self.run.pair else ""
        return next((form for form in ("profound", "simple") if name.startswith(form)), None)

    @property
    def bars(self) -> str:
        """A bar an arm."""
        return plots.bars(self.run.report.arms, self.kinds)

    @property
    def reliability(self) -> str:
        """How far probabilities can be trusted."""
        return plots.reliability({arm: calibration_bins(*found) for arm, found in self.sure.items()}, self.kinds)

    @property
    def risk(self) -> str:
        """What leaving out the unsure answers gains."""
        return plots.risk({arm: risk_coverage(*found)[0] for arm, found in self.sure.items()}, self.kinds)

    @cached_property
    def counted(self) -> list[ArmResult]:
        """The arms whose prompt tokens are known."""
        return [arm for arm in self.run.report.arms if self.tokens(arm) is not None]

    @property
    def costs(self) -> str:
        """What accuracy costs."""
        return plots.costs(self.counted, self.run.report.n, self.kinds)

    @staticmethod
    def shade(count: int, counts: Sequence[int]) -> int:
        """Return how much colour a cell of the confusion matrix has, in percent: its share of the row."""
        return round(70 * count / max(1, sum(counts)))

    @cached_property
    def confusion(self) -> list[tuple[str, list[int]]]:
        """Each right label of the best arm, and how often each of `columns` was answered to it."""
        found = self.run.confusion(self.best.arm)
        return [(label, [given[answer] for answer in self.columns]) for label, given in found.items()]

    @cached_property
    def columns(self) -> list[str | None]:
        """The labels, and None where the best arm has rows without an answer."""
        lacking = any(given[None] for given in self.run.confusion(self.best.arm).values())
        return [*self.run.labels, *([None] if lacking else [])]

    @cached_property
    def fixed(self) -> list[Change]:
        """The rows that the arm with a grimoire has right and the one without has wrong."""
        return self._changes(ours=True, theirs=False)

    @cached_property
    def broken(self) -> list[Change]:
        """The rows that the arm with a grimoire has wrong and the one without has right."""
        return self._changes(ours=False, theirs=True)

    @cached_property
    def right_both(self) -> list[Change]:
        """The rows that both have right."""
        return self._changes(ours=True, theirs=True)

    @cached_property
    def wrong_both(self) -> list[Change]:
        """The rows that both have wrong."""
        return self._changes(ours=False, theirs=False)

    def _changes(self, *, ours: bool, theirs: bool) -> list[Change]:
        if self.run.pair is None:
            return []
        arm, baseline = self.run.pair
        rows = self.run.rows
        places = self.run.rows_right(arm, baseline, ours=ours, theirs=theirs)
        return [self._change(rows[baseline][at], rows[arm][at]) for at in places]

    def _change(self, before: AnsweredRow, after: AnsweredRow) -> Change:
        questions: Mapping[str, str] = self.texts.questions if self.texts else {}
        question = short(questions.get(before.row, ""))
        change = Change(question, before.row, before.gold, _said(before), _said(after))
        return change if self.texts else replace(change, row="", before="", after="", question="")

    @cached_property
    def by_label(self) -> list[tuple[str, int, int]]:
        """Each label with the number of its rows that were fixed and that were broken, where there are any."""
        fixed, broken = [[change.gold for change in changes] for changes in (self.fixed, self.broken)]
        counts = [(label, fixed.count(label), broken.count(label)) for label in self.run.labels]
        return [count for count in counts if any(count[1:])]


def _said(row: AnsweredRow) -> str:
    """Return what an arm answered, with its probability and where it was parsed what it was parsed from."""
    answer = short(row.prediction) if row.valid and row.prediction is not None else "no answer"
    sure = "" if row.probability is None else f" ({row.probability:.2f})"
    said = f", from the reply: {short(row.reply)}" if row.reply.strip() not in ("", row.prediction) else ""
    return f"{answer}{sure}{said}{', asked of the strong model' if row.deferred else ''}"


def short(text: str) -> str:
    """Return a text, of a long one the beginning."""
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}… ({len(text) - _LONGEST} more letters)"


def render(run: Run, texts: Texts | None = None) -> str:
    """Return the page of a run as HTML.

    Without `texts` it has no text of a question, a reply or a grimoire, and can be published. What texts there
    are is escaped, and the page forbids itself scripts and the network.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=PackageLoader("sleicl_chains.evaluation.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"rate": _rate, "signed": _signed, "drawn": Markup}
    return environment.get_template("report.html").render(page=Page(run, texts), report=run.report, tried=TRIED)


def _rate(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _signed(value: float) -> str:
    return f"{value:+.3f}"
