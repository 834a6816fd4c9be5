"""The released files of GPT-2, and the counts of the book that builds it."""

import json

import pytest
import torch
import transformers as tf
from torch.testing import assert_close

from groundup.models.catalogue import config_of_size, model_class
from groundup.models.hub import load_model


def ids(rows=2, length=12, seed=1):
    return torch.randint(1, 64, (rows, length), generator=torch.Generator().manual_seed(seed))


@pytest.mark.row("LM-10", reference="transformers")
def test_the_released_files_of_gpt2_load(tmp_path):
    """OpenAI's weights are not part of the tests; their file is: names without `transformer.`, causal masks among the
    tensors, no head, and a config.json of 2019. Two of the twelve layers, filled at random, in full width.
    """
    from safetensors.torch import save_file

    config = {
        "activation_function": "gelu_new", "architectures": ["GPT2LMHeadModel"], "attn_pdrop": 0.1,
        "bos_token_id": 50256, "embd_pdrop": 0.1, "eos_token_id": 50256, "initializer_range": 0.02,
        "layer_norm_epsilon": 1e-05, "model_type": "gpt2", "n_ctx": 1024, "n_embd": 768, "n_head": 12, "n_layer": 2,
        "n_positions": 1024, "resid_pdrop": 0.1, "summary_activation": None, "summary_first_dropout": 0.1,
        "summary_proj_to_labels": True, "summary_type": "cls_index", "summary_use_proj": True,
        "task_specific_params": {"text-generation": {"do_sample": True, "max_length": 50}}, "vocab_size": 50257,
    }  # fmt: skip
    shapes = {"wte.weight": (50257, 768), "wpe.weight": (1024, 768), "ln_f.weight": (768,), "ln_f.bias": (768,)}
    for i in range(2):
        for name, shape in {
            "ln_1.weight": (768,), "ln_1.bias": (768,), "ln_2.weight": (768,), "ln_2.bias": (768,),
            "attn.c_attn.weight": (768, 2304), "attn.c_attn.bias": (2304,),
            "attn.c_proj.weight": (768, 768), "attn.c_proj.bias": (768,),
            "mlp.c_fc.weight": (768, 3072), "mlp.c_fc.bias": (3072,),
            "mlp.c_proj.weight": (3072, 768), "mlp.c_proj.bias": (768,),
        }.items():  # fmt: skip
            shapes[f"h.{i}.{name}"] = shape
    torch.manual_seed(0)
    tensors = {name: torch.randn(shape) * 0.05 for name, shape in shapes.items()}
    tensors |= {f"h.{i}.attn.bias": torch.ones(1024, 1024).tril()[None, None] for i in range(2)}
    (tmp_path / "config.json").write_text(json.dumps(config))
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    ours = load_model(tmp_path)
    theirs = tf.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval()
    with torch.no_grad():
        assert_close(ours(ids()), theirs(ids()).logits)
    assert ours.num_parameters() == theirs.num_parameters() == 124_439_808 - 10 * 7_087_872


# Raschka 2024, chapter 4: an output head of its own, and no biases of queries, keys and values; then with a tied head
BOOK = {
    "gpt2": (163_009_536, 124_412_160),
    "gpt2-medium": (406_212_608, 354_749_440),
    "gpt2-large": (838_220_800, 773_891_840),
    "gpt2-xl": (1_637_792_000, 1_557_380_800),
}


@pytest.mark.row("LM-10", reference="published: Raschka 2024, chapter 4")
@pytest.mark.parametrize("name", BOOK)
def test_the_books_counts_with_an_untied_head(name):
    untied, tied = BOOK[name]
    config = config_of_size(name)
    biases = 3 * config.hidden_size * config.num_hidden_layers  # which the book's models lack
    with torch.device("meta"):
        own_head = model_class(config)(config.model_copy(update={"tie_word_embeddings": False}))
        shared = model_class(config)(config)
    assert own_head.num_parameters() - biases == untied
    assert shared.num_parameters() - biases == tied


@pytest.mark.row("LM-10", reference="transformers; published: Raschka 2024, chapter 6")
@pytest.mark.parametrize("name", BOOK)
def test_the_released_weights_of_gpt2(name, shared, capsys):
    """`models verify` on the real checkpoint: transformers' logits and text, and for 124M the published text."""
    from groundup.cli import main

    folder = shared / "models" / name
    if not (folder / "config.json").is_file():
        pytest.skip(f"the released weights of {name} are not at {folder} (a Hugging Face folder)")
    assert main(["models", "verify", str(folder), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["published_size"] == name
    assert found["confirms"] == (["LM-10"] if name == "gpt2" else [])
