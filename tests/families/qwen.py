"""The first Qwen. No library has it: numbers of the authors' code are in `tests/data/reference`."""

from families.reference import Reference
from groundup.models.configs.qwen import QwenConfig

TINY = dict(
    **dict(vocab_size=64, hidden_size=32, intermediate_size=96, num_hidden_layers=3, num_attention_heads=4),
    **dict(head_dim=8, max_position_embeddings=64),
)

reference = Reference(
    own={
        "qwen": lambda: QwenConfig(**TINY, use_dynamic_ntk=False, use_logn_attn=False),
        "qwen-sharpened": lambda: QwenConfig(**TINY, use_dynamic_ntk=False, seq_length=5),
    },
    # counts of these shapes, as the releases are known to have; cards were not fetched
    parameters={
        "qwen-1.8b": 1_836_828_672,
        "qwen-7b": 7_721_324_544,
        "qwen-14b": 14_167_290_880,
        "qwen-72b": 72_287_920_128,
    },
    theirs_count=False,
)
