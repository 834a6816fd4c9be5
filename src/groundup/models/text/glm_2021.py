"""GLM (Du et al. 2022), of 2021, from GPT-2: it fills blanks in a text that it sees in both directions
(`blank_filling.py`); besides a learned vector for a token's place in the text there is one for its place in the blank.

The authors' code has GELU in its tanh form. The port on the Hugging Face hub computes the exact one, which moves logits
in the third decimal: `hidden_act: gelu` does as the port.
"""

from groundup.layers.embedding import BlankPositionEmbedding, Embedding
from groundup.models.configs.glm_2021 import GLM2021Config
from groundup.models.text.blank_filling import BlankFilling
from groundup.models.text.gpt2 import GPT2
from groundup.weights import Fused, WeightMap, rule


class GLM2021(BlankFilling, GPT2):
    """GLM, 110M to 10B."""

    Config = GLM2021Config
    config: GLM2021Config  # type: ignore[assignment]

    def make_embed(self) -> Embedding:
        c = self.config
        return BlankPositionEmbedding(c.vocab_size, c.hidden_size, c.max_position_embeddings + 1, c.embd_pdrop)

    @classmethod
    def weight_map(cls, config: GLM2021Config) -> WeightMap:  # type: ignore[override]
        ours, theirs, d = "blocks.{i}.", "glm.transformer.layers.{i}.", config.hidden_size
        return WeightMap(
            rule("embed.tokens", "glm.word_embeddings"),
            rule("embed.positions", "glm.transformer.position_embeddings"),
            rule("embed.blanks", "glm.transformer.block_position_embeddings"),
            rule(ours + "norm1", theirs + "input_layernorm"),
            rule([ours + f"attn.{p}_proj" for p in "qkv"], theirs + "attention.query_key_value", Fused(d, d, d)),
            rule(ours + "attn.o_proj", theirs + "attention.dense"),
            rule(ours + "norm2", theirs + "post_attention_layernorm"),
            rule(ours + "mlp.up_proj", theirs + "mlp.dense_h_to_4h"),
            rule(ours + "mlp.down_proj", theirs + "mlp.dense_4h_to_h"),
            rule("norm", "glm.transformer.final_layernorm"),
            prefix="glm.",
            i=config.num_hidden_layers,
        )
