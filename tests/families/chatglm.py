"""ChatGLM2, ChatGLM3 and GLM-4 in the layout of their release. No library has it: numbers of the authors' code are in
`tests/data/reference`, and `tests/parity/test_chatglm.py` holds it against transformers' GLM.
"""

from families.reference import Reference
from groundup.models.configs.chatglm import ChatGLMConfig

TINY = dict(vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4, head_dim=8)

reference = Reference(
    own={
        "chatglm": lambda: ChatGLMConfig(**TINY, rope_ratio=50.0),
        "chatglm-biased": lambda: ChatGLMConfig(**TINY, num_key_value_heads=1, mlp_bias=True, attention_bias=False),
    },
    # ChatGLM2: 12,487,168,000 bytes of half precision in the release's index; GLM-4: as transformers counts `glm`
    parameters={
        "chatglm2-6b": 6_243_584_000,
        "glm-4-9b": 9_399_951_360,
        "glm-4-9b-chat-1m": 9_483_857_920,
    },
    same_parameters=("chatglm3-6b", "chatglm3-6b-32k", "chatglm3-6b-128k", "glm-4-9b-chat"),
    theirs_count=False,
)
