"""Tokenizers with more tokens and their models: ids stay, transformers and sentencepiece agree."""

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from groundup.base.errors import UsageError
from groundup.cli import main
from groundup.models.catalogue import model_class
from groundup.models.configs.gpt2 import GPT2Config
from groundup.models.configs.llama import LlamaConfig
from groundup.models.hub import build_model, load_model
from groundup.models.resize import resize_embeddings
from groundup.tokenizers.byte_symbols import to_symbols
from groundup.tokenizers.characters import train_characters
from groundup.tokenizers.extension import add_tokens, merge_vocabularies, next_id
from groundup.tokenizers.hub import load_tokenizer
from groundup.tokenizers.tokenizer import SpecialNames
from groundup.tokenizers.training.byte_bpe import train_byte_bpe
from groundup.tokenizers.trie import Trie
from groundup.tokenizers.words import train_words

QUICK = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
TEXT = "the cat and the hat and the rat, déjà vu " * 20
CHINESE = "今天天气很好。今天我们去公园。天气很好。" * 20


@pytest.fixture(scope="module")
def bpe():
    return train_byte_bpe([TEXT], 270, ["<|endoftext|>"], names=SpecialNames(eos="<|endoftext|>"))


@pytest.mark.row("TOK-19", reference="tokenizers")
@pytest.mark.parametrize("special", [True, False])
def test_new_tokens_as_in_the_library(bpe, tmp_path, special):
    import tokenizers

    bpe.save_pretrained(tmp_path)
    theirs = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    ours = add_tokens(bpe, ["<|tool|>", "cat and"], special=special)
    (theirs.add_special_tokens if special else theirs.add_tokens)(["<|tool|>", "cat and"])
    text = "the cat and<|tool|> the<|endoftext|> hat cat andcat"
    assert ours.encode(text, allowed_special=True) == theirs.encode(text).ids
    assert ours.vocab == theirs.get_vocab()
    assert ours.decode(ours.encode(text)) == text
    assert (270 in ours.encode("<|tool|>")) is not special  # control tokens only where they are allowed
    ours.save_pretrained(tmp_path)
    assert load_tokenizer(tmp_path).fingerprint() == ours.fingerprint()
    # The first one is as it was.
    assert bpe.vocab_size == next_id(bpe) == 270
    assert bpe.encode("<|tool|>", allowed_special=True) == bpe.encode("<|tool|>")
    assert ours.fingerprint() != bpe.fingerprint()


@pytest.mark.row("TOK-19", reference="property: ids of the first stay")
@pytest.mark.parametrize("train", [train_byte_bpe, train_words, train_characters])
def test_merged_vocabularies(train, tmp_path):
    size = [420] if train is train_byte_bpe else []
    first, second = (train([text], *size, ["<|endoftext|>"]) for text in (TEXT, CHINESE))
    merged = merge_vocabularies(first, second)
    assert first.vocab.items() <= merged.vocab.items()
    assert sorted(set(merged.vocab) - set(first.vocab)) == sorted(set(second.vocab) - set(first.vocab))
    assert sorted(merged.vocab.values()) == list(range(merged.vocab_size))
    assert merged.encode(TEXT) == first.encode(TEXT)
    assert len(merged.encode(CHINESE)) == len(second.encode(CHINESE))
    if train is not train_words:
        assert merged.decode(merged.encode(CHINESE)) == CHINESE
    merged.save_pretrained(tmp_path)
    assert load_tokenizer(tmp_path).encode(CHINESE + TEXT) == merged.encode(CHINESE + TEXT)
    with pytest.raises(UsageError, match="nothing that the first does not"):
        merge_vocabularies(first, first)


@pytest.mark.row("TOK-19", reference="property: what the first has stays")
def test_settings_of_the_first_stay(bpe):
    """Named templates, what cuts words, rows that no token has, copies of what was computed before."""
    named = add_tokens(bpe, ["<|a|>"], special=True)
    named.chat_templates = {"tool_use": "T"}
    assert "<|a|>" not in named.decode([270], skip_special=True)
    for made in (
        add_tokens(named, ["<|b|>"], special=True),
        add_tokens(named, ["b|"], special=False),
        merge_vocabularies(named, train_byte_bpe([CHINESE], 300)),
    ):
        assert made.chat_templates == {"tool_use": "T"}
        assert made.special_tokens["<|a|>"] == 270
    further = add_tokens(named, ["<|b|>"], special=True)
    assert further.decode([270, 271, *bpe.encode("a")], skip_special=True) == "a"  # not what was known before
    assert (further.token_bytes(271), further.encode("<|b|>", allowed_special=True)) == (b"<|b|>", [271])

    dashed, other = train_words(["a-b c"], signs="-"), train_words(["d-e f"], signs="-")
    merged = merge_vocabularies(dashed, other)
    assert merged.encode("a-b d-e") == [*dashed.encode("a-b"), merged.id("d"), merged.id("-"), merged.id("e")]

    symbols = {to_symbols(bytes([byte])): byte + 1 for byte in range(256)}
    world = Trie(symbols, size=300)
    longer = merge_vocabularies(world, Trie(symbols | {"ab": 257}, size=400))
    assert (world.vocab_size, longer.vocab_size, longer.encode("abb")) == (300, 300, [257, 99])
    assert add_tokens(world, ["<|x|>"], special=True).vocab_size == 300


@pytest.mark.row("TOK-19", reference="property: text never becomes a control token")
def test_merges_of_the_second_make_no_control_token_of_the_first():
    first, second = train_byte_bpe(["hello world"], 262, ["stop"]), train_byte_bpe(["stop stop stop stop"], 300)
    assert second.encode("stop") == [second.id("stop")]
    merged = merge_vocabularies(first, second)
    assert 0 not in merged.encode("stop stopstop")
    assert merged.encode("stop", allowed_special=True) == [0]
    assert merged.decode(merged.encode("stop stopstop")) == "stop stopstop"


@pytest.mark.row("TOK-19", reference="sentencepiece")
@pytest.mark.parametrize("text", [TEXT, CHINESE, "今天 cat\n\n  <tool> 好<tool>", "", "x" * 50])
def test_chinese_pieces_for_llama(shared, tmp_path_factory, text):
    """Chinese-LLaMA: pieces of a second SentencePiece vocabulary behind Llama's 32,000."""
    import sentencepiece

    folder = tmp_path_factory.mktemp("sp")
    (folder / "c.txt").write_text("\n".join([CHINESE] * 3), encoding="utf-8")
    sentencepiece.SentencePieceTrainer.train(
        input=str(folder / "c.txt"), model_prefix=str(folder / "c"), vocab_size=34, model_type="bpe",
        character_coverage=1.0, minloglevel=2,
    )  # fmt: skip
    llama, chinese = load_tokenizer(shared / "tokenizers" / "llama2.model"), load_tokenizer(folder / "c.model")
    merged = add_tokens(merge_vocabularies(llama, chinese), ["<tool>"], special=False)
    from groundup.tokenizers.formats import sentencepiece_model

    sentencepiece_model.write(merged, folder / "merged.model")
    theirs = sentencepiece.SentencePieceProcessor(model_file=str(folder / "merged.model"))
    assert theirs.vocab_size() == merged.vocab_size > 32_000
    assert merged.encode(text) == theirs.encode(text)
    assert llama.vocab.items() <= merged.vocab.items()
    if text == CHINESE:
        assert len(merged.encode(text)) < len(llama.encode(text)) / 2
    if text == TEXT:
        assert merged.encode(text) == llama.encode(text)


@pytest.mark.parametrize(
    ("tokens", "message"),
    [(["a", "a"], "different"), ([""], "not empty"), (["<|endoftext|>"], "already"), (["Ġthe"], "already")],
)
def test_wrong_new_tokens(bpe, tokens, message):
    with pytest.raises(UsageError, match=message):
        add_tokens(bpe, tokens, special=True)


def test_kinds_that_do_not_merge(bpe):
    with pytest.raises(UsageError, match="two of one kind"):
        merge_vocabularies(bpe, train_characters([TEXT]))


CONFIGS = {
    "gpt2": GPT2Config(
        vocab_size=300, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, max_position_embeddings=64
    ),
    "llama": LlamaConfig(
        vocab_size=300, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2,
        intermediate_size=48, max_position_embeddings=64, tie_word_embeddings=False,
    ),
    "llama, tied": LlamaConfig(
        vocab_size=300, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2,
        intermediate_size=48, max_position_embeddings=64, tie_word_embeddings=True,
    ),
}  # fmt: skip


@pytest.mark.row("TOK-19", reference="transformers")
@pytest.mark.parametrize("name", CONFIGS)
def test_resized_model_in_transformers(name, tmp_path):
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    model = build_model(CONFIGS[name]).eval()
    ids = torch.randint(300, (2, 12))
    before = model(ids)
    rows = model.embed.weight.detach().clone()
    resize_embeddings(model, 307)
    after = model(ids)
    assert after.shape == (2, 12, 307)
    torch.testing.assert_close(after[..., :300], before)
    torch.testing.assert_close(after[..., 300:], before.mean(-1, keepdim=True).expand(2, 12, 7), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(model.embed.weight[300:], rows.mean(0).expand(7, -1))
    assert (model.lm_head.weight is model.embed.weight) == CONFIGS[name].tie_word_embeddings
    assert model.config.vocab_size == 307
    model.save_pretrained(tmp_path)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert theirs.config.vocab_size == 307
    new = torch.cat([ids, torch.arange(300, 307)[None].expand(2, -1)], dim=1)
    with torch.no_grad():
        torch.testing.assert_close(theirs(new).logits, model(new))
        torch.testing.assert_close(load_model(tmp_path)(new), model(new))
        torch.testing.assert_close(theirs(ids).logits[..., :300], before)
    assert isinstance(load_model(tmp_path), model_class(model.config))


@pytest.mark.row("TOK-19", reference="property: a new token takes at most 1 / (n + 1)")
@QUICK
@given(st.integers(0, 100))
def test_new_tokens_take_little(seed):
    torch.manual_seed(seed)
    model = build_model(CONFIGS["llama"])
    torch.nn.init.normal_(model.lm_head.weight, std=3.0)
    resize_embeddings(model, 301)
    probability = model(torch.randint(300, (1, 5))).softmax(-1)
    assert probability[..., 300].max() <= 1 / 301 + 1e-6


def test_rows_that_were_never_learned_begin_anew():
    model = build_model(CONFIGS["llama"])
    rows = model.embed.weight.detach().clone()
    resize_embeddings(model, 300, learned=290)
    torch.testing.assert_close(model.embed.weight[290:], rows[:290].mean(0).expand(10, -1))
    torch.testing.assert_close(model.embed.weight[:290], rows[:290])
    resize_embeddings(model, 302, learned=400)  # all of them
    torch.testing.assert_close(model.embed.weight[300:], model.embed.weight[:300].mean(0).expand(2, -1))
    with pytest.raises(UsageError, match="ids of a trained model stay"):
        resize_embeddings(model, 299)


@pytest.mark.row("TOK-19", reference="property: the mean of the logits")
def test_a_head_with_a_bias_grows_too():
    torch.manual_seed(0)
    model = build_model(CONFIGS["llama"])
    model.lm_head = torch.nn.Linear(32, 300)
    ids = torch.randint(300, (2, 5))
    before = model(ids)
    resize_embeddings(model, 303)
    assert (model.lm_head.out_features, model.embed.tokens.num_embeddings) == (303, 303)
    after = model(ids)
    torch.testing.assert_close(after[..., :300], before)
    torch.testing.assert_close(after[..., 300:], before.mean(-1, keepdim=True).expand(2, 5, 3), rtol=1e-4, atol=1e-5)


@pytest.mark.row("TOK-19", reference="transformers")
def test_command_extends_tokenizer_and_model(bpe, tmp_path, capsys):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.manual_seed(0)
    model = build_model(CONFIGS["llama"].model_copy(update={"vocab_size": 270})).eval()
    bpe.save_pretrained(tmp_path / "old")
    model.save_pretrained(tmp_path / "old")
    words = ["tokenizer", "extend", str(tmp_path / "old"), "--model", str(tmp_path / "old"), "--special", "<|tool|>"]
    assert main([*words, "--plain", "zebra", "--out-dir", str(tmp_path / "new")]) == 0
    assert "2 new tokens: 270 -> 272 ids" in capsys.readouterr().out
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "new")
    ids = tokenizer("the zebra<|tool|>")["input_ids"]
    assert {270, 271} <= set(ids)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "new")
    old = torch.tensor([bpe.encode("the cat")])
    with torch.no_grad():
        torch.testing.assert_close(theirs(old).logits[..., :270], model(old))
    assert main([*words, "--out-dir", str(tmp_path / "new")]) == 1  # a folder that is there is left alone
    assert main([*words[:3], "--out-dir", str(tmp_path / "other")]) == 2  # nothing to add
    assert not (tmp_path / "other").exists()
