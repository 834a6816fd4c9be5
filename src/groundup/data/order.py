"""Which row comes when: a function of (seed, epoch, place) alone, so that any place of any epoch can be resumed."""

from typing import Literal

import numpy as np

from groundup.data.packing import Rows

Sampling = Literal["shuffled", "sequential", "random"]

_ROUNDS = 6


def scramble(values: np.ndarray, *key: int) -> np.ndarray:
    """Uniform 64-bit numbers from integers (uint64 in and out): the finalizer of SplitMix64 (Steele, Lea, Flood
    2014), once for each part of the key.
    """
    x = values.astype(np.uint64)
    for part in (0, *key):
        x = x + np.uint64((part + 1) * 0x9E3779B97F4A7C15 % 2**64)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        x = x ^ (x >> np.uint64(31))
    return x


def permuted(places: np.ndarray, size: int, *key: int) -> np.ndarray:
    """The rows at `places` of a shuffled deck of `size`, without dealing the deck: (n,) int64 in and out.

    A Feistel network is a bijection of [0, 4^b); places that land beyond `size` go through it again until they do
    not ("cycle walking", Black and Rogaway 2002), which leaves a bijection of [0, size).
    """
    half = max(1, ((size - 1).bit_length() + 1) // 2)
    x = _feistel(places.astype(np.uint64), half, key)
    while (outside := x >= size).any():
        x[outside] = _feistel(x[outside], half, key)
    return x.astype(np.int64)


def _feistel(x: np.ndarray, half: int, key: tuple[int, ...]) -> np.ndarray:
    bits, mask = np.uint64(half), np.uint64(2**half - 1)
    left, right = x >> bits, x & mask
    for number in range(_ROUNDS):
        # L, R <- R, L xor F(R)
        left, right = right, left ^ (scramble(right, *key, number) & mask)
    return (left << bits) | right


def rows_at(
    rows: Rows, ordinals: np.ndarray, sampling: Sampling, seed: int, stream: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """The (starts, lengths) of the rows drawn as number `ordinals` (n,), counted from 0 over all epochs.

    - shuffled: every row once an epoch, each epoch in another order.
    - sequential: every row once an epoch, in the order of the data.
    - random: windows that begin anywhere, drawn with replacement, as nanoGPT does.
    `stream` keeps apart sources that share a seed.
    """
    if sampling == "random":
        return rows.anywhere(scramble(ordinals, seed, stream))
    epochs, places = np.divmod(ordinals, len(rows))
    if sampling == "shuffled":
        for epoch in np.unique(epochs):
            here = epochs == epoch
            places[here] = permuted(places[here], len(rows), seed, stream, int(epoch))
    return rows.locate(places)
