"""MiniCPM's factors, held against transformers' Granite: the same computation, read from its files."""

import json
import math

import pytest
import torch
import torch.nn.functional as F
import transformers as tf
from torch.testing import assert_close

from families.shapes import GROUPED
from families.tiny import ids
from groundup.models.hub import load_model


@pytest.mark.row("LM-46", reference="transformers (Granite)")
@pytest.mark.parametrize("tied", [True, False])
def test_granite_with_the_same_factors(tied, tmp_path):
    scale_emb, scale_depth, base = 12.0, 1.4, 8
    torch.manual_seed(0)
    granite = tf.GraniteConfig(
        **GROUPED,
        tie_word_embeddings=tied,
        rms_norm_eps=1e-5,
        embedding_multiplier=scale_emb,
        residual_multiplier=scale_depth / math.sqrt(GROUPED["num_hidden_layers"]),
        logits_scaling=GROUPED["hidden_size"] / base,
        attention_multiplier=(GROUPED["hidden_size"] // GROUPED["num_attention_heads"]) ** -0.5,
    )
    theirs = tf.AutoModelForCausalLM.from_config(granite, dtype=torch.float32).eval()
    theirs.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    for name in ("embedding_multiplier", "residual_multiplier", "logits_scaling", "attention_multiplier"):
        del config[name]
    config |= {"model_type": "minicpm", "scale_emb": scale_emb, "scale_depth": scale_depth, "dim_model_base": base}
    (tmp_path / "config.json").write_text(json.dumps(config))
    ours, x = load_model(tmp_path), ids()
    assert type(ours).__name__ == "MiniCPM"
    assert_close(ours(x), theirs(x).logits)
    for logits in (ours(x), theirs(x).logits):
        F.cross_entropy(logits[:, :-1].flatten(0, 1), x[:, 1:].flatten()).backward()
    mine = {name: p.grad for name, p in ours.named_parameters()}
    expected = {name: p.grad for name, p in theirs.named_parameters()}
    for name, gradient in ours.weight_map(ours.config).save(mine, mine.__getitem__):
        assert_close(gradient, expected[name], msg=lambda m, name=name: f"{name}: {m}")
