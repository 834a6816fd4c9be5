"""(IA)3 against peft: outputs, gradients, counts, merged weights."""

import copy

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch.testing import assert_close

from families.tiny import ids, make_pair
from groundup.adapters import IA3Config, LoRAConfig, add_adapter, load_adapter, save_adapter
from groundup.adapters.merging import merge, merged, unmerge
from groundup.base.errors import UsageError

pytestmark = pytest.mark.row("PEFT-13", reference="peft")

# ours -> theirs, and what stands on the input side
TARGETS = {
    "llama": {"k_proj": "k_proj", "v_proj": "v_proj", "down_proj": "down_proj"},
    "opt": {"k_proj": "k_proj", "v_proj": "v_proj", "down_proj": "fc2"},
}


@pytest.fixture(scope="module", params=TARGETS)
def pair(request, tmp_path_factory):
    """(theirs with (IA)3, ours with the same vectors, our name -> their vector)"""
    import peft

    made = make_pair(request.param, tmp_path_factory.mktemp("ia3"))
    names = TARGETS[request.param]
    config = peft.IA3Config(target_modules=list(names.values()), feedforward_modules=[names["down_proj"]])
    theirs = peft.get_peft_model(made.theirs, config).eval()
    adapters = add_adapter(made.ours, IA3Config())
    vectors = [(n, p) for n, p in theirs.named_parameters() if "ia3_l" in n]
    by_name = {}
    for ours, vector in adapters.parameters("default").items():
        _, i, _, leaf = ours.split(".")[:4]
        [(_, theirs_vector)] = [(n, p) for n, p in vectors if f"layers.{i}." in n and f".{names[leaf]}." in n]
        torch.manual_seed(len(by_name))
        theirs_vector.data.add_(torch.randn_like(theirs_vector) * 0.3)
        vector.data.copy_(theirs_vector)
        by_name[ours] = theirs_vector
    assert len(by_name) == len(vectors)
    return theirs, made.ours, by_name


def test_outputs_and_gradients(pair):
    theirs, ours, vectors = pair
    x = ids()
    wanted, got = theirs(x).logits, ours(x)
    assert_close(got, wanted)
    for logits in (wanted, got):
        F.cross_entropy(logits[:, :-1].flatten(0, 1), x[:, 1:].flatten()).backward()
    for name, vector in ours.adapters.parameters("default").items():
        assert_close(vector.grad, vectors[name].grad, msg=lambda m, name=name: f"{name}: {m}")


def test_the_same_number_of_parameters_learns(pair):
    theirs, ours, _ = pair
    learning = [p for p in ours.parameters() if p.requires_grad]
    assert sum(p.numel() for p in learning) == theirs.get_nb_trainable_parameters()[0]


def test_merged_weights_are_those_of_peft(pair):
    theirs, ours, _ = pair
    wanted = copy.deepcopy(theirs).merge_and_unload()
    base = dict(type(ours).weight_map(ours.config).load(*_tensors(wanted.state_dict(), ours)))
    plain = merged(ours)
    for name, tensor in plain.state_dict().items():
        if name != "lm_head.weight":
            assert_close(tensor, base[name], msg=lambda m, name=name: f"{name}: {m}")
    assert_close(plain(ids()), ours(ids()))
    before = ours(ids())
    own = {name: tensor.clone() for name, tensor in ours.state_dict().items()}
    merge(ours)
    assert_close(ours(ids()), before)
    unmerge(ours)
    assert all(torch.equal(tensor, own[name]) for name, tensor in ours.state_dict().items())


def _tensors(state, ours):
    """Names and getter as files would give them."""
    tied = ours.config.tie_word_embeddings
    state = {name: tensor for name, tensor in state.items() if not (tied and name == "lm_head.weight")}
    return list(state), state.__getitem__


def test_with_lora_it_merges_as_it_acts(tmp_path):
    """What changes the input does so for every part, whichever acts first."""
    for order in (("ia3", "lora"), ("lora", "ia3")):
        model = make_pair("llama", tmp_path / order[0]).ours.double()
        for name, config in (("ia3", IA3Config()), ("lora", LoRAConfig(rank=2))):
            torch.manual_seed(1)
            for parameter in add_adapter(model, config, name).parameters(name).values():
                parameter.data.add_(torch.randn_like(parameter) * 0.3)
        model.adapters.activate(*order)
        assert_close(merged(model)(ids()), model(ids()))
    with pytest.raises(UsageError, match="changes what other adapters read"):
        merge(model, "ia3")


@pytest.mark.parametrize("case", ["llama", "opt", "gpt2"])
def test_files_both_ways(case, tmp_path):
    import peft
    import transformers

    pair = make_pair(case, tmp_path)
    settings = {"gpt2": (["c_attn", "mlp.c_proj"], ["mlp.c_proj"])}.get(case)
    targets, inputs = settings or (list(TARGETS[case].values()), [TARGETS[case]["down_proj"]])
    config = peft.IA3Config(target_modules=targets, feedforward_modules=inputs, task_type="CAUSAL_LM")
    theirs = peft.get_peft_model(pair.theirs, config).eval()
    torch.manual_seed(3)
    for name, parameter in theirs.named_parameters():
        if "ia3_l" in name:
            parameter.data.add_(torch.randn_like(parameter) * 0.3)
    theirs.save_pretrained(tmp_path / "by_peft")
    load_adapter(pair.ours, tmp_path / "by_peft")
    wanted = theirs(ids()).logits
    assert_close(pair.ours(ids()), wanted)
    save_adapter(pair.ours, tmp_path / "by_us")
    base = transformers.AutoModelForCausalLM.from_pretrained(pair.folder / "theirs", dtype=torch.float32)
    assert_close(peft.PeftModel.from_pretrained(base, tmp_path / "by_us").eval()(ids()).logits, wanted)
    written, read = (load_file(tmp_path / d / "adapter_model.safetensors") for d in ("by_us", "by_peft"))
    assert written.keys() == read.keys()
    assert all(torch.equal(written[name], read[name]) for name in read)


def test_of_a_fused_matrix_the_rows_that_nothing_stands_on_have_factors_of_one(tmp_path):
    """GPT-2's c_attn holds q, k and v; only keys and values are scaled here."""
    import peft
    import transformers

    pair = make_pair("gpt2", tmp_path)
    adapters = add_adapter(pair.ours, IA3Config(outputs=["k_proj", "v_proj"], inputs=[]))
    torch.manual_seed(3)
    for vector in adapters.parameters("default").values():
        vector.data.add_(torch.randn_like(vector) * 0.3)
    save_adapter(pair.ours, tmp_path / "by_us")
    base = transformers.AutoModelForCausalLM.from_pretrained(pair.folder / "theirs", dtype=torch.float32)
    there = peft.PeftModel.from_pretrained(base, tmp_path / "by_us").eval()
    assert_close(there(ids()).logits, pair.ours(ids()))


def test_it_begins_as_the_base_and_names_stand_once(tmp_path):
    model = make_pair("llama", tmp_path).ours
    before = model(ids())
    add_adapter(model, IA3Config())
    assert torch.equal(model(ids()), before)
    model.adapters.remove("default")
    with pytest.raises(UsageError, match="for its output and for its input"):
        add_adapter(model, IA3Config(outputs=["k_proj", "down_proj"]))
    with pytest.raises(UsageError, match="c_proj"):
        add_adapter(model, IA3Config(inputs=["c_proj"]))
    assert not model.adapters.configs
