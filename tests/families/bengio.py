"""The feed-forward language model: numbers against its formula in tests/parity/test_feedforward_lm.py."""

from families.reference import Reference
from groundup.models.configs.bengio import BengioConfig

SHAPE = dict(vocab_size=64, order=4, embedding_size=10, hidden_size=16)

reference = Reference(
    rows=("LM-04",),
    own={
        "bengio": lambda: BengioConfig(**SHAPE),
        "bengio-hidden-only": lambda: BengioConfig(**SHAPE, direct=False),
    },
    # Bengio et al. 2003, section 2: |V| (1 + n m + h) + h (1 + (n - 1) m)
    parameters={
        "bengio-brown": 16_383 * (1 + 5 * 60 + 50) + 50 * (1 + 4 * 60),
        "bengio-ap": 17_964 * (1 + 6 * 100 + 60) + 60 * (1 + 5 * 100),
    },
    theirs_count=False,
    trims=False,
)
