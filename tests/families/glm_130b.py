"""GLM-130B, held against numbers of the authors' code (`tests/data/reference`), since no library has it."""

from families.reference import Reference
from groundup.models.configs.glm_130b import GLM130BConfig

TINY = dict(
    **dict(vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4),
    **dict(max_position_embeddings=64, bos_token_id=0, mask_token_id=0, gmask_token_id=0),  # no marks in random ids
)

reference = Reference(
    own={"glm_130b": lambda: GLM130BConfig(**TINY)},
    parameters={"glm-130b": 128_697_794_560},  # of the paper's table of sizes; 130B in its title
    theirs_count=False,
)
