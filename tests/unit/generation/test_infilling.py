"""Infilling: the prompt as Code Llama's own code builds it on SentencePiece, and the way to the text."""

import json

import pytest
import torch

from groundup.base.errors import UsageError
from groundup.cli import main
from groundup.generation.infilling import infill, infilling_prompt
from groundup.models.configs.llama import LlamaConfig
from groundup.models.hub import build_model
from groundup.tokenizers.extension import add_tokens
from groundup.tokenizers.hub import load_tokenizer
from standin import Bytes

MARKS = ["▁<PRE>", "▁<SUF>", "▁<MID>", "▁<EOT>"]
GAPS = [
    ("def f(x):\n    return ", "\n\nprint(f(2))"),
    ("", " = 3"),
    ("x = [", "]"),
    ("a b", ""),
    ("return self", "<|endoftext|> é"),
]


@pytest.fixture(scope="module")
def code_llama(shared):
    return add_tokens(load_tokenizer(shared / "tokenizers/llama2.model"), MARKS, special=True)


@pytest.mark.row("LM-27", reference="sentencepiece, by the code of Roziere et al. 2023")
@pytest.mark.parametrize("suffix_first", [False, True], ids=["PSM", "SPM"])
@pytest.mark.parametrize(("prefix", "suffix"), GAPS)
def test_prompts_are_those_of_code_llama(code_llama, shared, prefix, suffix, suffix_first):
    sentencepiece = pytest.importorskip("sentencepiece")
    theirs = sentencepiece.SentencePieceProcessor(str(shared / "tokenizers/llama2.model"))
    pre, suf, mid, _ = (code_llama.vocab[mark] for mark in MARKS)
    assert pre == theirs.vocab_size()
    before, after = theirs.encode(prefix), theirs.encode("☺" + suffix)[2:]  # its encode_infilling
    wanted = [1, pre, suf, *after, mid, *before] if suffix_first else [1, pre, *before, suf, *after, mid]
    assert infilling_prompt(code_llama, prefix, suffix, suffix_first=suffix_first) == wanted


class FimBytes(Bytes):
    """Bytes, and StarCoder's marks."""

    def __init__(self):
        super().__init__()
        self.vocab = {name: 250 + i for i, name in enumerate(("<fim_prefix>", "<fim_suffix>", "<fim_middle>"))}
        self.kind = "bytes"


def test_a_tokenizer_without_marks_is_refused():
    tokenizer = FimBytes()
    tokenizer.vocab = {}
    with pytest.raises(UsageError, match="no tokens for infilling"):
        infilling_prompt(tokenizer, "a", "b")


def test_byte_tokenizers_encode_the_suffix_as_it_is():
    assert infilling_prompt(FimBytes(), "ab", "c") == [250, *b"ab", 251, *b"c", 252]
    assert infilling_prompt(FimBytes(), "ab", "c", suffix_first=True) == [250, 251, *b"c", 252, *b"ab"]


def tiny(vocab_size, **changes):
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2}
    return build_model(LlamaConfig(vocab_size=vocab_size, max_position_embeddings=64, **shape, **changes)).eval()


def test_the_middle_ends_at_its_mark(code_llama):
    """A model whose head says one thing: first x, then the mark of the end."""
    model = tiny(code_llama.vocab_size)
    x, end = code_llama.encode("x")[-1], code_llama.vocab["▁<EOT>"]

    def forward(ids, **_):
        wanted = x if len(seen) < 2 else end
        seen.append(wanted)
        logits = torch.zeros(ids.shape[0], code_llama.vocab_size)
        logits[:, wanted] = 9.0
        return logits

    seen: list[int] = []
    model.forward = forward
    (filled,) = infill(model, code_llama, ("a = ", "\n"), temperature=0, max_new_tokens=9)
    assert filled.finish_reason == "stop"
    assert filled.ids == [x, x, end]


def test_fillings_are_what_generate_gives_after_the_prompt():
    from groundup.generation.generate import generate

    model, tokenizer = tiny(258), FimBytes()
    found = infill(model, tokenizer, [("ab", "c"), ("x", "")], max_new_tokens=5, samples=2, logprobs=True)
    prompts = [infilling_prompt(tokenizer, "ab", "c"), infilling_prompt(tokenizer, "x", "")]
    assert found == generate(model, tokenizer, prompts, max_new_tokens=5, samples=2, logprobs=True)


def test_the_command_fills_a_gap(code_llama, tmp_path, capsys):
    tiny(code_llama.vocab_size).save_pretrained(tmp_path)
    code_llama.save_pretrained(tmp_path)
    command = ["generate", str(tmp_path), "a = ", "--suffix", "\n", "--temperature", "0", "--max-new-tokens", "3"]
    assert main([*command, "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)["completions"]
    prompt = infilling_prompt(load_tokenizer(tmp_path), "a = ", "\n")
    assert (found["prompt"], found["suffix"], found["prompt_tokens"]) == ("a = ", "\n", len(prompt))
    assert main([*command, "--suffix-first"]) == 0
    assert capsys.readouterr().out.startswith("a = ")
