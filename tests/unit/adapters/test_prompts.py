"""Prompts and prefixes: how they begin, what they equal, what they refuse."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

import groundup
from families.tiny import ids, make_ours
from groundup.adapters import (
    LoRAConfig,
    PrefixConfig,
    PromptConfig,
    PTuningConfig,
    PTuningV2Config,
    adapters_of,
    add_adapter,
    bake,
)
from groundup.adapters.prefix import plan as prefix_plan
from groundup.base.errors import UsageError
from groundup.layers.attention import Attention
from groundup.layers.attentions.cross import CrossAttention
from groundup.layers.context import Context
from groundup.layers.masks import Bidirectional
from groundup.observe import observe

TEXT = [5, 6, 7]


PUBLISHED = ["gpt2", "llama-grouped", "deepseek-v3", "glm", "chatglm_6b"]
RELATIVE = "parts-shaw"  # vectors of distances: a prefix has none, tokens have


@pytest.fixture(params=[*PUBLISHED, RELATIVE])
def model(request, tmp_path):
    return make_ours(request.param, tmp_path)


@pytest.mark.row("PEFT-06", reference="the same tokens written before the text")
@pytest.mark.row("PEFT-08", reference="the same tokens written before the text")
@pytest.mark.parametrize(
    ("model", "kind"),
    [*((name, kind) for name in PUBLISHED for kind in ("prompt", "prefix")), (RELATIVE, "prompt")],
    indirect=["model"],
)
def test_one_that_begins_as_tokens_equals_those_tokens_before_the_text(model, kind):
    x = ids()
    written = torch.cat((torch.tensor([TEXT, TEXT]), x), dim=1)
    with torch.no_grad():
        wanted = model(written)[:, 3:]
        if kind == "prompt":
            add_adapter(model, PromptConfig(length=3, init="text", ids=TEXT))
        else:
            add_adapter(model, PTuningV2Config(length=3, ids=TEXT))
        assert_close(model(x), wanted)
        positions = model.positions(x.shape[1], None, None, x.device).expand(2, -1)
        if "glm" not in type(model).__name__.lower():
            assert_close(model(x, positions=positions), wanted)
        assert model(x, head=lambda hidden, _: hidden.shape) == (2, 12, 32)


@pytest.mark.row("PEFT-06", reference="the base's own token vectors")
def test_the_initial_values_are_uniform_sampled_text_or_labels(tmp_path):
    model = groundup.load_model("tiny", dtype="float32")
    tokenizer = groundup.load_tokenizer("tiny")
    table = model.embed.tokens.weight.detach()

    def begun(**settings):
        torch.manual_seed(0)
        adapters = add_adapter(model, PromptConfig(**settings))
        vectors = model.prompt["default"].vectors().detach().clone()
        adapters.remove("default")
        return vectors

    uniform = begun(length=50, init="random")
    assert 0.45 < uniform.abs().max() <= 0.5
    assert abs(uniform.std() - 12**-0.5) < 0.01
    sampled = begun(length=6, init="vocabulary")
    assert all((table == row).all(1).any() for row in sampled)
    words = tokenizer.encode("the fox")
    text = begun(length=len(words) + 2, init="text", text="the fox", tokenizer="tiny")
    assert torch.equal(text, table[torch.tensor((words * 3)[: len(words) + 2])])
    labels = begun(length=4, init="labels", labels=["good", "not good"], tokenizer="tiny")
    for row, label in zip(labels, ("good", "not good"), strict=False):
        assert_close(row, table[torch.tensor(tokenizer.encode(label))].mean(0))
    assert all((table == row).all(1).any() for row in labels[2:])
    with pytest.raises(UsageError, match="`tokenizer`"):
        begun(init="text", text="the fox")
    with pytest.raises(UsageError, match="outside"):
        begun(init="text", ids=[10**6])


@pytest.mark.row("PEFT-07", reference="the base's own token vectors")
@pytest.mark.parametrize("encoder", ["lstm", "mlp"])
def test_anchors_stand_between_pseudo_tokens_and_do_not_learn(encoder, tmp_path):
    model = make_ours("gpt2", tmp_path).train()
    add_adapter(model, PTuningConfig(length=5, encoder=encoder, hidden=6, anchors={3: 9, 1: 4}))
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 0.5)
    x, losses = ids(), []
    for _ in range(8):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x)[:, :-1].flatten(0, 1), x[:, 1:].flatten())
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    table, vectors = model.embed.tokens.weight, model.prompt["default"].vectors()
    assert torch.equal(vectors[1], table[4])
    assert torch.equal(vectors[3], table[9])
    assert sum(bool((table == row).all(1).any()) for row in vectors) == 2
    bake(model)
    assert_close(model.prompt["default"].vectors(), vectors)
    assert [name for name, p in model.named_parameters() if p.requires_grad] == ["prompt.default.embedding.weight"]
    for wrong in ({5: 1}, dict.fromkeys(range(5), 1)):
        with pytest.raises(UsageError, match="anchors"):
            add_adapter(model, PTuningConfig(length=5, anchors=wrong), "second")


@pytest.mark.row("PEFT-09", reference="the same prefix through its network")
@pytest.mark.parametrize("model", PUBLISHED, indirect=True)
def test_baking_keeps_the_outputs_and_the_network_goes(model):
    add_adapter(model, PrefixConfig(length=3, hidden=7, dim=5))
    x = ids()
    before = model(x).detach()
    bake(model)
    assert_close(model(x), before)
    assert {n.rpartition(".")[2] for n in adapters_of(model).parameters("default")} == {"key_values"}
    assert not list(model.prompt["default"].parameters())


@pytest.mark.row("PEFT-08", reference="the layers that were named")
def test_p_tuning_v2_of_some_layers_with_a_head_of_its_own(tmp_path):
    model = make_ours("gpt2-untied", tmp_path)
    base = model.lm_head.weight.detach().clone()
    adapters = add_adapter(model, PTuningV2Config(length=2, layers=[1], head=True))
    assert [name for name, p in model.named_parameters() if p.requires_grad] == [
        "blocks.1.attn.core.adapters.default.key_values",
        "lm_head.weight",
    ]
    with torch.no_grad():
        model.lm_head.weight.add_(1.0)
    adapters.remove("default")
    assert torch.equal(model.lm_head.weight, base)
    with pytest.raises(UsageError, match="no attention core in the wanted layers"):
        add_adapter(model, PTuningV2Config(layers=[9]))


class EncoderDecoder(nn.Module):
    """One layer that reads and one that writes. ids (B, S), ids (B, T) -> (B, T, D)"""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(20, 16)
        self.encoder = Attention(16, 4, mask=Bidirectional())
        self.decoder, self.cross = Attention(16, 4), CrossAttention(16, 4, 2)

    def forward(self, source, target, source_documents=None):
        x, y = self.embed(source), self.embed(target)
        place = lambda ids: torch.arange(ids.shape[1])[None]  # noqa: E731
        documents = source_documents
        x = x + self.encoder(x, Context(place(source), documents))
        y = y + self.decoder(y, Context(place(target)))
        return y + self.cross(y, Context(place(target), source=x, source_documents=documents))


@pytest.mark.row("PEFT-09", reference="softmax over keys and values written out")
def test_prefixes_of_encoder_decoder_and_the_attention_between_them():
    torch.manual_seed(0)
    model = EncoderDecoder()
    source, target = torch.randint(20, (2, 5)), torch.randint(20, (2, 4))
    documents = torch.tensor([[1] * 5, [1] * 3 + [0] * 2])
    config = PrefixConfig(length=3, projection=False)
    adapters = adapters_of(model)
    adapters.add("default", config, prefix_plan(model, config, lambda: model(source[:1, :1], target[:1, :1])))
    assert {n.partition(".")[0] for n in adapters.parameters("default")} == {"encoder", "decoder", "cross"}
    with observe(model, ["cross.*_proj", "cross"]) as seen:
        model(source, target, documents)
    q, k, v = (seen[f"cross.{n}_proj"].unflatten(-1, (-1, 4)).transpose(1, 2) for n in "qkv")
    mine, values = model.cross.core.adapters["default"].pair()
    k, v = (torch.cat((a.expand(2, -1, -1, -1), b), 2).repeat_interleave(2, 1) for a, b in ((mine, k), (values, v)))
    hidden = torch.cat((torch.zeros(2, 3), (documents == 0).float()), 1)[:, None, None].bool()
    weights = (q @ k.mT / 2).masked_fill(hidden, -torch.inf).softmax(-1)
    assert_close(seen["cross"], model.cross.o_proj((weights @ v).transpose(1, 2).flatten(2)))
    alone = model(source[1:, :3], target[1:])
    assert_close(model(source, target, documents)[1:], alone)


@pytest.mark.row("PEFT-17", reference="each user alone")
def test_prefixes_of_users_serve_one_batch_of_generation(tmp_path):
    model, tokenizer = groundup.load_model("tiny", dtype="float32"), groundup.load_tokenizer("tiny")
    adapters = adapters_of(model)
    for number, name in enumerate(("ann", "bob", "eve")):
        torch.manual_seed(number)
        add_adapter(model, PTuningV2Config(length=2 + number), name)
    add_adapter(model, PromptConfig(length=4), "task")
    prompt, settings = "Once", {"temperature": 0, "max_new_tokens": 6, "ignore_eos": True}
    names = ["ann", "bob", "eve", "task"]
    with adapters.for_rows(names):
        together = groundup.generate(model, tokenizer, [prompt] * 4, **settings)
    for name, found in zip(names, together, strict=True):
        with adapters.using(name):
            (alone,) = groundup.generate(model, tokenizer, [prompt], **settings)
        assert found.ids == alone.ids
    assert len({tuple(found.ids) for found in together}) > 1
    with adapters.for_rows(["ann", "bob"]), pytest.raises(UsageError, match="chosen for 2 rows, but 3 arrive"):
        model(ids(3))


def test_prompt_prefix_and_lora_act_together_in_either_order_and_come_off(tmp_path):
    model = make_ours("llama-grouped", tmp_path)
    x, base = ids(), make_ours("llama-grouped", tmp_path / "again")(ids())
    adapters = add_adapter(model, PromptConfig(length=2), "p")
    add_adapter(model, PrefixConfig(length=3, hidden=4), "k")
    add_adapter(model, LoRAConfig(rank=2), "low")
    adapters.activate("p", "k", "low")
    state = model.make_state(2, 12)
    with torch.no_grad():
        whole = model(x)
        assert_close(torch.cat((model(x[:, :7], state=state), model(x[:, 7:], state=state)), 1), whole)
        adapters.activate("low", "k", "p")
        assert_close(model(x), whole)
        assert not torch.allclose(whole, base)
    for name in ("k", "p", "low"):
        adapters.remove(name)
    assert model.prompt is None
    assert torch.equal(model(x), base)
    assert not any(".adapters." in name or "prompt" in name for name in model.state_dict())


@pytest.mark.parametrize("config", [PromptConfig(length=5), PTuningV2Config(length=5)], ids=["prompt", "prefix"])
def test_text_and_what_stands_ahead_must_fit_the_context(config, tmp_path):
    from groundup.generation.generate import context_limit

    model = make_ours("gpt2", tmp_path)
    room = model.config.max_position_embeddings
    add_adapter(model, config)
    model(ids(1, room - 5))
    with pytest.raises(UsageError, match="adapters take 5"):
        model(ids(1, room - 4))
    with pytest.raises(UsageError, match="adapters take 5"):
        model(ids(1, room - 4), documents=torch.ones(1, room - 4, dtype=torch.int64))
    assert context_limit(model) == room - 5


def test_settings_that_contradict_each_other_are_refused(tmp_path):
    with pytest.raises(ValueError, match="projection"):
        PrefixConfig(ids=[1, 2])
    model = make_ours("gpt2", tmp_path)
    with pytest.raises(UsageError, match="does not hold 2 tokens"):
        add_adapter(model, PTuningV2Config(length=3, ids=[1, 2]))
    assert adapters_of(model).configs == {}
    assert model.prompt is None


@pytest.mark.parametrize("config", [PTuningConfig(length=3, hidden=6), PrefixConfig(length=3, hidden=6)])
def test_gradients_are_the_same_under_checkpointing_and_reach_through_a_quantized_base(config, tmp_path):
    from groundup.quantization import Int8Config, quantize
    from groundup.training.activation_checkpointing import checkpointed

    model = make_ours("llama-grouped", tmp_path)
    quantize(model, Int8Config())
    add_adapter(model, config)
    learned, x = list(adapters_of(model).parameters("default").values()), ids()
    weight = torch.randn(2, 12, 64, generator=torch.Generator().manual_seed(0))
    gradients = lambda: torch.autograd.grad((model(x) * weight).mean(), learned)  # noqa: E731
    plain = gradients()
    with checkpointed(model):
        again = gradients()
    for a, b in zip(plain, again, strict=True):
        assert a.abs().sum() > 0
        assert_close(a, b)
