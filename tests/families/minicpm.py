"""MiniCPM: transformers lacks it. It is held against Granite, the same computation, in `test_minicpm.py`."""

from families.reference import Reference
from families.shapes import GROUPED, LLAMA
from groundup.models.configs.minicpm import MiniCPMConfig

reference = Reference(
    rows=("LM-46",),
    own={
        "minicpm": lambda: MiniCPMConfig(**LLAMA, dim_model_base=8),
        "minicpm-grouped": lambda: MiniCPMConfig(
            **GROUPED, dim_model_base=16, scale_emb=3.0, scale_depth=0.7, tie_word_embeddings=False
        ),
    },
    # Hu et al. 2024, table 2: 2.4B and 1.2B without embeddings; counts of these shapes
    parameters={"minicpm-1b": 1_360_246_272, "minicpm-2b": 2_724_880_896},
    theirs_count=False,
)
