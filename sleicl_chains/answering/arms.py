"""Arms: what the weak model is shown beside the question. Their names are parsed and printed here alone."""

from dataclasses import dataclass, replace
from typing import Literal, get_args

from sleicl_chains.answering.readings import GROUPS, Mode
from sleicl_chains.errors import OptionError

Form = Literal["", "simple", "profound"]
"""Which text of a grimoire is shown."""
Examples = Literal["", "few-shot", "knn"]
"""Which worked examples are shown: the same before every question, or the labelled rows nearest to each."""

ArmName = Literal["zero-shot", "few-shot", "knn", "simple", "profound", "simple+few-shot", "profound+few-shot"]
"""What the weak model is shown, as a person writes it."""

BASELINES = ("majority", "probe")
"""Arms without a language model."""
RECIPE = "recipe"
"""The arm that does as a recipe says."""
READINGS: tuple[Mode, ...] = tuple(mode for mode in GROUPS if mode != "score")
"""Modes that an arm's name may end in, such as `simple+hidden`."""


@dataclass(frozen=True)
class Arm:
    """What the weak model is shown; in a table also how its answers are read, where the arm's name says so."""

    form: Form = ""
    examples: Examples = ""
    reading: Mode | None = None

    @classmethod
    def of(cls, name: "str | Arm") -> "Arm":
        """Return the arm of a name such as `zero-shot`, `knn` or `simple+few-shot+hidden`.

        Raises:
            OptionError: there is no such arm.
        """
        if isinstance(name, Arm):
            return name
        shown, plus, last = name.rpartition("+")
        reading = next((mode for mode in READINGS if plus and mode == last), None)
        arm = _SHOWN.get(shown if reading else name)
        if arm is None:
            endings = " or ".join(f"+{mode}" for mode in READINGS)
            raise OptionError(
                f"There is no arm {name!r}; expected {', '.join(BASELINES)}, {RECIPE}, or a prompt "
                f"({', '.join(_SHOWN)}), which may end in {endings}"
            )
        return replace(arm, reading=reading)

    def __str__(self) -> str:
        """Return the name."""
        return "+".join(part for part in (self.name, self.reading) if part)

    @property
    def name(self) -> ArmName:
        """The name of what is shown, without the reading."""
        return _NAMES[self.form, self.examples]

    @property
    def shows_grimoire(self) -> bool:
        """Whether a text of a grimoire stands in the prompt."""
        return bool(self.form)

    @property
    def shows_examples(self) -> bool:
        """Whether worked examples stand in the prompt."""
        return bool(self.examples)


_SHOWN: dict[str, Arm] = {
    "zero-shot": Arm(),
    "few-shot": Arm(examples="few-shot"),
    "knn": Arm(examples="knn"),
    "simple": Arm("simple"),
    "profound": Arm("profound"),
    "simple+few-shot": Arm("simple", "few-shot"),
    "profound+few-shot": Arm("profound", "few-shot"),
}
_NAMES: dict[tuple[Form, Examples], ArmName] = {
    (_SHOWN[name].form, _SHOWN[name].examples): name for name in get_args(ArmName)
}


def asks_a_model(name: str) -> bool:
    """Say whether an arm of a table asks the weak model; the baselines do not."""
    return not name.startswith(BASELINES)


def names_grimoire(name: str) -> bool:
    """Say whether the name of a table's arm says that a grimoire is shown; a recipe's does not."""
    return name.startswith(tuple(form for form in get_args(Form) if form))
