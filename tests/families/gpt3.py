"""GPT-3: transformers lacks it. Its pattern of layers is held against GPT-Neo in `tests/parity/test_gpt3.py`."""

from families.reference import Reference
from groundup.models.configs.gpt3 import GPT3Config

GPT3 = dict(
    vocab_size=64, hidden_size=32, num_hidden_layers=3, num_attention_heads=4, max_position_embeddings=64, window_size=5
)

reference = Reference(
    rows=("LM-11",),
    own={
        "gpt3": lambda: GPT3Config(**GPT3),
        "gpt3-13b-like": lambda: GPT3Config(**GPT3 | dict(hidden_size=34), head_dim=8),
    },
    # counts of Brown et al. 2020's shapes; the paper's own, rounded, are in test_gpt3.py
    parameters={
        "gpt3-125m": 125_226_240,
        "gpt3-350m": 355_871_744,
        "gpt3-760m": 760_300_032,
        "gpt3-1.3b": 1_315_723_264,
        "gpt3-2.7b": 2_651_553_280,
        "gpt3-6.7b": 6_658_404_352,
        "gpt3-13b": 12_936_488_380,
        "gpt3-175b": 174_604_259_328,
    },
    theirs_count=False,
)
