"""What a model remembers between calls.

`model.make_state(batch, max_len)` gives a State: one LayerState per module that remembers, under the module's dotted
name. It is passed to `model(x, state=state)`, which updates it in place, and is never stored in a module.

A row of a key-value cache is compact: the slot of a token is the number of real tokens of its row before it, and
padding takes no slot. So rows of different lengths live side by side, whichever side they were padded on. Where a
layer sees a window only, a rolling cache keeps the tokens of the window and no others.
"""

from groundup.state.caches import KVCache, LatentCache, RollingKVCache, kv_cache
from groundup.state.memories import RecurrentState, RowValues, SegmentMemory, SourceCache
from groundup.state.placement import LayerState, Placement
from groundup.state.state import State

__all__ = [
    "KVCache",
    "LatentCache",
    "LayerState",
    "Placement",
    "RecurrentState",
    "RollingKVCache",
    "RowValues",
    "SegmentMemory",
    "SourceCache",
    "State",
    "kv_cache",
]
