"""How often the right grimoire, or none, stands before each turn of a conversation.

    python benchmarks/talks/score.py FILE [--home HOME] [--embeddings wordllama] [--misses]

FILE has a conversation a line, {"turns": [{"text", "right", "either", "why"}]}: `right` are the tasks whose grimoire
fits the turn, none where it is empty; `either` where none would be right too. All figures are of the shipped library.
"""

import argparse
import tempfile
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from sleicl_chains.files import Home
from sleicl_chains.grimoires.store import GrimoireStore
from sleicl_chains.models.embedders import embedder
from sleicl_chains.serving.picking import Pick, Picker
from sleicl_chains.statistics import wilson


class Turn(BaseModel):
    """A user's message, and what is right for it."""

    model_config = ConfigDict(extra="forbid")

    text: str
    right: list[str]
    either: bool = False
    why: str = ""


class Talk(BaseModel):
    """A conversation; the replies do not matter."""

    model_config = ConfigDict(extra="forbid")

    turns: list[Turn]


@dataclass(frozen=True)
class Judged:
    """A turn and what was picked for it."""

    turn: Turn
    before: list[str]
    """What was right at the turn before."""
    picked: str

    @property
    def right(self) -> bool:
        """Whether the pick is right."""
        nothing = not self.turn.right or self.turn.either
        return self.picked in self.turn.right or (nothing and not self.picked)

    @property
    def kind(self) -> str:
        """What had to be done at this turn."""
        if not self.turn.right:
            return "none fits"
        return "goes on" if set(self.turn.right) & set(self.before) else "found"


def main() -> None:
    """Print the shares."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--home", type=Path, help="where the weights of minilm are")
    parser.add_argument("--embeddings", default="wordllama")
    parser.add_argument("--misses", action="store_true", help="print what went wrong")
    given = parser.parse_args()
    talks = read(given.file)
    space = embedder(given.embeddings, home=Home.at(given.home))
    with tempfile.TemporaryDirectory() as folder:  # a library without anything of the user's
        picker = Picker(GrimoireStore(Home(Path(folder)), space))
        judged = [one for talk in talks for one in judge(talk, picker)]
    print(f"{given.embeddings}, {len(talks)} conversations")
    for kind in ("found", "goes on", "none fits"):
        rate(kind, [one.right for one in judged if one.kind == kind])
    rate("all turns", [one.right for one in judged])
    for one in judged if given.misses else ():
        if not one.right:
            print(f"    {one.turn.text:.90} | {', '.join(one.turn.right) or 'none'} | {one.picked or 'none'}")


def read(file: Path) -> list[Talk]:
    """Return the conversations of a file."""
    return [Talk.model_validate_json(line) for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]


def judge(talk: Talk, picker: Picker) -> list[Judged]:
    """Return what is picked at each turn."""
    pick, before, judged = Pick(), list[str](), []
    for turn in talk.turns:
        pick = picker.pick(turn.text, pick)
        judged.append(Judged(turn, before, pick.grimoire.task if pick.grimoire else ""))
        before = turn.right
    return judged


def rate(what: str, right: list[bool]) -> None:
    """Print a share with its 95% interval."""
    low, high = wilson(sum(right), len(right))
    print(f"  {what:12} {sum(right):3} of {len(right):3}  {sum(right) / len(right):.2f} [{low:.2f}, {high:.2f}]")


if __name__ == "__main__":
    main()
