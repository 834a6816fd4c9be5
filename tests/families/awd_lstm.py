"""AWD-LSTM: numbers against torch.nn.LSTM in tests/parity/test_awd_lstm.py."""

from families.reference import Reference
from groundup.models.configs.awd_lstm import AWDLSTMConfig

SHAPE = dict(vocab_size=64, hidden_size=64, embedding_size=48, num_hidden_layers=2)
LIGHT = dict(dropout=0.0, layer_dropout=0.0, input_dropout=0.0, word_dropout=0.0, weight_dropout=0.0)
LIGHT |= dict(activation_penalty=0.0, change_penalty=0.0)

reference = Reference(
    own={
        "awd-lstm": lambda: AWDLSTMConfig(**SHAPE, **LIGHT),
        "awd-lstm-untied": lambda: AWDLSTMConfig(**SHAPE, **LIGHT, tie_word_embeddings=False),
    },
    # Merity et al. 2017, tables 1 and 2: 24M and 33M
    parameters={"awd-lstm-ptb": 24_221_600, "awd-lstm-wt2": 33_556_078},
    theirs_count=False,
    trims=False,
)
