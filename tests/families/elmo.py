"""ELMo: numbers against torch.nn.LSTM with projections in tests/parity/test_elmo.py."""

from families.reference import Reference
from groundup.models.configs.elmo import ElmoConfig

SHAPE = dict(vocab_size=64, hidden_size=12, cell_size=20, num_hidden_layers=2, filters=[(1, 4), (3, 8)])

reference = Reference(
    own={
        "elmo-words": lambda: ElmoConfig(**SHAPE, characters=False),
        "elmo-clipped": lambda: ElmoConfig(**SHAPE, characters=False, clip=0.5),
    },
    # 93.6M, 28.0M and 13.6M as published, and the softmax over 793,471 words, which those leave out
    parameters={
        "elmo-original": 93_600_864 + 793_471 * 513,
        "elmo-medium": 28_027_744 + 793_471 * 257,
        "elmo-small": 13_593_312 + 793_471 * 129,
    },
    theirs_count=False,
    trims=False,
)
