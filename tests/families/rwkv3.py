"""RWKV-3, which transformers lacks: numbers of the authors' code are in tests/data/reference/rwkv3."""

from families.reference import Reference
from groundup.models.configs.rwkv import RWKV3Config

TINY = dict(vocab_size=64, hidden_size=32, num_hidden_layers=3, max_position_embeddings=64)

reference = Reference(
    own={"rwkv3": lambda: RWKV3Config(**TINY)},
    # the same count as RWKV-4 of that shape: a change of formula only
    parameters={
        "rwkv-3-pile-169m": 169_342_464,
        "rwkv-3-pile-430m": 430_397_440,
        "rwkv-3-pile-1b5": 1_515_106_304,
    },
    theirs_count=False,
    trims=False,
)
