"""GLM-130B and ChatGLM-6B: prompts with marks, padded, packed, with several blanks, and the released config."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.testing import assert_close

from groundup.base.errors import CheckpointError, UsageError
from groundup.layers.blank_infilling import blank_infilling
from groundup.models.catalogue import config_from_hf, config_of_size
from groundup.models.hub import load_model

FOLDER = Path(__file__).parents[1] / "data" / "reference"
START, MASK, END_MASK = 60, 62, 63
RELEASED = """{"_name_or_path": "THUDM/chatglm-6b", "architectures": ["ChatGLMModel"], "bos_token_id": 130004,
    "eos_token_id": 130005, "mask_token_id": 130000, "gmask_token_id": 130001, "pad_token_id": 3,
    "hidden_size": 4096, "inner_hidden_size": 16384, "layernorm_epsilon": 1e-05, "max_sequence_length": 2048,
    "model_type": "chatglm", "num_attention_heads": 32, "num_layers": 28, "position_encoding_2d": true,
    "torch_dtype": "float16", "transformers_version": "4.23.1", "use_cache": true, "vocab_size": 130528}"""


@pytest.fixture(params=["glm_2021", "glm_130b", "chatglm_6b"])
def case(request):
    """(a tiny model, ids with marks, the authors' logits)"""
    folder = FOLDER / request.param
    values = load_file(folder / "values.safetensors")
    return load_model(folder / "weights.safetensors"), values["ids"], values["logits"]


def test_left_padded_prompts_equal_each_alone(case):
    model, ids, logits = case
    lengths = (14, 12, 9)
    rows = torch.zeros(3, 14, dtype=torch.int64)
    for row, n in enumerate(lengths):
        rows[row, -n:] = ids[row, :n]
    documents = torch.stack([(torch.arange(14) >= 14 - n).long() for n in lengths])
    state = model.make_state(3, 20)
    with torch.no_grad():
        plain, prefilled = model(rows, documents=documents), model(rows, documents=documents, state=state)
        step = torch.tensor([[5], [6], [7]])
        stepped = model(step, state=state)
        for row, n in enumerate(lengths):
            alone = model(torch.cat((ids[row : row + 1, :n], step[row : row + 1]), 1))[0]
            assert_close(plain[row, -n:], model(ids[row : row + 1, :n])[0])
            assert_close(prefilled[row, -n:], plain[row, -n:])
            assert_close(stepped[row], alone[-1:])
    assert_close(plain[0], logits[0])


def test_packed_prompts_have_their_own_marks(case):
    model, ids, logits = case
    packed = torch.cat((ids[0], ids[1], ids[2]))[None]
    documents = torch.tensor([[1] * 14 + [2] * 14 + [3] * 14])
    with torch.no_grad():
        assert_close(model(packed, documents=documents)[0], logits[:3].flatten(0, 1))


def test_prompts_are_seen_in_both_directions_and_answers_from_left_to_right(case):
    model, ids, logits = case
    with torch.no_grad():
        changed = ids.clone()
        changed[:, 2] = (changed[:, 2] + 1) % 50 + 4  # in all prompts
        assert ((model(changed) - logits).abs().amax(-1) > 1e-4).all()
        changed = ids.clone()
        changed[:, 11] = (changed[:, 11] + 1) % 50 + 4  # in all answers
        assert_close(model(changed)[:, :11], logits[:, :11])


def test_masks_mean_nothing_without_a_start(case):
    model, ids, _ = case
    text = torch.where(ids == START, 5, ids)[:3]
    plain = torch.where(text == MASK, 6, torch.where(text == END_MASK, 7, text))
    with torch.no_grad():
        before = 3  # the first mask of all rows stands here or later
        assert_close(model(text)[:, :before], model(plain)[:, :before])
        later = model(text[:, :5])
        assert_close(model(text)[:, :5], later)  # from left to right


def test_several_blanks_with_positions_of_their_own():
    """A text with two blanks, as GLM is trained: the marked form of one blank is a case of it."""
    folder = FOLDER / "chatglm_6b"
    model, ids = load_model(folder / "weights.safetensors"), load_file(folder / "values.safetensors")["ids"][2, :7]
    text = [*ids[:3].tolist(), 20, 21, 22, *ids[4:7].tolist()]
    one = blank_infilling(text, [(3, 6)], mask=MASK, start=START, end=61)
    two = blank_infilling(text, [(3, 6), (7, 8)], mask=MASK, start=START, end=61)
    with torch.no_grad():
        assert_close(model(one.ids[None], positions=one.positions[None]), model(one.ids[None]))
        out = model(two.ids[None], positions=two.positions[None])[0]
        changed = two.ids.clone()
        changed[two.part_a + 1] = 30  # in the first span: the prompt does not see it, the second span does
        again = model(changed[None], positions=two.positions[None])[0]
    assert_close(again[: two.part_a + 1], out[: two.part_a + 1])
    assert ((again - out).abs().amax(-1) > 1e-4)[two.part_a + 1 :].all()


def test_the_released_config_is_the_published_size():
    values = json.loads(RELEASED)
    config = config_from_hf(values)
    assert config.family() == "chatglm_6b"
    assert config.model_dump(exclude={"kept"}) == config_of_size("chatglm-6b").model_dump(exclude={"kept"})
    assert {key: config.to_hf().get(key) for key in values} | {"torch_dtype": "float16"} == values
    assert config_from_hf(config.to_hf()) == config
    with pytest.raises(CheckpointError, match="quantization_bit 8"):
        config_from_hf(values | {"quantization_bit": 8})


def test_what_we_save_has_the_names_and_tensors_of_the_release(case, tmp_path):
    model, _, _ = case
    prefix = model.weight_map(model.config).prefix  # the release of 2021 leaves it out
    stored = load_file(FOLDER / model.config.family() / "weights.safetensors")
    theirs = {prefix + name: tensor for name, tensor in stored.items()}
    model.save_pretrained(tmp_path)
    ours = load_file(tmp_path / "model.safetensors")
    left_out = {name for name in theirs if name.endswith("inv_freq") or name == "lm_head.weight"}
    assert set(theirs) - left_out == set(ours)
    for name, tensor in ours.items():
        assert torch.equal(tensor, theirs[name]), name
    assert type(load_model(tmp_path)) is type(model)


# -- GLM of 2021 -------------------------------------------------------------------------------------------------------

# As in the public copy github.com/sunzeyeah/RLHF of the page THUDM/glm-large-chinese, without `auto_map` and the name.
RELEASED_2021 = """{"architectures": ["GLMModel"], "attention_dropout_prob": 0.1, "attention_scale": 1.0,
    "block_position_encoding": true, "checkpoint_activations": false, "checkpoint_num_layers": 1,
    "embedding_dropout_prob": 0.1, "hidden_size": 1024, "initializer_range": 0.02, "max_sequence_length": 1024,
    "model_type": "glm", "num_attention_heads": 16, "num_layers": 24, "output_dropout_prob": 0.1,
    "output_predict": true, "parallel_output": true, "pool_token": "cls", "relative_encoding": false,
    "spell_func": "lstm", "spell_length": null, "torch_dtype": "float32", "vocab_size": 50048,
    "pad_token_id": 50000}"""


@pytest.mark.row("LM-20", reference="the released config.json")
def test_the_released_config_of_2021_is_the_published_size():
    values = json.loads(RELEASED_2021)
    config = config_from_hf(values)
    assert config.family() == "glm_2021"
    assert config.model_dump(exclude={"kept"}) == config_of_size("glm-large-chinese").model_dump(exclude={"kept"})
    assert config.masks == (50003, 50008, 50009)
    assert {key: config.to_hf().get(key) for key in values} | {"torch_dtype": "float32"} == values
    assert config_from_hf(config.to_hf()) == config
    assert config_from_hf(json.loads('{"model_type": "glm", "hidden_size": 4096}')).family() == "glm"  # GLM-4
    for wrong, message in (
        ({"relative_encoding": True}, "relative_encoding of a GLM can only be False, not True"),
        ({"block_position_encoding": False}, "can only be True, not False"),
        ({"vocab_size": 999}, "vocabulary of 999 does not tell the ids of its marks"),
        ({"num_attention_heads": 15}, "hidden_size .1024. must be a multiple of num_attention_heads .15."),
    ):
        with pytest.raises(Exception, match=message):
            config_from_hf(values | wrong)


@pytest.mark.row("LM-20", reference="the authors' code")
def test_positions_of_2021_are_those_of_the_authors():
    folder = FOLDER / "glm_2021"
    model, values = load_model(folder / "weights.safetensors"), load_file(folder / "values.safetensors")
    ids, found = values["ids"], []
    embed = model.embed.forward
    model.embed.forward = lambda x, context: found.append(context) or embed(x, context)
    with torch.no_grad():
        model(ids)
    assert torch.equal(found[0].positions, values["positions"])
    assert found[0].segments.argmax(1).tolist() == [6, 9, 7, 6]  # where [START] stands


def test_a_position_beyond_the_tables_is_refused():
    model = load_model(FOLDER / "glm_2021" / "weights.safetensors")
    long = torch.full((1, 42), 5)
    with torch.no_grad():
        model(torch.cat((torch.tensor([[5] * 30 + [END_MASK, START]]), long[:, :38]), 1))  # 31 and 39 places
        with pytest.raises(UsageError, match="position 42, but this model has learned those below 41"):
            model(long)
