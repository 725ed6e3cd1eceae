"""How well `match` finds the grimoire of a described task, and says that none fits.

    python benchmarks/match/score.py FILE [--home HOME] [--thresholds] [--misses]

FILE has a description a line, {"text", "fits", "else"}: the names of the tasks that would be right, and of those that
would still be right if these were not there. Everything is printed twice: with the shipped library, and for each
description without the grimoires that are right. `--thresholds` prints what other thresholds would give; they are set
on try.jsonl alone, and held_back.jsonl is read once.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from langchain_core.embeddings import Embeddings
from pydantic import BaseModel, ConfigDict, Field

from sleicl_chains.files import Home, data_folder
from sleicl_chains.grimoires.index import FIELDS, Indexed, texts_of
from sleicl_chains.grimoires.match import SCALES, Match, Wish, matches
from sleicl_chains.grimoires.shelf import Library, markdown, read_grimoire
from sleicl_chains.models.embedders import embed, embedder
from sleicl_chains.statistics import wilson


class Described(BaseModel):
    """A task in a person's words, and what is right for it."""

    model_config = ConfigDict(extra="forbid")

    text: str
    fits: list[str]
    otherwise: list[str] = Field(alias="else")
    why: str = ""


@dataclass(frozen=True)
class Found:
    """What `match` gives without a threshold, best first, and what is right."""

    text: str
    right: Sequence[str]
    hits: Sequence[Match]

    def above(self, threshold: float) -> list[str]:
        """Return the tasks of the grimoires that fit, best first, three at most."""
        return [hit.grimoire.task for hit in self.hits if hit.score >= threshold][:3]


def main() -> None:
    """Print the figures for both embedders."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--home", type=Path, help="where the weights of minilm are")
    parser.add_argument("--thresholds", action="store_true", help="print what other thresholds would give")
    parser.add_argument("--misses", action="store_true", help="print what went wrong")
    given = parser.parse_args()
    lines = given.file.read_text(encoding="utf-8").splitlines()
    rows = [Described.model_validate_json(line) for line in lines if line.strip()]
    files = sorted(markdown(data_folder("vectorstore/grimoires")).items())
    library = Library({id: read_grimoire(id, file) for id, file in files})
    for name in ("wordllama", "minilm"):
        space = embedder(name, home=Home.at(given.home))
        index = _indexed(library, space)
        whole = [_found(row.text, row.fits, index, space) for row in rows]
        less = [_found(row.text, row.otherwise, _without(index, row.fits), space) for row in rows if row.fits]
        threshold = SCALES[type(space)].fits
        print(f"\n{name}, threshold {threshold}, {len(files)} grimoires")
        _print(f"{len(whole)} descriptions", whole, threshold)
        _print(f"{len(less)} descriptions, each without the grimoires that are right", less, threshold)
        if given.thresholds:
            _print_thresholds(whole, less)
        if given.misses:
            _print_misses([*whole, *less], threshold)


def _indexed(library: Library, space: Embeddings) -> Indexed:
    grimoires = library.grimoires.values()
    return Indexed(
        library, {field: embed(space, [text for one in grimoires for text in texts_of(one, field)]) for field in FIELDS}
    )


def _without(index: Indexed, tasks: Sequence[str]) -> Indexed:
    left = {one.id: one for one in index.grimoires if one.task not in tasks}
    owners = {field: [one.task for one in index.grimoires for _ in texts_of(one, field)] for field in FIELDS}
    kept = {field: [row for row, task in enumerate(owners[field]) if task not in tasks] for field in FIELDS}
    return Indexed(Library(left), {field: vectors[kept[field]] for field, vectors in index.vectors.items()})


def _found(text: str, right: Sequence[str], index: Indexed, space: Embeddings) -> Found:
    hits = matches(index, Wish.of(text, (), space), k=len(index.grimoires), threshold=-1.0)
    return Found(text, [task for task in right if any(one.task == task for one in index.grimoires)], hits)


def _print(title: str, found: Sequence[Found], threshold: float) -> None:
    some, none = [one for one in found if one.right], [one for one in found if not one.right]
    said = {id(one): one.above(threshold) for one in found}
    print(f"  {title}: {len(some)} that something fits, {len(none)} that nothing fits")
    best = {id(one): one.above(-1.0) for one in found}
    _rate("right at rank 1, before the threshold", [best[id(one)][0] in one.right for one in some])
    _rate("right within 3, before the threshold", [bool({*best[id(one)]} & {*one.right}) for one in some])
    _rate("right at rank 1", [said[id(one)][:1] != [] and said[id(one)][0] in one.right for one in some])
    _rate("right within 3", [bool({*said[id(one)]} & {*one.right}) for one in some])
    _rate('"none fits" said rightly', [not said[id(one)] for one in none])
    _rate('"none fits" said wrongly', [not said[id(one)] for one in some])


def _rate(what: str, hits: Sequence[bool]) -> None:
    low, high = wilson(sum(hits), len(hits))
    share = f"{sum(hits) / len(hits):.2f} [{low:.2f}, {high:.2f}]" if hits else "-"
    print(f"    {what:40} {sum(hits):3} of {len(hits):3}  {share}")


def _print_thresholds(whole: Sequence[Found], less: Sequence[Found]) -> None:
    """Print, for each threshold, how often it is right to say that something fits and that nothing does."""
    print("    threshold  fits: right within 3, as shipped   none: as shipped, without   balanced")
    for threshold in np.arange(0.14, 0.56, 0.02):
        right = [bool({*one.above(threshold)} & {*one.right}) for one in whole if one.right]
        nones, removed = ([not one.above(threshold) for one in part if not one.right] for part in (whole, less))
        both = [*nones, *removed]
        balanced = (sum(right) / len(right) + sum(both) / len(both)) / 2
        print(
            f"    {threshold:9.2f}  {sum(right):3} of {len(right):3}  {'':22} {sum(nones):3} of {len(nones):3}"
            f"  {sum(removed):3} of {len(removed):3}   {balanced:.3f}"
        )


def _print_misses(found: Sequence[Found], threshold: float) -> None:
    for one in found:
        said = one.above(threshold)
        if (said[0] not in one.right) if said and one.right else bool(said) != bool(one.right):
            first = ", ".join(f"{hit.grimoire.task} {hit.score:.2f}" for hit in one.hits[:3])
            print(f"    {one.text:.90} | {', '.join(one.right) or 'none'} | {first}")


if __name__ == "__main__":
    main()
