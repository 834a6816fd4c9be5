"""Filling blanks: the prompts, one blank after another, and the way to the text."""

import json

import pytest
import torch

from groundup.base.errors import UsageError
from groundup.cli import main
from groundup.generation.blanks import blank_ids, blank_prompt, fill_blanks, fills_blanks
from groundup.models.configs.glm_130b import GLM130BConfig
from groundup.models.configs.glm_2021 import GLM2021Config
from groundup.models.configs.llama import LlamaConfig
from groundup.models.hub import build_model
from groundup.tokenizers.characters import train_characters

MARKS = ["[MASK]", "[sMASK]", "[gMASK]", "<|startofpiece|>", "<|endofpiece|>"]
SHAPE = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "max_position_embeddings": 64}
IDS = {"mask_token_id": 0, "gmask_token_id": 2, "bos_token_id": 3, "eop_token_id": 4}


@pytest.fixture(scope="module")
def tokenizer():
    return train_characters(["abcdefghijklmnopqrstuvwxyz ,."], special_tokens=MARKS)


@pytest.fixture(params=["glm_2021", "glm_130b"])
def model(request, tokenizer):
    torch.manual_seed(0)
    size = {"vocab_size": tokenizer.vocab_size, **SHAPE, **IDS, "initializer_range": 0.3}
    if request.param == "glm_130b":
        return build_model(GLM130BConfig(**size, intermediate_size=32)).eval()
    return build_model(GLM2021Config(**size, smask_token_id=1, embd_pdrop=0, attn_pdrop=0, resid_pdrop=0)).eval()


def test_marks_become_ids_and_a_text_without_them_goes_on_at_its_end(model, tokenizer):
    a, b = tokenizer.encode("a"), tokenizer.encode("b")
    assert blank_ids(model, tokenizer, "a[MASK]b") == [*a, 0, *b]
    assert blank_prompt(model, tokenizer, "[MASK]b[MASK]") == [0, *b, 0, 3]
    assert blank_ids(model, tokenizer, "ab") == [*a, *b, 2]
    assert blank_ids(model, tokenizer, "") == [2]
    base = model.config.model_copy(update={"gmask_token_id": None, "smask_token_id": None})
    if model.config.family() == "glm_2021":  # the sizes without other masks
        model.config = base
        assert blank_ids(model, tokenizer, "a") == [*a, 0]


def test_blanks_are_filled_one_after_the_other(model, tokenizer):
    """What filled the first stands in the text when the second is filled: each by hand, greedily and without state."""
    (filled,) = fill_blanks(model, tokenizer, ["ab[MASK]cd[MASK]."], temperature=0.0, max_new_tokens=5)
    row = blank_ids(model, tokenizer, "ab[MASK]cd[MASK].")
    for found in filled.blanks:
        ids, new = [*row, 3], []
        while len(new) < 5 and 4 not in new:
            with torch.no_grad():
                new.append(int(model(torch.tensor([[*ids, *new]]))[0, -1].argmax()))
        assert found.ids == new
        place = row.index(0)
        row = [*row[:place], *(id for id in new if id > 4), *row[place + 1 :]]
    assert len(filled.blanks) == 2
    assert 0 not in row
    assert filled.text == tokenizer.decode(row, skip_special=True)
    assert filled.text.startswith("ab")
    assert filled.text.endswith(".")


def test_rows_of_a_batch_do_not_touch_each_other(model, tokenizer):
    texts = ["a[MASK]", "abc, [MASK] and [MASK] or [MASK].", "go on", "x[MASK]y"]
    together = fill_blanks(model, tokenizer, texts, temperature=0.0, max_new_tokens=4)
    for text, found in zip(texts, together, strict=True):
        (alone,) = fill_blanks(model, tokenizer, [text], temperature=0.0, max_new_tokens=4)
        assert alone.text == found.text
        assert [blank.ids for blank in alone.blanks] == [blank.ids for blank in found.blanks]
    assert [len(found.blanks) for found in together] == [1, 3, 1, 1]


def test_a_piece_ends_at_its_mark(model, tokenizer):
    """A model whose head says one thing: x, a mask, [START], x, then the mark of the end."""
    x, said = tokenizer.encode("x")[0], []

    def forward(ids, *, head, **_):
        said.append((x, 0, 3, x, 4)[len(said) % 5])
        logits = torch.zeros(ids.shape[0], tokenizer.vocab_size)
        logits[:, said[-1]] = 9.0
        return logits

    model.forward = forward
    (filled,) = fill_blanks(model, tokenizer, ["a[MASK]b[MASK]c"], temperature=0.0, max_new_tokens=9)
    assert filled.text == "axxbxxc"
    assert [(blank.text, blank.finish_reason) for blank in filled.blanks] == [("xx", "eos")] * 2


def test_what_cannot_be_filled_is_refused(model, tokenizer):
    plain = train_characters(["abc"])
    llama = build_model(LlamaConfig(vocab_size=40, **SHAPE, intermediate_size=8))
    assert fills_blanks(model, tokenizer)
    for wrong in ((model, plain), (llama, tokenizer)):
        assert not fills_blanks(*wrong)
        with pytest.raises(UsageError, match="needs a GLM, and a tokenizer with"):
            fill_blanks(*wrong, ["a"])
    if model.config.family() == "glm_130b":
        with pytest.raises(UsageError, match=r"glm_130b fills \[gMASK\] before all other blanks"):
            fill_blanks(model, tokenizer, ["a[MASK]b[gMASK]"])
    else:
        assert len(fill_blanks(model, tokenizer, ["a[sMASK]b[gMASK]"], max_new_tokens=2)[0].blanks) == 2


def test_as_typed(model, tokenizer, tmp_path, capsys):
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    words = ["generate", str(tmp_path), "ab[MASK]c", "de", "--temperature", "0", "--max-new-tokens", "3"]
    assert main([*words, "--samples", "2", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["completions"]
    wanted = fill_blanks(model, tokenizer, ["ab[MASK]c", "de"], temperature=0.0, max_new_tokens=3)
    assert [one["prompt"] for one in found] == ["ab[MASK]c", "ab[MASK]c", "de", "de"]
    assert [one["text"] for one in found] == [one.text for one in wanted for _ in range(2)]
    assert [one["blanks"][0]["ids"] for one in found] == [one.blanks[0].ids for one in wanted for _ in range(2)]
    assert main(words) == 0
    assert capsys.readouterr().out == "".join(one.text + "\n\n" for one in wanted)
