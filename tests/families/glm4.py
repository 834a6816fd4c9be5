"""GLM-4-0414, held against transformers."""

import transformers as tf

from families.reference import Reference
from families.shapes import GROUPED

TINY = GROUPED | dict(head_dim=8, pad_token_id=0)

reference = Reference(
    cases={
        "glm4": lambda: tf.Glm4Config(**TINY),
        "glm4-biased": lambda: tf.Glm4Config(**TINY, attention_bias=True),
    },
    # counts of these shapes in transformers, as the releases are known to have; cards were not fetched
    parameters={"glm-4-9b-0414": 9_400_279_040, "glm-4-32b-0414": 32_566_081_536},
)
