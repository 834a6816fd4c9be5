"""RWKV-5, which transformers lacks: held against the `rwkv` library in tests/parity/test_rwkv.py."""

from families.reference import Reference
from groundup.models.configs.rwkv_heads import RWKV5Config

TINY = dict(vocab_size=64, hidden_size=32, num_hidden_layers=3, num_attention_heads=4, max_position_embeddings=64)

reference = Reference(
    own={
        f"rwkv-{version}": lambda version=version: RWKV5Config(**TINY, version=version)
        for version in ("5.0", "5.1", "5.2")
    },
    # counts of the published shapes; Peng et al. 2024: 4.6e8, 1.58e9, 3.06e9, 7.52e9
    parameters={
        "rwkv-5-world-0.4b": 461_721_600,
        "rwkv-5-world-1.5b": 1_577_754_624,
        "rwkv-5-world-3b": 3_062_999_040,
        "rwkv-5-world-7b": 7_518_044_160,
    },
    theirs_count=False,
    trims=False,
)
