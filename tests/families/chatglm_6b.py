"""ChatGLM-6B, held against numbers of the authors' code (`tests/data/reference`), since no library has it."""

from families.glm_130b import TINY
from families.reference import Reference
from groundup.models.configs.chatglm_6b import ChatGLM6BConfig

reference = Reference(
    own={
        "chatglm_6b": lambda: ChatGLM6BConfig(**TINY),
        "chatglm_6b-one-position": lambda: ChatGLM6BConfig(**TINY, position_encoding_2d=False),
    },
    parameters={"chatglm-6b": 6_173_286_400},  # 6.2 billion on its page
    theirs_count=False,
)
