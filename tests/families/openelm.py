"""OpenELM. No library has it: numbers of the authors' code are in `tests/data/reference`."""

from families.reference import Reference
from groundup.models.configs.openelm import OpenELMConfig

TINY = dict(vocab_size=64, hidden_size=32, num_hidden_layers=3, head_dim=8, ffn_dim_divisor=8)

reference = Reference(
    rows=("LM-46",),
    own={
        "openelm": lambda: OpenELMConfig(
            **TINY, num_gqa_groups=2, normalize_qk_projections=True, tie_word_embeddings=True,
            qkv_multipliers=(0.5, 1.0), ffn_multipliers=(0.5, 4.0),
        ),
        "openelm-even": lambda: OpenELMConfig(**TINY, ffn_multipliers=2.0, ffn_with_glu=False, hidden_act="gelu"),
    },
    # what the authors' code builds for these names
    parameters={
        "openelm-270m": 271_527_168,
        "openelm-450m": 457_179_136,
        "openelm-1.1b": 1_079_891_456,
        "openelm-3b": 3_036_647_424,
    },
    theirs_count=False,
)  # fmt: skip
