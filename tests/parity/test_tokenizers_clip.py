"""CLIP's vocab.json + merges.txt against transformers' CLIPTokenizerFast, built from the same files."""

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import CLIPTokenizerFast  # pyright: ignore[reportAttributeAccessIssue]

from groundup.base.errors import CheckpointError
from groundup.tokenizers.hub import load_tokenizer
from nasty_corpus import nasty_lines
from tokenizer_stacks import clip as trained

HARD = [
    "A Photo of a CAT's  eyes,\tand\n dogs' 1234 ... don't I'LL WE'VE",
    "Größe e\u0301 ÉCOLE İstanbul ΟΔΥΣΣΕΥΣ 中文 🙂 ½",
    "a_b __init__ 's </w> x</w>",
    "<|startoftext|> a cat <|endoftext|>",
    "",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    model = json.loads(trained().to_str())["model"]
    folder = tmp_path_factory.mktemp("clip")
    (folder / "vocab.json").write_text(json.dumps(model["vocab"]))
    merges = [" ".join(pair) for pair in model["merges"]]
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "CLIPTokenizer"}))
    return folder


@pytest.fixture(scope="module")
def both(folder):
    vocab = json.loads((folder / "vocab.json").read_text())
    merges = [tuple(line.split(" ")) for line in (folder / "merges.txt").read_text(encoding="utf-8").split("\n")[1:-1]]
    return load_tokenizer(folder), CLIPTokenizerFast(vocab=vocab, merges=merges)


def same(both, text):
    ours, theirs = both
    ids = theirs(text, add_special_tokens=False)["input_ids"]
    assert ours.encode(text, allowed_special=True) == ids, text
    assert ours.encode_with_special(text, allowed_special=True).ids == theirs(text)["input_ids"]
    for skip in (False, True):
        assert ours.decode(ids, skip_special=skip) == theirs.decode(ids, skip_special_tokens=skip), text


@pytest.mark.row("TOK-08", reference="transformers")
def test_equals_transformers(both, shared, tmp_path):
    lines = [*HARD, *nasty_lines(shared)[:400]]
    for text in lines:
        same(both, text)
    ours, theirs = both
    assert (ours.bos_id, ours.eos_id, ours.pad_id) == (theirs.bos_token_id, theirs.eos_token_id, theirs.pad_token_id)
    ours.save_pretrained(tmp_path)
    back = load_tokenizer(tmp_path)
    assert back.fingerprint() == ours.fingerprint()
    assert all(back.encode(text) == ours.encode(text) for text in lines)


@pytest.mark.row("TOK-08", reference="transformers")
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))  # type: ignore[arg-type]
@given(text=st.text(st.characters(exclude_categories=("Cs", "Cn", "Co")), max_size=30))
def test_equals_transformers_on_any_text(both, text):
    same(both, text)


def test_control_tokens_are_plain_text_unless_asked(both):
    ours, _ = both
    assert not set(ours.encode("<|endoftext|> cat")) & set(ours.special_tokens.values())


def test_wrong_files(folder, tmp_path):
    for name in ("vocab.json", "merges.txt", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    vocab = json.loads((folder / "vocab.json").read_text())
    (tmp_path / "vocab.json").write_text(json.dumps({t: n for t, n in vocab.items() if t != "<|startoftext|>"}))
    with pytest.raises(CheckpointError, match=r"<\|startoftext\|>.* is not in the vocabulary"):
        load_tokenizer(tmp_path)
    (tmp_path / "vocab.json").write_text(json.dumps(vocab))
    (tmp_path / "merges.txt").write_text("#version: 0.2\nqq zz</w>\n")
    with pytest.raises(CheckpointError, match=r"vocab.json: merge 0 .*'qq', which is not in the vocabulary|needs 'qq'"):
        load_tokenizer(tmp_path)
