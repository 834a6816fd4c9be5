"""What a checkpoint's own files say about where texts begin and end is followed."""

import json

import pytest
import torch

from groundup.generation.generate import begins_texts, encode_prompts, end_ids, generate
from groundup.models.configs.llama import LlamaConfig
from groundup.models.hub import build_model, load_model
from groundup.tokenizers.added_tokens import AddedToken
from groundup.tokenizers.characters import Characters
from groundup.tokenizers.hub import load_tokenizer
from groundup.tokenizers.tokenizer import SpecialNames

VOCAB = {"a": 0, "b": 1, "c": 2, "<s>": 3, "</s>": 4}
BYTES = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False, "use_regex": True}


BOTH = SpecialNames("<s>", "</s>")


def template(*single):
    pieces = [{"Sequence": {"id": "A", "type_id": 0}} if p == "A" else {"SpecialToken": {"id": p}} for p in single]
    special = {p: {"id": p, "ids": [VOCAB[p]], "tokens": [p]} for p in single if p != "A"}
    return {"type": "TemplateProcessing", "single": pieces, "pair": [], "special_tokens": special}


def tokenizer(post_processor, names=BOTH):
    added = [AddedToken(id=VOCAB[t], content=t, special=True) for t in ("<s>", "</s>")]
    return Characters(VOCAB, added, names=names, post_processor=post_processor)


@pytest.mark.parametrize(
    ("post_processor", "begins"),
    [
        (None, False),
        (BYTES, False),
        (template("<s>", "A"), True),
        (template("A", "</s>"), False),
        (template("</s>", "A"), False),
        ({"type": "Sequence", "processors": [BYTES, template("<s>", "A")]}, True),
    ],
)
def test_prompts_begin_as_the_tokenizer_says(post_processor, begins):
    tok = tokenizer(post_processor)
    assert begins_texts(tok) is begins
    assert encode_prompts(tok, "ab") == [[3] * begins + [0, 1]]
    assert encode_prompts(tok, "ab", bos=False) == [[0, 1]]
    assert encode_prompts(tok, "ab", bos=True) == [[3, 0, 1]]
    assert encode_prompts(tok, [[0, 1]]) == [[0, 1]]  # ids are taken as they are


def test_the_ends_that_the_folder_names(tmp_path):
    config = LlamaConfig(vocab_size=5, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1)
    build_model(config).save_pretrained(tmp_path)
    tok = tokenizer(None, SpecialNames("<s>", None))
    assert end_ids(load_model(tmp_path), tok) == set()

    values = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(values | {"eos_token_id": 4}))
    assert end_ids(load_model(tmp_path), tok) == {4}

    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": [4, 2, 50256], "temperature": 0.6}))
    model = load_model(tmp_path)
    assert end_ids(model, tok) == {4, 2}
    model.save_pretrained(tmp_path / "again")
    assert end_ids(load_model(tmp_path / "again"), tok) == {4, 2}

    with torch.no_grad():
        model.embed.tokens.weight.fill_(1)
        model.lm_head.weight.zero_()
        model.lm_head.weight[2] = 1
    (found,) = generate(model, tok, "a", temperature=0, max_new_tokens=5)
    assert (found.ids, found.finish_reason) == ([2], "eos")


def test_a_tokenizer_from_files_keeps_what_it_says(tmp_path):
    tokenizer(template("<s>", "A")).save_pretrained(tmp_path)
    assert begins_texts(load_tokenizer(tmp_path))
