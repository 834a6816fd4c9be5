"""RWKV-6, which transformers lacks: held against the `rwkv` library in tests/parity/test_rwkv.py."""

from families.reference import Reference
from families.rwkv5 import TINY
from groundup.models.configs.rwkv_heads import RWKV6Config

reference = Reference(
    own={"rwkv6": lambda: RWKV6Config(**TINY)},
    # counts of the published shapes; Peng et al. 2024: 1.60e9, 3.10e9, 7.64e9
    parameters={
        "rwkv-6-world-1.6b": 1_599_873_024,
        "rwkv-6-world-3b": 3_099_863_040,
        "rwkv-6-world-7b": 7_635_746_816,
    },
    theirs_count=False,
    trims=False,
)
