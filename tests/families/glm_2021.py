"""GLM of 2021, held against numbers of the authors' code (`tests/data/reference`), since no library has it."""

from families.reference import Reference
from groundup.models.configs.glm_2021 import GLM2021Config

TINY = dict(
    **dict(vocab_size=64, hidden_size=32, num_hidden_layers=3, num_attention_heads=4, max_position_embeddings=64),
    **dict(bos_token_id=0, mask_token_id=0, eop_token_id=0, embd_pdrop=0, attn_pdrop=0, resid_pdrop=0),  # no marks
)

reference = Reference(
    own={
        "glm_2021": lambda: GLM2021Config(**TINY),
        "glm_2021-as-the-port": lambda: GLM2021Config(**TINY, hidden_act="gelu", smask_token_id=1, gmask_token_id=2),
    },
    # published as 110M, 335M, 410M, 515M, 2B, 10B; here V D + 2 (S + 1) D + L (12 D^2 + 13 D) + 2 D
    parameters={
        "glm-base": 109_338_624,
        "glm-large": 334_688_256,
        "glm-410m": 410_265_600,
        "glm-515m": 514_632_960,
        "glm-2b": 1_920_122_880,
        "glm-10b": 9_880_682_496,
        "glm-large-chinese": 355_659_776,
        "glm-10b-chinese": 9_879_633_920,
    },
    theirs_count=False,
)
