"""Damaged, absurd and hostile tokenizer.json files: a clear error or a tokenizer, in bounded time."""

import copy
import json
import random

import pytest
import tokenizers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from groundup.base.errors import CheckpointError, GroundupError
from groundup.tokenizers.hub import load_tokenizer
from tokenizer_stacks import FOREIGN, STACKS, stack

SPECS = ("llama2_legacy", "bert_uncased", "t5", "clip", "deepseek_v3", "roberta", "words", "gemma")
ABSURD = [
    None,
    True,
    -1,
    0,
    2**63,
    1e308,
    "",
    "x",
    "\ud800",
    [],
    {},
    [None],
    {"type": "Nothing"},
    [[]],
    {"a": {}},
    "[",
    "(",
]
QUICK = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))


def spec(name):
    return json.loads(stack(name).to_str())


def places(value, path=()):
    """Every place in a file but the entries of large tables."""
    yield path
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for number, (key, child) in enumerate(children):
        if number < 12:
            yield from places(child, (*path, key))


def put(value, path, new):
    target = value
    for key in path[:-1]:
        target = target[key]
    if new is DELETE:
        del target[path[-1]]
    else:
        target[path[-1]] = new


DELETE = object()


def load_and_use(path):
    """Load a file that may be damaged, and use what came of it: only our errors may come."""
    try:
        tokenizer = load_tokenizer(path)
        ids = tokenizer.encode(FOREIGN[:300], allowed_special=True)
        tokenizer.encode_offsets(FOREIGN[:300])
        tokenizer.decode(ids)
        tokenizer.to_json()
    except GroundupError as error:
        return error
    return None


@pytest.mark.parametrize("name", SPECS)
def test_one_absurd_value(name, tmp_path):
    rng = random.Random(name)
    whole = spec(name)
    found = [path for path in places(whole) if path]
    for path in rng.sample(found, min(len(found), 60)):
        damaged = copy.deepcopy(whole)
        put(damaged, path, rng.choice([*ABSURD, DELETE]))
        (tmp_path / "tokenizer.json").write_text(json.dumps(damaged))
        load_and_use(tmp_path / "tokenizer.json")


@pytest.mark.parametrize("name", SPECS)
def test_truncated_and_flipped_bytes(name, tmp_path):
    rng = random.Random(name)
    data = json.dumps(spec(name)).encode()
    path = tmp_path / "tokenizer.json"
    for _ in range(8):
        path.write_bytes(data[: rng.randrange(len(data))])
        assert isinstance(load_and_use(path), CheckpointError)
    for _ in range(12):
        flipped = bytearray(data)
        for _ in range(rng.randint(1, 20)):
            flipped[rng.randrange(len(data))] = rng.randrange(256)
        path.write_bytes(flipped)
        load_and_use(path)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-5, 5)
    | st.floats()
    | st.sampled_from(["a", "BPE", "Sequence", "Split", ""]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["type", "vocab", "merges", "pattern", "Regex", "normalizers"]), inner, max_size=3
        )
    ),
    max_leaves=12,
)


@QUICK
@given(st.sampled_from(["model", "normalizer", "pre_tokenizer", "decoder", "post_processor", "added_tokens"]), JSON)
def test_any_json_in_a_part(tmp_path_factory, key, value):
    whole = spec("words")
    whole[key] = value
    path = tmp_path_factory.mktemp("any") / "tokenizer.json"
    path.write_text(json.dumps(whole))
    load_and_use(path)


def nested(kind, key, depth):
    part = {"type": "Fuse" if kind == "decoder" else "Whitespace" if kind == "pre_tokenizer" else "NFC"}
    for _ in range(depth):
        part = {"type": "Sequence", key: [part]}
    return part


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda s: s.update(normalizer={"type": "Append"}), "Append"),
        (lambda s: s.update(normalizer={"type": "Lowercas"}), "Lowercase"),
        (lambda s: s.update(pre_tokenizer={"type": "Nothing"}), "Nothing"),
        (lambda s: s.update(decoder={"type": "Morse"}), "Morse"),
        (lambda s: s.update(post_processor={"type": "Wrap"}), "Wrap"),
        (lambda s: s["model"].update(type="Neural"), "Neural"),
        (lambda s: s["model"].update(novelty=1), "novelty"),
        (lambda s: s.update(novelty=1), "novelty"),
        (lambda s: s.update(normalizer={"type": "NFC", "novelty": 1}), "novelty"),
        (lambda s: s.update(pre_tokenizer={"type": "Split", "pattern": {"Regex": "("}, "behavior": "Isolated"}), r"\("),
        (lambda s: s.update(pre_tokenizer={"type": "Split", "pattern": {"Regex": "a"}, "behavior": "Odd"}), "Odd"),
        (lambda s: s.update(pre_tokenizer={"type": "FixedLength", "length": 0}), "length"),
        (lambda s: s.update(pre_tokenizer={"type": "Metaspace", "replacement": "ab"}), "replacement"),
        (lambda s: s.update(normalizer={"type": "Precompiled", "precompiled_charsmap": "!"}), "base64"),
        (lambda s: s.update(normalizer={"type": "Precompiled", "precompiled_charsmap": "////fw=="}), "charsmap"),
        (lambda s: s.update(decoder={"type": "Strip", "content": "a", "start": 2**40, "stop": 0}), "start"),
        (lambda s: s.update(pre_tokenizer={"type": "Split", "pattern": {"Regex": "a" * 10**6}}), "characters"),
        (lambda s: s.update(pre_tokenizer=nested("pre_tokenizer", "pretokenizers", 25)), "nested"),
        (lambda s: s.update(normalizer=nested("normalizer", "normalizers", 25)), "nested"),
        (lambda s: s["model"].update(vocab={"a": 2**40}), "id"),
        (lambda s: s["model"].update(vocab={"a": 1, "b": 1}), "id 1"),
        (lambda s: s["added_tokens"].append({"id": 10**12, "content": "<x>"}), "id"),
        (lambda s: s.update(post_processor={"type": "BertProcessing", "sep": ["a", -1], "cls": ["b", 0]}), "sep"),
        (
            lambda s: s.update(
                post_processor={
                    "type": "TemplateProcessing",
                    "single": [{"SpecialToken": {"id": "[CLS]", "type_id": 0}}],
                    "pair": [],
                    "special_tokens": {},
                }
            ),
            "CLS",
        ),
    ],
)
def test_what_is_wrong_is_named(tmp_path, change, named):
    whole = spec("words")
    change(whole)
    (tmp_path / "tokenizer.json").write_text(json.dumps(whole))
    with pytest.raises(CheckpointError, match=named):
        load_tokenizer(tmp_path)


def test_a_pattern_that_backtracks_without_end_is_stopped(tmp_path, monkeypatch):
    from groundup.tokenizers.pipeline import cutting

    monkeypatch.setattr(cutting, "SECONDS_PER_MEGABYTE", 4)
    whole = spec("words")
    whole["pre_tokenizer"] = {"type": "Split", "pattern": {"Regex": "(a|aa)+$"}, "behavior": "Isolated"}
    (tmp_path / "tokenizer.json").write_text(json.dumps(whole))
    tokenizer = load_tokenizer(tmp_path)
    with pytest.raises(GroundupError, match="seconds"):
        tokenizer.encode("a" * 80 + "b")


def test_truncation_and_padding_in_the_file_are_not_applied(tmp_path):
    """A text is encoded whole: cutting it is the caller's business."""
    made = tokenizers.Tokenizer.from_str(json.dumps(spec("bert_uncased")))
    made.enable_truncation(4)
    made.enable_padding(length=64)
    made.save(str(tmp_path / "tokenizer.json"))
    text = "the quick brown fox jumps over the lazy dog"
    expected = stack("bert_uncased").encode(text, add_special_tokens=False).ids
    assert len(expected) > 4
    assert load_tokenizer(tmp_path).encode(text) == expected


def test_older_spellings(tmp_path):
    """Files from before the model had a type, merges as text, `add_prefix_space` and `str_rep` of Metaspace."""
    for name in ("llama2_legacy", "bert_uncased", "words", "t5"):
        whole = spec(name)
        del whole["model"]["type"]
        if "merges" in whole["model"]:
            whole["model"]["merges"] = ["#version: 0.2", *(" ".join(pair) for pair in whole["model"]["merges"])]
        if (whole["pre_tokenizer"] or {}).get("type") == "Metaspace":
            whole["pre_tokenizer"] = {"type": "Metaspace", "replacement": "▁", "str_rep": "▁", "add_prefix_space": True}
        (tmp_path / "tokenizer.json").write_text(json.dumps(whole))
        assert load_tokenizer(tmp_path).encode(FOREIGN) == stack(name).encode(FOREIGN, add_special_tokens=False).ids


def test_every_stack_has_a_name_that_is_tested():
    assert set(SPECS) <= set(STACKS)
