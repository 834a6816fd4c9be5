"""Vocabulary files of other projects against their own readers: tiktoken, OpenAI's pair of files, RWKV, GPT-NeoX."""

import ast
import base64
import dataclasses
import itertools
import json
import random
import unicodedata
from functools import partial

import pytest
import tiktoken
import tiktoken_ext.openai_public
import tokenizers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import models, pre_tokenizers

from groundup.base.errors import CheckpointError, UsageError
from groundup.tokenizers.byte_bpe import ByteBPE
from groundup.tokenizers.formats import openai_gpt2, rwkv_vocabulary, tiktoken_ranks
from groundup.tokenizers.hub import load_tokenizer
from groundup.tokenizers.tokenizer import SpecialNames
from groundup.tokenizers.training.byte_bpe import train_byte_bpe
from nasty_corpus import nasty_lines

QUICK = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
# The references know other Unicode versions than Python: unassigned characters may be of another class there.
ASSIGNED = st.characters(exclude_categories=("Cs", "Cn", "Co"))
TEXTS = st.text(ASSIGNED, max_size=60) | st.text("ab \n\t'sS1.<|>é中🙂\u0301\u00a0", max_size=60)
# As Meta's and Zhipu's programs have it.
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
QWEN = LLAMA3.replace("{1,3}", "")
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"


@pytest.fixture(scope="module")
def lines(shared):
    found = nasty_lines(shared)
    assert len(found) >= 10_000
    return found


@pytest.fixture(scope="module")
def folder(shared):
    return shared / "tokenizers"


def reference_ranks(path):
    rows = [line.split() for line in path.read_bytes().splitlines() if line]
    return {base64.b64decode(token): int(rank) for token, rank in rows}


@pytest.fixture(scope="module")
def tiktoken_gpt2(folder):
    ranks = reference_ranks(folder / "gpt2.tiktoken")
    return tiktoken.Encoding("gpt2", pat_str=GPT2, mergeable_ranks=ranks, special_tokens={"<|endoftext|>": 50256})


@pytest.fixture(scope="module")
def library_gpt2(folder):
    merges = openai_gpt2.read_merges(folder / "gpt2-vocab.bpe")
    vocab = json.loads((folder / "gpt2-encoder.json").read_text())
    tokenizer = tokenizers.Tokenizer(models.BPE(vocab, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return tokenizer


@pytest.fixture(scope="module", params=["gpt2-encoder.json", "gpt2-vocab.bpe", "gpt2.tiktoken"])
def gpt2(request, folder):
    return load_tokenizer(folder / request.param)


@pytest.mark.row("TOK-10", reference="tiktoken, tokenizers")
def test_gpt2_of_every_file_gives_the_ids_of_both_libraries(gpt2, tiktoken_gpt2, library_gpt2, lines):
    ours = [gpt2.encode(line) for line in lines]
    assert ours == [tiktoken_gpt2.encode_ordinary(line) for line in lines]
    assert ours == [encoding.ids for encoding in library_gpt2.encode_batch(lines)]
    assert [gpt2.decode(ids) for ids in ours] == lines


@pytest.mark.row("TOK-10", reference="tiktoken")
@QUICK
@given(text=TEXTS)
def test_gpt2_of_every_file_on_any_text(gpt2, tiktoken_gpt2, text):
    assert gpt2.encode(text, allowed_special=True) == tiktoken_gpt2.encode(text, allowed_special="all")
    assert gpt2.eos_id == gpt2.bos_id == 50256


@pytest.mark.row("TOK-11", reference="OpenAI's files")
def test_gpt2_files_come_out_byte_for_byte(gpt2, folder, tmp_path):
    openai_gpt2.write(gpt2, tmp_path)
    tiktoken_ranks.write(gpt2, tmp_path / "gpt2.tiktoken")
    for ours, theirs in [
        ("encoder.json", "gpt2-encoder.json"),
        ("vocab.bpe", "gpt2-vocab.bpe"),
        ("gpt2.tiktoken", "gpt2.tiktoken"),
    ]:
        assert (tmp_path / ours).read_bytes() == (folder / theirs).read_bytes()


@pytest.mark.row("TOK-11", reference="transformers")
def test_written_pairs_are_read_by_other_readers(tmp_path, lines):
    from transformers import AutoTokenizer

    ours = train_byte_bpe(lines[:300], 700, ["<|endoftext|>"])
    openai_gpt2.write(ours, tmp_path, ("vocab.json", "merges.txt"))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "GPT2Tokenizer"}))
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    back = load_tokenizer(tmp_path)
    for line in lines[::50]:
        ids = ours.encode(line)
        assert theirs(line)["input_ids"] == ours.encode(line, allowed_special=True)
        assert back.encode(line) == ids


@pytest.mark.row("TOK-11", reference="tiktoken.load")
def test_tiktoken_reads_the_pair_that_we_write(gpt2, tmp_path, tiktoken_gpt2):
    from tiktoken.load import data_gym_to_mergeable_bpe_ranks

    openai_gpt2.write(gpt2, tmp_path)
    ranks = data_gym_to_mergeable_bpe_ranks(str(tmp_path / "vocab.bpe"), str(tmp_path / "encoder.json"))
    assert ranks == tiktoken_gpt2._mergeable_ranks


# Files of ranks.


# From the public vocabularies; see the models' own files.
KNOWN = {"llama3": {9906: b"Hello", 1917: b" world"}, "qwen": {9707: b"Hello", 1879: b" world"}}


def synthetic_ranks(count, lines, fixed=None):
    """As many ranks as a published vocabulary has: bytes, real merges, and tokens joined at random.

    `fixed` (rank -> token) tokens are put at their ranks in exchange for others.
    """
    trained = train_byte_bpe(lines, 2500)
    ranks = {trained.token_bytes(number): number for number in range(trained.vocab_size)}
    rng = random.Random(count)
    known = list(ranks)
    while len(ranks) < count:
        token = rng.choice(known[:3000]) + rng.choice(known[:3000])
        if token not in ranks:
            ranks[token] = len(ranks)
            known.append(token)
    tokens = list(ranks)
    for rank, token in (fixed or {}).items():
        if token in ranks:
            tokens[tokens.index(token)] = tokens[rank]
        tokens[rank] = token
    return {token: rank for rank, token in enumerate(tokens)}


def write_ranks(path, ranks):
    path.write_bytes(b"".join(base64.b64encode(token) + b" %d\n" % rank for token, rank in ranks.items()))
    return path


@pytest.fixture(scope="module")
def published_patterns():
    """The patterns and special tokens in tiktoken's own list."""
    module = tiktoken_ext.openai_public
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "load_tiktoken_bpe", lambda *_, **__: {})
        return {name: getattr(module, f"{name}_base")() for name in ("p50k", "cl100k", "o200k")}


LLAMA3_SPECIAL = {
    "<|begin_of_text|>": 128000, "<|end_of_text|>": 128001, "<|reserved_special_token_0|>": 128002,
    "<|reserved_special_token_3|>": 128005, "<|start_header_id|>": 128006, "<|end_header_id|>": 128007,
    "<|reserved_special_token_4|>": 128008, "<|eot_id|>": 128009, "<|reserved_special_token_5|>": 128010,
    "<|reserved_special_token_250|>": 128255,
}  # fmt: skip
GLM4_SPECIAL = {
    "<|endoftext|>": 151329, "[MASK]": 151330, "[gMASK]": 151331, "[sMASK]": 151332, "<sop>": 151333, "<eop>": 151334,
    "<|system|>": 151335, "<|user|>": 151336, "<|assistant|>": 151337, "<|observation|>": 151338,
    "<|begin_of_image|>": 151339, "<|end_of_image|>": 151340, "<|begin_of_video|>": 151341,
    "<|end_of_video|>": 151342,
}  # fmt: skip
QWEN_SPECIAL = {"<|endoftext|>": 151643, "<|im_start|>": 151644, "<|im_end|>": 151645, "<|extra_204|>": 151850}


@pytest.mark.slow
@pytest.mark.row("TOK-12", reference="tiktoken")
@pytest.mark.parametrize(
    ("name", "count", "file"),
    [
        ("p50k", 50280, "p50k.tiktoken"),
        ("cl100k", 100256, "cl100k.tiktoken"),
        ("llama3", 128000, "tokenizer.model"),
        ("glm4", 151329, "tokenizer.model"),
        ("qwen", 151643, "qwen.tiktoken"),
        ("o200k", 199998, "o200k.tiktoken"),
    ],
)
def test_published_vocabularies_are_cut_by_their_pattern(
    published_patterns, lines, tmp_path, monkeypatch, capsys, name, count, file
):
    """Made-up ranks in a published number: refused where a digest is published; with theirs in its place, cut alike."""
    ranks = synthetic_ranks(count, lines[:400], KNOWN.get(name))
    if name == "p50k":  # its <|endoftext|> stands between the ranks
        ranks = {token: rank + (rank >= 50256) for token, rank in ranks.items()}
    theirs = published_patterns.get(name)
    pattern, special = {
        "llama3": (LLAMA3, LLAMA3_SPECIAL), "glm4": (LLAMA3, GLM4_SPECIAL), "qwen": (QWEN, QWEN_SPECIAL),
    }.get(name) or (theirs["pat_str"], theirs["special_tokens"])  # fmt: skip
    reference = tiktoken.Encoding(name, pat_str=pattern, mergeable_ranks=ranks, special_tokens=special)
    write_ranks(tmp_path / file, ranks)
    known = next(known for known in tiktoken_ranks.PUBLISHED if known.name == name)
    if known.sha256 is not None:
        with pytest.raises(UsageError, match=f"as many as {name} has, but they are others.*give `pattern`"):
            load_tokenizer(tmp_path)
        made_up = dataclasses.replace(known, sha256=tiktoken_ranks.digest(ranks))
        monkeypatch.setattr(tiktoken_ranks, "PUBLISHED", (made_up,))
    ours = load_tokenizer(tmp_path)  # the folder, recognised by what is in it
    assert ("chosen by size" in capsys.readouterr().err) == (known.sha256 is None)
    assert special.items() <= ours.special_tokens.items()
    # Qwen's own program normalizes to NFC before it encodes.
    normal = partial(unicodedata.normalize, "NFC") if name == "qwen" else str
    for line in [*lines, "a\n\n  ", "x \n ", "1234567", *special]:
        assert ours.encode(line) == reference.encode_ordinary(normal(line)), line
    mixed = "".join(f"{token} text" for token in special)
    assert ours.encode(mixed, allowed_special=True) == reference.encode(mixed, allowed_special="all")
    tiktoken_ranks.write(ours, tmp_path / "again.tiktoken")
    assert tiktoken_ranks.read_ranks(tmp_path / "again.tiktoken") == ranks


@pytest.mark.row("TOK-12", reference="published: Meta's and Zhipu's programs")
def test_special_tokens_of_llama3_and_glm4():
    known = {known.name: known for known in tiktoken_ranks.PUBLISHED}
    llama, glm = known["llama3"].special, known["glm4"].special
    assert LLAMA3_SPECIAL.items() <= llama.items()
    assert sorted(llama.values()) == list(range(128000, 128256))
    assert dict(glm) == GLM4_SPECIAL
    assert QWEN_SPECIAL.items() <= known["qwen"].special.items()
    assert (known["llama3"].names.bos, known["glm4"].names.eos) == ("<|begin_of_text|>", "<|endoftext|>")


@pytest.mark.row("TOK-12", reference="tiktoken")
def test_the_digests_are_those_that_tiktoken_names(monkeypatch):
    named = {}
    monkeypatch.setattr(
        tiktoken_ext.openai_public, "load_tiktoken_bpe",
        lambda url, expected_hash: named.setdefault(url.rsplit("/", 1)[1].split("_")[0], expected_hash),
    )  # fmt: skip
    for name in ("r50k_base", "p50k_base", "cl100k_base", "o200k_base"):
        getattr(tiktoken_ext.openai_public, name)()
    ours = {known.name: known.sha256 for known in tiktoken_ranks.PUBLISHED if known.sha256}
    assert ours == {"gpt2" if name == "r50k" else name: digest for name, digest in named.items()}


@pytest.mark.row("TOK-12", reference="published: sha256 of r50k_base.tiktoken")
def test_a_published_vocabulary_is_recognised_by_its_content(shared, tmp_path, capsys):
    data = (shared / "tokenizers" / "gpt2.tiktoken").read_bytes()
    path = tmp_path / "x.tiktoken"
    path.write_bytes(data.replace(b"\n", b"\r\n"))  # the same content
    assert load_tokenizer(path).special_tokens == {"<|endoftext|>": 50256}
    assert capsys.readouterr().err == ""
    lines = data.splitlines()
    (first, a), (second, b) = lines[40_000].split(), lines[40_001].split()
    lines[40_000:40_002] = [second + b" " + a, first + b" " + b]  # one exchange in 50,256
    path.write_bytes(b"\n".join(lines))
    with pytest.raises(UsageError, match=r"50,256 ranks, as many as gpt2 has, but they are others.*give `pattern`"):
        load_tokenizer(path)
    assert load_tokenizer(path, pattern="gpt2").special_tokens == {}


@pytest.mark.row("TOK-12", reference="own: recognition by size")
def test_what_is_recognised_by_size_is_checked_and_said(tmp_path, monkeypatch, capsys, lines):
    ranks = synthetic_ranks(3000, lines[:100], {2000: b"Hello", 1000: b" world"})
    small = tiktoken_ranks.Published(
        "small", 3000, LLAMA3, {"<|x|>": 3000}, SpecialNames(eos="<|x|>"), known={b"Hello": 2000, b" world": 1000}
    )
    monkeypatch.setattr(tiktoken_ranks, "PUBLISHED", (small,))
    path = write_ranks(tmp_path / "x.tiktoken", ranks)
    assert load_tokenizer(path).special_tokens == {"<|x|>": 3000}
    (warning,) = capsys.readouterr().err.splitlines()
    assert "the pattern and special tokens chosen by size: 3,000 ranks, as small has" in warning
    assert tiktoken_ranks.read(path, LLAMA3, special_tokens={}).special_tokens == {}
    assert capsys.readouterr().err == ""

    def exchanged(first, second):
        places = {first: second, second: first}
        return {token: places.get(rank, rank) for token, rank in ranks.items()}

    for first, second in ((0, 1), (2000, 2001), (1000, 1001)):  # a byte, each of the known ranks
        write_ranks(path, exchanged(first, second))
        with pytest.raises(UsageError, match="as many as small has, but they are others"):
            load_tokenizer(path)


@pytest.mark.row("TOK-12", reference="tiktoken")
def test_other_ranks_need_a_pattern(tmp_path, lines):
    ranks = synthetic_ranks(3000, lines[:200])
    path = write_ranks(tmp_path / "own.tiktoken", ranks)
    with pytest.raises(UsageError, match=r"3,000 ranks.*give `pattern`"):
        load_tokenizer(path)
    for pattern, text in {"gpt2": GPT2, "llama3": LLAMA3, "qwen": QWEN, r"\w+|\W+": r"\w+|\W+"}.items():
        reference = tiktoken.Encoding("own", pat_str=text, mergeable_ranks=ranks, special_tokens={})
        ours = load_tokenizer(path, pattern=pattern)
        for line in lines[::20]:
            assert ours.encode(line) == reference.encode_ordinary(line)


@pytest.mark.row("TOK-12", reference="tiktoken")
@settings(QUICK, max_examples=400)
@given(
    st.lists(st.text("ab", min_size=2, max_size=6) | st.text("a", min_size=2, max_size=9), unique=True, max_size=14),
    st.text("ab", max_size=60),
)
def test_any_ranks_merge_as_in_tiktoken(tokens, text):
    """Also ranks that no training would give: tokens that lower ranks never reach, overlaps, ties."""
    ranks = {bytes([byte]): byte for byte in range(256)}
    for token in tokens:
        ranks[token.encode()] = len(ranks)
    reference = tiktoken.Encoding("any", pat_str=r"[\s\S]+", mergeable_ranks=ranks, special_tokens={})
    ours = tiktoken_ranks.from_ranks(ranks, r"[\s\S]+")
    assert ours.encode(text) == reference.encode_ordinary(text)
    assert tiktoken_ranks.ranks_of(ours) == ranks
    merges = tiktoken_ranks.derive_merges(ranks)
    if merges is not None:
        by_merges = ByteBPE(ours.model_vocab, merges, pattern=r"[\s\S]+")
        assert by_merges.encode(text) == reference.encode_ordinary(text)


@pytest.mark.row("TOK-12", reference="tiktoken")
@pytest.mark.parametrize("beside", [{"128000": {"content": "<|own|>", "special": True}}, {"3000": "<|own|>"}])
def test_special_tokens_of_the_folder_win(tmp_path, lines, beside):
    number = int(next(iter(beside)))
    write_ranks(tmp_path / "tokenizer.model", synthetic_ranks(min(number, 3000), lines[:200]))
    (tmp_path / "tokenizer_config.json").write_text(
        json.dumps({"added_tokens_decoder": beside, "eos_token": "<|own|>"})
    )
    ours = load_tokenizer(tmp_path, pattern="gpt2")
    assert ours.special_tokens == {"<|own|>": number}
    assert ours.eos_id == number


def test_merges_that_ranks_cannot_express_are_refused(tmp_path):
    symbols = {bytes([byte]): byte for byte in range(256)}
    base = tiktoken_ranks.from_ranks(symbols | {b"ab": 256, b"bc": 257}, "gpt2")
    other_order = ByteBPE(base.model_vocab, [("b", "c"), ("a", "b")])  # "abc" is a + bc, ranks would say ab + c
    assert other_order.encode("abc") == [97, 257]
    with pytest.raises(CheckpointError, match="ranks cannot express"):
        tiktoken_ranks.write(other_order, tmp_path / "x.tiktoken")
    assert not (tmp_path / "x.tiktoken").exists()


# RWKV.


class OwnRWKV:
    """RWKV's algorithm, written anew: try the longest slice that is a token."""

    def __init__(self, path):
        self.ids = {}
        for line in path.read_text(encoding="utf-8").splitlines():
            number, literal = int(line[: line.index(" ")]), line[line.index(" ") + 1 : line.rindex(" ")]
            token = ast.literal_eval(literal)
            self.ids[token.encode() if isinstance(token, str) else token] = number
        self.longest = max(map(len, self.ids))

    def encode(self, text):
        data, place, ids = text.encode(), 0, []
        while place < len(data):
            longest = min(self.longest, len(data) - place)
            size = next(size for size in range(longest, 0, -1) if data[place : place + size] in self.ids)
            ids.append(self.ids[data[place : place + size]])
            place += size
        return ids


@pytest.fixture(scope="module")
def world(folder):
    return load_tokenizer(folder / "rwkv_vocab_v20230424.txt")


@pytest.fixture(scope="module")
def own_rwkv(folder):
    return OwnRWKV(folder / "rwkv_vocab_v20230424.txt")


@pytest.fixture(scope="module")
def rwkv_package(folder):
    module = pytest.importorskip("rwkv.rwkv_tokenizer", reason="the rwkv package is not installed")
    return module.TRIE_TOKENIZER(str(folder / "rwkv_vocab_v20230424.txt"))


@pytest.mark.row("TOK-18", reference="rwkv")
def test_rwkv_gives_the_ids_of_its_package(world, rwkv_package, lines):
    ours = [world.encode(line) for line in lines]
    assert ours == [rwkv_package.encode(line) for line in lines]
    assert [world.decode(ids) for ids in ours] == lines
    assert [world.token_bytes(n) for n in range(1, 65530)] == [rwkv_package.idx2token[n] for n in range(1, 65530)]


@pytest.mark.row("TOK-18", reference="own: longest slice")
@QUICK
@given(text=TEXTS)
def test_rwkv_takes_the_longest_token(world, own_rwkv, text):
    assert world.encode(text) == own_rwkv.encode(text)
    assert world.decode(world.encode(text)) == text


@pytest.mark.row("TOK-18", reference="own: longest slice")
def test_rwkv_facts(world, own_rwkv, lines):
    assert (world.vocab_size, world.eos_id) == (65536, 0)
    assert [world.encode(line) for line in lines[::5]] == [own_rwkv.encode(line) for line in lines[::5]]
    assert world.encode("<|rwkv_tokenizer_end_of_text|>") != [0]
    assert world.encode("<|rwkv_tokenizer_end_of_text|>", allowed_special=True) == [0]


@pytest.mark.row("TOK-18", reference="RWKV's file")
def test_rwkv_file_comes_out_byte_for_byte(world, folder, tmp_path):
    rwkv_vocabulary.write(world, tmp_path / "rwkv_vocab.txt")
    assert (tmp_path / "rwkv_vocab.txt").read_bytes() == (folder / "rwkv_vocab_v20230424.txt").read_bytes()
    assert load_tokenizer(tmp_path).fingerprint() == world.fingerprint()


@pytest.mark.row("TOK-18", reference="tokenizers")
def test_rwkv_saved_for_the_library(world, tmp_path, lines):
    world.save_pretrained(tmp_path)
    theirs = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    for line in lines[::20]:  # the library's time is quadratic in the text
        assert theirs.encode(line).ids == world.encode(line)
        assert theirs.decode(world.encode(line)) == line


# GPT-NeoX.


@pytest.mark.row("TOK-17", reference="tokenizers")
def test_neox_on_nasty_lines(folder, lines):
    ours = load_tokenizer(folder / "gpt-neox-20b.json")
    theirs = tokenizers.Tokenizer.from_file(str(folder / "gpt-neox-20b.json"))
    assert [ours.encode(line, allowed_special=True) for line in lines] == [e.ids for e in theirs.encode_batch(lines)]
    assert ours.vocab_size == 50277


def test_a_folder_with_several_kinds_is_not_guessed_at(folder):
    with pytest.raises(CheckpointError, match="several tokenizers"):
        load_tokenizer(folder)


def test_pairs_are_found_from_either_file_and_the_folder(tmp_path, folder):
    for vocab, merges in itertools.chain(openai_gpt2.PAIRS, [("my-encoder.json", "my-vocab.bpe")]):
        place = tmp_path / vocab.replace(".", "_")
        place.mkdir()
        (place / vocab).symlink_to(folder / "gpt2-encoder.json")
        (place / merges).symlink_to(folder / "gpt2-vocab.bpe")
        for path in (place, place / vocab, place / merges):
            assert load_tokenizer(path).encode("Akwirw ier") == [33901, 86, 343, 86, 220, 959]
