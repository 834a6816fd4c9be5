"""Recurrent language models: numbers against torch.nn's layers in tests/parity/test_recurrent_models.py."""

from families.reference import Reference
from groundup.models.configs.rnn import RNNConfig

SHAPE = dict(vocab_size=64, hidden_size=48, embedding_size=32, num_hidden_layers=2)

reference = Reference(
    rows=("LM-05",),
    own={
        "rnn-lstm": lambda: RNNConfig(**SHAPE),
        "rnn-gru": lambda: RNNConfig(**SHAPE, cell="gru"),
        "rnn-gru-reset-first": lambda: RNNConfig(**SHAPE, cell="gru_reset_first"),
        "rnn-simple": lambda: RNNConfig(**SHAPE, cell="simple"),
        "rnn-tied": lambda: RNNConfig(**SHAPE | dict(embedding_size=48), tie_word_embeddings=True),
    },
    # Zaremba et al. 2014, section 4.1: counts of the shapes told there, 20M and 66M in the tables of later papers
    parameters={"zaremba-medium": 19_780_400, "zaremba-large": 66_034_000},
    theirs_count=False,
    trims=False,
)
