"""PanGu-alpha. No library has it: numbers of a PyTorch port are in `tests/data/reference`."""

from families.reference import Reference
from groundup.models.configs.pangu import PanguConfig

TINY = dict(vocab_size=64, hidden_size=32, num_hidden_layers=3, num_attention_heads=4, max_position_embeddings=32)
QUIET = dict(embd_pdrop=0.0, attn_pdrop=0.0, resid_pdrop=0.0)

reference = Reference(
    rows=("LM-46",),
    own={
        "gpt_pangu": lambda: PanguConfig(**TINY, **QUIET),
        "gpt_pangu-one-layer": lambda: PanguConfig(**TINY | QUIET | {"num_hidden_layers": 1}, intermediate_size=40),
    },
    # what the PyTorch port builds for these shapes; the paper's table prints 2.6B, 13.1B and 207.0B
    parameters={
        "pangu-350m": 345_368_576,
        "pangu-2.6b": 2_625_295_360,
        "pangu-13b": 12_800_870_400,
        "pangu-200b": 206_861_008_896,
    },
    theirs_count=False,
)
