"""Who computes which tile when, and what travels between large and fast memory: FlashAttention 1 beside 2."""

from dataclasses import dataclass

from groundup.layers.flash.tiles import Blocks, spans

Tile = tuple[int, int]
"""Numbers of a block of queries and of a block of keys."""


def seen(i: int, j: int, blocks: Blocks, causal: bool) -> bool:
    """Whether some query of block i sees some key of block j."""
    return not causal or j * blocks.columns < (i + 1) * blocks.rows


def order_v1(queries: int, keys: int, blocks: Blocks, causal: bool = False) -> list[list[Tile]]:
    """The tiles of each worker of a head, in order: one worker, keys outside, queries inside."""
    rows, columns = len(spans(queries, blocks.rows)), len(spans(keys, blocks.columns))
    return [[(i, j) for j in range(columns) for i in range(rows) if seen(i, j, blocks, causal)]]


def order_v2(queries: int, keys: int, blocks: Blocks, causal: bool = False) -> list[list[Tile]]:
    """The tiles of each worker of a head, in order: one worker a block of queries, keys inside."""
    rows, columns = len(spans(queries, blocks.rows)), len(spans(keys, blocks.columns))
    return [[(i, j) for j in range(columns) if seen(i, j, blocks, causal)] for i in range(rows)]


@dataclass(frozen=True)
class Traffic:
    """Numbers (not bytes) of one head's forward pass.

    Attributes:
        loads, stores: between large and fast memory.
        divisions: by the softmax sum.
        workers: that can run at once.
    """

    loads: int
    stores: int
    divisions: int
    workers: int

    @property
    def total(self) -> int:
        """Loads and stores."""
        return self.loads + self.stores


def traffic_plain(queries: int, keys: int, width: int) -> Traffic:
    """Three kernels: scores = q k^T are stored; softmax loads and stores; weights and v are loaded."""
    matrix, q, kv = queries * keys, queries * width, 2 * keys * width
    return Traffic(q + kv + 2 * matrix, 2 * matrix + q, matrix, workers=1)


def traffic_v1(queries: int, keys: int, width: int, blocks: Blocks, causal: bool = False) -> Traffic:
    """Keys and values once; queries, results and their two statistics at every tile."""
    loads = stores = divisions = 0
    rows = spans(queries, blocks.rows)
    for i, _ in order_v1(queries, keys, blocks, causal)[0]:
        height = rows[i].stop - rows[i].start
        loads += height * (2 * width + 2)  # q_i, o_i, m_i, l_i
        stores += height * (width + 2)
        divisions += height * width
    return Traffic(loads + 2 * keys * width, stores, divisions, workers=1)


def traffic_v2(queries: int, keys: int, width: int, blocks: Blocks, causal: bool = False) -> Traffic:
    """Queries and results once; keys and values at every tile."""
    workers, columns = order_v2(queries, keys, blocks, causal), spans(keys, blocks.columns)
    read = sum(columns[j].stop - columns[j].start for worker in workers for _, j in worker)
    # o_i is stored with one number a query, L_i
    return Traffic(queries * width + 2 * width * read, queries * (width + 1), queries * width, len(workers))
