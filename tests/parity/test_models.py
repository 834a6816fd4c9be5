"""Every family against transformers: tiny random checkpoints, through files on disk, in both directions.

A family takes part by its file in `tests/families/`; how it behaves by itself is in `test_conformance.py`.
"""

import json

import pytest
import torch
import torch.nn.functional as F
import transformers as tf
from safetensors.torch import load_file
from torch.testing import assert_close

from families import CASES, REFERENCES
from families.tiny import Pair, ids, make_pair, with_rows
from groundup.estimates.params import count_parameters
from groundup.models.catalogue import FAMILIES, config_from_hf, config_of_size, family, model_class
from groundup.models.hub import load_model

PUBLISHED = {name: reference for reference in REFERENCES.values() for name in reference.parameters}
RELEASED = {name: reference for reference in REFERENCES.values() for name in reference.released}
THEIRS = [name for name, reference in CASES.items() if name in reference.cases]


@pytest.fixture(params=with_rows(THEIRS, CASES, "transformers"))
def pair(request, tmp_path) -> Pair:
    """The same weights in both libraries; ours were read from the files that theirs wrote."""
    return make_pair(request.param, tmp_path)


def test_logits_are_equal(pair):
    theirs, ours, _, reference = pair
    with torch.no_grad():
        assert_close(ours(ids()), theirs(ids()).logits, **reference.tolerance)


@pytest.mark.row("LAY-48", reference="transformers")
def test_gradients_are_equal(pair):
    theirs, ours, folder, reference = pair
    x = ids()
    for logits in (ours(x), theirs(x).logits):
        F.cross_entropy(logits[:, :-1].flatten(0, 1), x[:, 1:].flatten()).backward()
    parameters = dict(ours.named_parameters())
    mine = {name: parameters[name].grad if name in parameters else t for name, t in ours.state_dict().items()}
    if ours.config.tie_word_embeddings:
        mine.pop("lm_head.weight")
    renamed = dict(ours.weight_map(ours.config).save(mine, mine.__getitem__))
    for parameter in theirs.parameters():  # their file tells how a gradient is called, and laid out, on disk
        parameter.data = parameter.grad
    theirs.save_pretrained(folder / "gradients")
    expected = load_file(folder / "gradients/model.safetensors")
    assert set(renamed) == set(expected)
    for name, gradient in renamed.items():
        assert_close(gradient, expected[name], **reference.tolerance, msg=lambda m, name=name: f"{name}: {m}")


@pytest.mark.row("LAY-34", reference="transformers")
def test_prefill_in_chunks_then_steps_equal_one_pass(pair):
    theirs, ours, _, reference = pair
    x, state = ids(), ours.make_state(batch=2, max_len=12)
    with torch.no_grad():
        parts = [ours(x[:, :4], state=state), ours(x[:, 4:7], state=state)]
        parts += [ours(x[:, t : t + 1], state=state) for t in range(7, 12)]
        assert_close(torch.cat(parts, dim=1), theirs(x).logits, **reference.tolerance)
    assert state.lengths.tolist() == [12, 12]


@pytest.mark.row("LAY-34", reference="transformers")
def test_left_padded_rows_equal_transformers_and_each_row_alone(pair):
    theirs, ours, _, reference = pair
    x, lengths = ids(rows=3), (12, 7, 3)
    documents = torch.stack([(torch.arange(12) >= 12 - n).long() for n in lengths])
    state = ours.make_state(3, 20)
    positions = (documents.cumsum(1) - 1).clamp(min=0)
    with torch.no_grad():
        plain, prefilled = ours(x, documents=documents), ours(x, documents=documents, state=state)
        if reference.masks:
            counted = {"position_ids": positions} if reference.takes_positions else {}
            expected = theirs(x, attention_mask=documents, **counted).logits
        else:
            alone = [theirs(x[row : row + 1, -n:]).logits for row, n in enumerate(lengths)]
            expected = torch.cat([F.pad(logits, (0, 0, 12 - logits.shape[1], 0)) for logits in alone])
        step = ids(rows=3, length=1, seed=2)
        stepped = ours(step, state=state)
        for row, n in enumerate(lengths):
            assert_close(plain[row, -n:], expected[row, -n:], **reference.tolerance)
            assert_close(prefilled[row, -n:], expected[row, -n:], **reference.tolerance)
            alone = torch.cat((x[row : row + 1, -n:], step[row : row + 1]), dim=1)
            assert_close(ours(alone)[:, :n], plain[row : row + 1, -n:])
            assert_close(stepped[row], ours(alone)[0, -1:])
    assert state.lengths.tolist() == [13, 8, 4]


@pytest.mark.row("DAT-03", reference="transformers")
def test_packed_documents_do_not_see_each_other(pair):
    theirs, ours, _, reference = pair
    x = ids(rows=1)
    documents = torch.tensor([[1] * 5 + [2] * 4 + [0] * 3])
    with torch.no_grad():
        packed = ours(x, documents=documents)
        assert_close(packed[:, :5], theirs(x[:, :5]).logits, **reference.tolerance)
        assert_close(packed[:, 5:9], theirs(x[:, 5:9]).logits, **reference.tolerance)


@pytest.mark.row("LM-51", reference="transformers")
def test_what_we_save_transformers_loads_with_equal_logits(pair):
    theirs, ours, folder, _ = pair
    ours.save_pretrained(folder / "ours")
    again = tf.AutoModelForCausalLM.from_pretrained(folder / "ours", dtype=torch.float32).eval()
    with torch.no_grad():
        assert torch.equal(again(ids()).logits, theirs(ids()).logits)
    assert type(again) is type(theirs)
    back = load_model(folder / "ours")
    for name, tensor in ours.state_dict().items():
        assert torch.equal(back.state_dict()[name], tensor), name


@pytest.mark.row("LM-51", reference="transformers")
def test_sharded_checkpoints_go_both_ways(pair):
    from groundup.models.hub import save_model

    theirs, ours, folder, _ = pair
    theirs.save_pretrained(folder / "sharded", max_shard_size="20KB")
    assert (folder / "sharded/model.safetensors.index.json").exists()
    again = load_model(folder / "sharded")
    save_model(ours, folder / "mine", max_shard_bytes=20_000)
    assert (folder / "mine/model.safetensors.index.json").exists()
    reloaded = tf.AutoModelForCausalLM.from_pretrained(folder / "mine", dtype=torch.float32).eval()
    with torch.no_grad():
        assert torch.equal(again(ids()), ours(ids()))
        assert torch.equal(reloaded(ids()).logits, theirs(ids()).logits)


def test_older_spellings_of_the_config_load_alike(pair):
    _, ours, folder, reference = pair
    path = folder / "theirs/config.json"
    config = json.loads(path.read_text())
    config["torch_dtype"] = config.pop("dtype")
    rope = config.pop("rope_parameters", None)
    if rope is not None and "full_attention" in rope and reference.local_theta is None:
        config["rope_parameters"], rope = rope, None
    if rope is not None and "full_attention" in rope:  # one theta stood beside another
        config[reference.local_theta] = rope["sliding_attention"]["rope_theta"]
        rope = rope["full_attention"]
    if rope is not None:
        on_top = {"rope_theta", "partial_rotary_factor"} & set(rope)
        config |= {reference.older.get(key, key): rope.pop(key) for key in sorted(on_top)}
        if rope.get("rope_type") != "default":
            config["rope_scaling"] = rope
    path.write_text(json.dumps(config))
    with torch.no_grad():
        assert torch.equal(load_model(folder / "theirs")(ids()), ours(ids()))


def said(config, key):
    """What a config of transformers says; where its layers differ, as it is written."""
    written = config.to_dict()
    return written[key] if "per_layer_config" in written else getattr(config, key)


def without_older_words(value):
    """transformers keeps `type` beside `rope_type`, and what a file says although it is the usual value."""
    if isinstance(value, dict) and "full_attention" in value:
        return {kind: without_older_words(rope) for kind, rope in value.items()}
    if not isinstance(value, dict) or "rope_type" not in value:
        return value
    usual = {"beta_fast": 32, "beta_slow": 1, "type": value["rope_type"]}
    return {k: v for k, v in value.items() if usual.get(k) != v}


@pytest.mark.parametrize("name", RELEASED)
def test_released_configs_of_their_time(name):
    """config.json in the spelling of its time: transformers reads the same from it and from what we write."""
    values = json.loads(RELEASED[name].released[name])
    ours, theirs = config_from_hf(values), tf.AutoConfig.for_model(**values)
    again = tf.AutoConfig.for_model(**ours.to_hf())
    nothing_computed = {"transformers_version", "dtype", "architectures", "_name_or_path"}
    for key in set(type(theirs)().to_dict()) - nothing_computed:
        assert without_older_words(said(again, key)) == without_older_words(said(theirs, key)), key
    assert config_from_hf(ours.to_hf()).to_hf() == ours.to_hf()
    unused = set(RELEASED[name].unused)
    assert {**ours.to_hf(), **config_of_size(name).model_dump(include=unused)} == {
        **ours.to_hf(),
        **config_of_size(name).to_hf(),
    }


@pytest.mark.parametrize("name", with_rows(PUBLISHED, PUBLISHED, "published, see tests/families"))
def test_published_sizes_have_their_published_parameters(name):
    config, parameters = config_of_size(name), PUBLISHED[name].parameters[name]
    assert count_parameters(config) == parameters
    with torch.device("meta"):
        assert model_class(config)(config).num_parameters() == parameters
    if not PUBLISHED[name].theirs_count:
        return
    hf = tf.AutoConfig.for_model(**(config.to_hf()))
    with torch.device("meta"):
        assert tf.AutoModelForCausalLM.from_config(hf).num_parameters() == parameters


@pytest.mark.parametrize("model_type", FAMILIES)
def test_every_family_has_its_reference_and_every_published_size_its_count(model_type):
    assert model_type in REFERENCES, f"tests/families/{model_type}.py is missing"
    reference = REFERENCES[model_type]
    assert reference.cases or reference.own
    assert set(family(model_type).config.sizes) == {*reference.parameters, *reference.same_parameters}
