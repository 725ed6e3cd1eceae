"""Typical rows: one from the middle of each cluster (KCS and HCS of "Grimoire is All You Need", arXiv 2401.03385)."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from sleicl_chains.tasks.rows import Example

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Vectors = NDArray[np.float64]
    Cluster = Callable[[Vectors, int], NDArray[np.int_]]
    """Takes vectors and how many clusters there shall be; returns the number of each one's cluster."""


def central(rows: list[Example], vectors: "Vectors", count: int, cluster: "Cluster") -> list[Example]:
    """Return of each of `count` clusters the row nearest to its centre, the largest cluster first.

    Args:
        rows: of one label, in an order that no seed decides: so clusters are the same for every seed, as far as
            they can be.
        vectors: (n_rows, n_dims), rows of unit length.
        count: how many are wanted; fewer where there are fewer different vectors.
        cluster: `kmeans` or `hierarchical`.
    """
    import numpy as np

    # 1. Cut the rows into clusters; more of them than different vectors would stay empty.
    count = min(count, len(np.unique(vectors, axis=0)))
    labels = cluster(vectors, count) if count > 1 else np.zeros(len(rows), dtype=int)
    members = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    # 2. Put the largest first, of equals the one with the first row: the numbers that clusters get mean nothing.
    members.sort(key=lambda places: (-len(places), places[0]))
    # 3. Of each take the row whose cosine with the mean is the highest.
    return [rows[places[most_like(vectors[places], vectors[places].mean(axis=0))[0]]] for places in members]


def most_like(vectors: "Vectors", target: "Vectors") -> "NDArray[np.int_]":
    """Return places of vectors (n, n_dims) by their cosine with a target (n_dims,); of equals the first first."""
    import numpy as np

    return np.argsort(-(vectors @ target).round(6), kind="stable")


def kmeans(vectors: "Vectors", count: int, *, seed: int) -> "NDArray[np.int_]":
    """Cut into k-means clusters: scikit-learn's best of ten starts."""
    from sklearn.cluster import KMeans
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # it has no types

    # For vectors of unit length the Euclidean distance orders as the cosine does. On one thread sums are
    # formed in one order, however many cores there are.
    with threadpool_limits(1):
        labels: NDArray[np.int_] = KMeans(count, n_init=10, random_state=seed % 2**32).fit_predict(vectors)
    return labels


def hierarchical(vectors: "Vectors", count: int) -> "NDArray[np.int_]":
    """Cut into agglomerative clusters by cosine, average linkage: the two nearest are joined until `count` are left."""
    from sklearn.cluster import AgglomerativeClustering

    labels: NDArray[np.int_] = AgglomerativeClustering(count, metric="cosine", linkage="average").fit_predict(vectors)
    return labels
