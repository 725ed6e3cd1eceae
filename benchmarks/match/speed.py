"""How long `match` takes in a library of thousands, beside the same questions put to Chroma alone.

    python benchmarks/match/speed.py [-n 10000] [--queries 200] [--requests 0] [--home DIR]

The grimoires are made up of the words of the shipped ones. Embedding the question is left out of both: its vector is
known beforehand. Chroma is asked as it would have to be, one open client, sixty of each collection; both are asked in
turn, so that whatever else the machine does slows both.
"""

import argparse
import json
import random
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from langchain_core.embeddings import Embeddings

from sleicl_chains.files import Home, data_folder
from sleicl_chains.grimoires.grimoire import Grimoire, Provenance
from sleicl_chains.grimoires.index import FIELDS, open_client
from sleicl_chains.grimoires.shelf import markdown, read_grimoire
from sleicl_chains.grimoires.store import GrimoireStore
from sleicl_chains.models.embedders import WordVectors


class Known(Embeddings):
    """Word vectors; those of questions are worked out beforehand."""

    def __init__(self, questions: list[str]) -> None:
        self._inner = WordVectors()
        self._known = dict(zip(questions, self._inner.embed_documents(questions), strict=True))

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Return one vector a text."""
        return self._inner.embed_documents(texts)

    def embed_query(self, text: str) -> list[float]:
        """Return the vector of a question."""
        return self._known.get(text) or self._inner.embed_query(text)


def main() -> None:
    """Make the library if it is not there, and print the times."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("-n", type=int, default=10_000, help="grimoires")
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--requests", type=int, default=0, help="of each grimoire")
    parser.add_argument("--home", type=Path, help="where the made-up library stays; else it is thrown away")
    given = parser.parse_args()
    with TemporaryDirectory() as scratch:
        _measure(Home(given.home or Path(scratch)), given.n, given.queries, given.requests)


def _measure(home: Home, n: int, queries: int, requests: int) -> None:
    shipped = [read_grimoire(id, file) for id, file in markdown(data_folder("vectorstore/grimoires")).items()]
    words = sorted({word for one in shipped for word in f"{one.description} {one.profound}".split()})
    chance = random.Random(0)
    questions = [" ".join(chance.choices(words, k=15)) for _ in range(queries)]
    home.grimoires.mkdir(parents=True, exist_ok=True)
    for number in range(n):
        path = home.grimoires / f"made-up-{number:05}.md"
        if not path.exists():
            made = _made_up(path.stem, words, random.Random(number), requests)
            path.write_text(made.to_markdown(), encoding="utf-8")
    space = Known(questions)
    store = GrimoireStore(home, space, lock_timeout_s=600)
    seconds = {"first match, files read and indexed": _timed(lambda: store.match(questions[0]))}
    again = GrimoireStore(home, space, lock_timeout_s=600)
    seconds["first match of another store, files parsed, index there"] = _timed(lambda: again.match(questions[0]))
    print(json.dumps({"n": n, "seconds": {what: round(took, 2) for what, took in seconds.items()}}), flush=True)

    client = open_client(home.chroma)
    collections = [client.get_collection(f"sleicl-{field}", embedding_function=None) for field in FIELDS]

    def raw(question: str) -> None:
        for collection in collections:
            collection.query(query_embeddings=space.embed_query(question), n_results=60, include=["distances"])

    for question in questions[:20]:  # warm up
        store.match(question)
        raw(question)
    times = {"match": [], "raw": []}  # type: dict[str, list[float]]
    for question in questions:
        times["match"].append(_timed(lambda question=question: store.match(question)))  # type: ignore[misc]
        times["raw"].append(_timed(lambda question=question: raw(question)))  # type: ignore[misc]
    client.close()
    for what, found in times.items():
        p50, p95, most = np.percentile(np.array(found) * 1000, [50, 95, 100])
        print(f"{what:6} {len(found)} questions: p50 {p50:.1f} ms, p95 {p95:.1f} ms, longest {most:.1f} ms")
    ratio = np.percentile(times["match"], 95) / np.percentile(times["raw"], 95)
    print(f"p95 of match is {ratio:.2f} times that of the raw queries")


def _made_up(id: str, words: list[str], chance: random.Random, requests: int) -> Grimoire:
    description, profound, simple = (" ".join(chance.choices(words, k=k)) for k in (20, 250, 40))
    labels = tuple(dict.fromkeys(chance.choices(words, k=4)))
    asked = tuple(" ".join(chance.choices(words, k=8)) for _ in range(requests))
    about = (id, id, "classification", description, labels, profound, simple, Provenance(sampler="none"))
    return Grimoire(*about, requests=asked)


def _timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
