"""RWKV-7, which transformers lacks: held against the `rwkv` library in tests/parity/test_rwkv.py."""

from families.reference import Reference
from families.rwkv5 import TINY
from groundup.models.configs.rwkv_heads import RWKV7Config

reference = Reference(
    own={"rwkv7": lambda: RWKV7Config(**TINY)},
    # Peng et al. 2025, the table of released models
    parameters={
        "rwkv-7-world-0.1b": 191_034_624,
        "rwkv-7-world-0.4b": 450_767_872,
        "rwkv-7-world-1.5b": 1_527_404_544,
        "rwkv-7-world-2.9b": 2_947_735_040,
    },
    theirs_count=False,
    trims=False,
)
