"""RWKV-2, which transformers lacks: numbers of the authors' code are in tests/data/reference/rwkv2."""

from families.reference import Reference
from groundup.models.configs.rwkv import RWKV2Config

TINY = dict(vocab_size=64, hidden_size=32, num_hidden_layers=3, max_position_embeddings=64)

reference = Reference(
    own={"rwkv2": lambda: RWKV2Config(**TINY)},
    # counts of the published shape: no paper tells them
    parameters={
        "rwkv-2-pile-430m": 430_321_664,
    },
    theirs_count=False,
    trims=False,
)
