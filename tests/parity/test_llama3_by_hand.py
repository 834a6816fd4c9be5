"""Llama 3 written out, tensor by tensor, against the model and against transformers."""

import json

import pytest
import torch
import transformers as tf
from torch.testing import assert_close

from families.llama import LLAMA3_ROPE
from families.shapes import GROUPED, LLAMA
from groundup.base.errors import UsageError
from groundup.cli import main
from groundup.commands.models_verify import KNOWN_TEXTS
from groundup.models.hub import load_model
from groundup.models.text.llama3_by_hand import forward_by_hand, rotations, turn
from groundup.observe import observe
from groundup.tokenizers.hub import load_tokenizer

SHAPES = {
    "llama-1": lambda: tf.LlamaConfig(**LLAMA),
    "llama-3": lambda: tf.LlamaConfig(**GROUPED, rope_parameters=dict(rope_type="default", rope_theta=500_000.0)),
    "llama-3.1": lambda: tf.LlamaConfig(**GROUPED, rope_parameters=LLAMA3_ROPE),
    "tied-biased": lambda: tf.LlamaConfig(**GROUPED, tie_word_embeddings=True, attention_bias=True, mlp_bias=True),
}
IDS = [5, 17, 3, 60, 2, 9, 33]


@pytest.fixture(params=SHAPES)
def pair(request, tmp_path):
    torch.manual_seed(0)
    theirs = tf.AutoModelForCausalLM.from_config(
        SHAPES[request.param](), dtype=torch.float32, attn_implementation="eager"
    )
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    theirs.eval().save_pretrained(tmp_path)
    return theirs, load_model(tmp_path)


@pytest.mark.row("LM-28", reference="transformers; the model's own forward")
def test_the_logits_are_the_models_and_transformers(pair):
    theirs, ours = pair
    found = forward_by_hand(ours, IDS)
    with torch.no_grad():
        assert_close(found["logits"], ours(torch.tensor([IDS]))[0])
        assert_close(found["logits"], theirs(torch.tensor([IDS])).logits[0])
    assert found["probabilities"].sum().item() == pytest.approx(1)


@pytest.mark.row("LM-28", reference="published: the tensor-by-tensor notebook")
@pytest.mark.parametrize("size", ["8b", "70b"])
def test_the_released_weights_answer_42(size, shared):
    """By hand and by the model: the likeliest next token is 2983."""
    folder = shared / "models" / f"llama-3-{size}"
    if not (folder / "config.json").is_file():
        pytest.skip(f"the released weights of Llama 3 {size} are not at {folder} (a Hugging Face folder)")
    model, tokenizer = load_model(folder), load_tokenizer(folder)
    prompt, answer = KNOWN_TEXTS["llama-3-8b"]
    ids = tokenizer.encode(prompt, bos=True)
    assert len(ids) == 17
    found = forward_by_hand(model, ids)
    assert tokenizer.decode([int(found["probabilities"].argmax())]) == answer
    with torch.no_grad():
        assert int(model(torch.tensor([ids]))[0, -1].argmax()) == int(found["probabilities"].argmax()) == 2983


@pytest.mark.row("LM-28", reference="transformers; the model's own forward")
def test_every_stream_and_all_attention_weights_are_those_of_transformers(pair):
    theirs, ours = pair
    found = forward_by_hand(ours, IDS)
    with torch.no_grad():
        out = theirs(torch.tensor([IDS]), output_hidden_states=True, output_attentions=True)
    layers = ours.config.num_hidden_layers
    assert_close(found["embeddings"], out.hidden_states[0][0])
    for i in range(layers):
        assert_close(found[f"layers.{i}.weights"], out.attentions[i][0])
        if i < layers - 1:
            assert_close(found[f"layers.{i}.output"], out.hidden_states[i + 1][0])
    assert_close(found["normed"], out.hidden_states[-1][0])


def test_the_steps_within_a_layer_are_those_of_the_modules(pair):
    _, ours = pair
    found = forward_by_hand(ours, IDS)
    names = {"norm1": "normed", "attn.o_proj": "attended", "mlp.gate_proj": "gate", "mlp.up_proj": "up", "mlp": "down"}
    seen = {}
    hooks = [
        ours.get_submodule(f"blocks.1.{name}").register_forward_hook(
            lambda module, args, output, step=step: seen.__setitem__(step, output[0])
        )
        for name, step in names.items()
    ]
    with torch.no_grad(), observe(ours, "blocks.1"):
        ours(torch.tensor([IDS]))
    for hook in hooks:
        hook.remove()
    assert set(seen) == set(names.values())
    for step, tensor in seen.items():
        assert_close(found[f"layers.1.{step}"], tensor)


def test_a_turned_pair_keeps_its_length_and_scores_depend_on_distance():
    turns = rotations(9, torch.tensor([1.0, 0.1]))
    q, k = torch.randn(1, 1, 4).expand(1, 9, 4), torch.randn(1, 1, 4).expand(1, 9, 4)
    turned_q, turned_k = turn(q, turns), turn(k, turns)
    assert_close(turned_q.norm(dim=-1), q.norm(dim=-1))
    scores = turned_q[0] @ turned_k[0].T
    assert_close(scores[5, 3], scores[8, 6])
    assert not torch.isclose(scores[5, 3], scores[5, 2])


def test_what_it_refuses(tmp_path):
    model = load_model("tiny", dtype="float32")
    with pytest.raises(UsageError, match="no token"):
        forward_by_hand(model, [])
    with pytest.raises(UsageError, match="walk is Llama's"):
        forward_by_hand(torch.nn.Linear(2, 2), [1])


def test_walk_as_typed(capsys):
    assert main(["models", "walk", "tiny", "--prompt", "Once upon a time", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    count = len(found["ids"])
    assert found["difference"] < 1e-3
    assert found["tensors"]["layers.0.scores"]["shape"] == [4, count, count]
    assert found["tensors"]["layers.0.k"]["shape"] == [2, count, 32]
    assert "layers.1.scores" not in found["tensors"]
    assert found["next"][0]["probability"] >= found["next"][1]["probability"]
    assert main(["models", "walk", "tiny", "--layer", "-1"]) == 0
    assert "layers.3.output" in capsys.readouterr().out
    assert main(["models", "walk", "tiny", "--layer", "9"]) == 2
    assert "from 0 to 3" in capsys.readouterr().err
