"""Tiny shapes that several families share."""

LLAMA = dict(
    vocab_size=64,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=3,
    num_attention_heads=4,
    max_position_embeddings=64,
)
GROUPED = LLAMA | dict(num_key_value_heads=2)
