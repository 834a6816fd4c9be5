"""Small tokenizers of the `tokenizers` library, with the parts that published checkpoints have.

Each function makes one from scratch: it is trained on a little text, and its file has the normalizers, pre-tokenizers,
post-processors and decoders of the family it is named after.
"""

# ruff: noqa: E501, RUF001
import base64
import io
import json
import unicodedata
from collections.abc import Callable
from functools import cache, lru_cache
from pydoc_data.topics import topics
from typing import Any

import sentencepiece
import tokenizers
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

PROSE = "\n".join(topics[name] for name in sorted(topics))[:60_000]
FOREIGN = """
Der schnelle braune Fuchs überspringt den faulen Hund; Straße, Äpfel, Größe, weiß. Ça va? Où est l'été? naïve façade.
中文没有空格，但是有标点符号。我们的模型在学习。日本語のテキストとカタカナ、ひらがな。한국어 문장입니다.
Привет, мир! Съешь ещё этих мягких французских булок. Γειά σου Κόσμε, ΟΔΥΣΣΕΥΣ. שלום עולם مرحبا بالعالم
हिन्दी में लिखा हुआ। ภาษาไทยไม่มีช่องว่าง 🙂 👩‍👩‍👧‍👦 🇩🇪 👍🏿 e\u0301 a\u0308 \u1e9b\u0323 ﬁ ½ ² ① ｆｕｌｌ
def f(x):\n    return x + 1  # comment\n\tfor i in range(10): print(i)\n{"a": [1, 2.5e-3, null]} <div class='x'>&amp;</div>
1234567890 3.14159 2024-01-01 don't DON'T I'll we've they're it's
"""
# Characters that old and new Unicode tables class alike: those that Unicode 3.2 has.
OLD_CHARACTERS = [
    character
    for character in map(chr, range(0x3400))
    if unicodedata.ucd_3_2_0.category(character) not in ("Cn", "Cs", "Co")
]

TEXTS = [*(PROSE.splitlines(keepends=True)), *(FOREIGN * 3).splitlines(keepends=True), FOREIGN]


@lru_cache(maxsize=2)
def charsmap(rule: str = "nmt_nfkc") -> str:
    """The table of a normalization rule, as `sentencepiece` ships it, in base64."""
    from sentencepiece import sentencepiece_model_pb2 as proto

    data = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["hello world", "a b c d e"] * 20), model_writer=data, vocab_size=20,
        normalization_rule_name=rule, hard_vocab_limit=False, minloglevel=2,
    )  # fmt: skip
    model = proto.ModelProto()
    model.ParseFromString(data.getvalue())
    return base64.b64encode(model.normalizer_spec.precompiled_charsmap).decode()


def precompiled(rule: str = "nmt_nfkc") -> normalizers.Normalizer:
    return normalizers.Precompiled(base64.b64decode(charsmap(rule)))


def _train(tokenizer: Tokenizer, trainer: Any) -> Tokenizer:
    tokenizer.train_from_iterator(TEXTS, trainer)
    return tokenizer


def _bpe(size: int = 600, special: tuple = (), **options: Any) -> trainers.BpeTrainer:
    return trainers.BpeTrainer(vocab_size=size, special_tokens=list(special), show_progress=False, **options)


def _byte_bpe(size: int = 700, special: tuple = (), **options: Any) -> trainers.BpeTrainer:
    return _bpe(size, special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), **options)


def _template(single: str, pair: str, *tokens: tuple[str, int]) -> processors.TemplateProcessing:
    return processors.TemplateProcessing(single=single, pair=pair, special_tokens=list(tokens))


def split(pattern: str, behavior: str = "isolated", invert: bool = False) -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Split(Regex(pattern), behavior, invert)


def byte_level(prefix: bool, use_regex: bool = True) -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.ByteLevel(add_prefix_space=prefix, use_regex=use_regex)


LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
O200K = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
KIMI = (
    r"[\p{Han}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+"
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def llama3() -> Tokenizer:
    made = Tokenizer(models.BPE(ignore_merges=True))
    made.pre_tokenizer = pre_tokenizers.Sequence([split(LLAMA3), byte_level(False, use_regex=False)])
    made.decoder = decoders.ByteLevel()
    special = ("<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>")
    _train(made, _byte_bpe(special=special))
    begin = ("<|begin_of_text|>", 0)
    template = _template("<|begin_of_text|> $A", "<|begin_of_text|> $A <|begin_of_text|>:1 $B:1", begin)
    made.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), template])
    return made


def _sentencepiece_bpe(normalizer: Any, pre_tokenizer: Any, *, size: int = 700, fuse: bool = True) -> Tokenizer:
    """BPE with byte fallback, whose file is put together as converters do: bytes get ids behind the special tokens."""
    teacher = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=fuse))
    teacher.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always", split=True)
    _train(teacher, _bpe(size, ("<unk>", "<s>", "</s>"), limit_alphabet=90))
    spec = json.loads(teacher.to_str())
    old = sorted(spec["model"]["vocab"], key=spec["model"]["vocab"].get)
    tokens = [*old[:3], *(f"<0x{byte:02X}>" for byte in range(256)), *old[3:]]
    spec["model"] |= {"vocab": {token: number for number, token in enumerate(tokens)}, "byte_fallback": True}
    spec["pre_tokenizer"] = None
    made = Tokenizer.from_str(json.dumps(spec))
    if normalizer is not None:
        made.normalizer = normalizer
    if pre_tokenizer is not None:
        made.pre_tokenizer = pre_tokenizer
    made.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    made.post_processor = _template("<s> $A", "<s> $A <s>:1 $B:1", ("<s>", 1))
    return made


def llama2_legacy() -> Tokenizer:
    return _sentencepiece_bpe(normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]), None)


def mistral() -> Tokenizer:
    return _sentencepiece_bpe(None, pre_tokenizers.Metaspace(prepend_scheme="first", split=False))


def llama2_with_normalizer_and_first() -> Tokenizer:
    """The begin of a text must be followed through a normalizer that removes characters."""
    return _sentencepiece_bpe(normalizers.Strip(), pre_tokenizers.Metaspace(prepend_scheme="first", split=True))


def gemma() -> Tokenizer:
    made = _sentencepiece_bpe(normalizers.Replace(" ", "▁"), pre_tokenizers.Split(" ", "merged_with_previous"))
    made.add_tokens([AddedToken(token, normalized=False) for token in ("\n\n", "\n\n\n", "<table>", "▁▁▁▁")])
    made.add_special_tokens(["<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>"])
    made.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    bos = made.token_to_id("<bos>")
    made.post_processor = _template("<bos> $A", "<bos> $A <bos>:1 $B:1", ("<bos>", bos))
    return made


def qwen2() -> Tokenizer:
    made = Tokenizer(models.BPE())
    made.normalizer = normalizers.NFC()
    made.pre_tokenizer = pre_tokenizers.Sequence([split(QWEN2), byte_level(False, use_regex=False)])
    made.decoder = decoders.ByteLevel()
    made.post_processor = processors.ByteLevel(trim_offsets=False)
    _train(made, _byte_bpe())
    made.add_special_tokens(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    made.add_tokens([AddedToken(token, normalized=False) for token in ("<tool_call>", "</tool_call>")])
    return made


def _bert(lowercase: bool, accents: bool | None = None) -> Tokenizer:
    made = Tokenizer(models.WordPiece(unk_token="[UNK]", max_input_chars_per_word=100))
    made.normalizer = normalizers.BertNormalizer(lowercase=lowercase, strip_accents=accents)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.decoder = decoders.WordPiece()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    _train(made, trainers.WordPieceTrainer(vocab_size=700, special_tokens=special, show_progress=False))
    return made


def bert_uncased() -> Tokenizer:
    made = _bert(lowercase=True)
    made.post_processor = _template("[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1", ("[CLS]", 2), ("[SEP]", 3))
    return made


def bert_cased() -> Tokenizer:
    made = _bert(lowercase=False)
    made.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return made


def bert_accents_stripped() -> Tokenizer:
    return _bert(lowercase=False, accents=True)


def _unigram(normalizer: Any, pre_tokenizer: Any, special: list[str], unk: str = "<unk>") -> Tokenizer:
    made = Tokenizer(models.Unigram())
    if normalizer is not None:
        made.normalizer = normalizer
    made.pre_tokenizer = pre_tokenizer
    made.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=600, special_tokens=special, unk_token=unk, show_progress=False)
    return _train(made, trainer)


def t5() -> Tokenizer:
    pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always", split=True)
    made = _unigram(precompiled(), pre_tokenizer, ["<pad>", "</s>", "<unk>"])
    made.add_special_tokens(["<extra_id_0>", AddedToken("<extra_id_1>", lstrip=True, rstrip=True)])
    made.post_processor = _template("$A </s>", "$A </s> $B </s>", ("</s>", 1))
    return made


def t5_legacy() -> Tokenizer:
    """Older files: white space is split first, and `add_prefix_space` stands for the scheme."""
    spec = json.loads(t5().to_str())
    metaspace = {"type": "Metaspace", "replacement": "▁", "add_prefix_space": True}
    spec["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, metaspace]}
    spec["decoder"] = metaspace
    return Tokenizer.from_str(json.dumps(spec))


def xlm_roberta() -> Tokenizer:
    parts = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    made = _unigram(precompiled(), parts, ["<s>", "<pad>", "</s>", "<unk>"])
    made.add_special_tokens([AddedToken("<mask>", lstrip=True)])
    made.post_processor = _template("<s> $A </s>", "<s> $A </s> </s> $B </s>", ("<s>", 0), ("</s>", 2))
    return made


def albert() -> Tokenizer:
    normalizer = normalizers.Sequence(
        [
            normalizers.Replace("``", '"'), normalizers.Replace("''", '"'), normalizers.NFKD(),
            normalizers.StripAccents(), normalizers.Lowercase(), precompiled("nfkc"),
        ]
    )  # fmt: skip
    parts = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    made = _unigram(normalizer, parts, ["<pad>", "<unk>", "[CLS]", "[SEP]"])
    made.add_special_tokens([AddedToken("[MASK]", lstrip=True)])
    made.post_processor = _template("[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1", ("[CLS]", 2), ("[SEP]", 3))
    return made


def nmt() -> Tokenizer:
    """Converters write mBART, Marian and Pegasus so: Nmt, NFKC, and runs of spaces to one."""
    normalizer = normalizers.Sequence(
        [
            normalizers.Nmt(),
            normalizers.NFKC(),
            normalizers.Replace(Regex(" {2,}"), " "),
            normalizers.Strip(False, True),
        ]
    )
    return _unigram(normalizer, pre_tokenizers.Metaspace(), ["</s>", "<unk>"])


def unigram_with_bytes() -> Tokenizer:
    spec = json.loads(_unigram(precompiled("nmt_nfkc_cf"), pre_tokenizers.Metaspace(), ["<unk>"]).to_str())
    spec["model"]["vocab"] += [[f"<0x{byte:02X}>", 0.0] for byte in range(256)]
    spec["model"]["byte_fallback"] = True
    spec["decoder"] = {"type": "Sequence", "decoders": [{"type": "ByteFallback"}, spec["decoder"]]}
    return Tokenizer.from_str(json.dumps(spec))


def clip() -> Tokenizer:
    model = models.BPE(unk_token="<|endoftext|>", continuing_subword_prefix="", end_of_word_suffix="</w>")
    made = Tokenizer(model)
    spaces = normalizers.Replace(Regex(r"\s+"), " ")
    made.normalizer = normalizers.Sequence([normalizers.NFC(), spaces, normalizers.Lowercase()])
    pattern = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [split(pattern, "removed", invert=True), byte_level(False, use_regex=False)]
    )
    made.decoder = decoders.ByteLevel()
    special = ("<|startoftext|>", "<|endoftext|>")
    _train(made, _byte_bpe(special=special, end_of_word_suffix="</w>", continuing_subword_prefix=""))
    made.post_processor = processors.RobertaProcessing(("<|endoftext|>", 1), ("<|startoftext|>", 0), False, False)
    return made


def gpt1() -> Tokenizer:
    made = Tokenizer(models.BPE(unk_token="<unk>", end_of_word_suffix="</w>"))
    made.normalizer = normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.decoder = decoders.BPEDecoder("</w>")
    return _train(made, _bpe(600, ("<unk>",), end_of_word_suffix="</w>", limit_alphabet=120))


def continuing_prefix() -> Tokenizer:
    made = Tokenizer(models.BPE(unk_token="[UNK]", continuing_subword_prefix="##", fuse_unk=True))
    made.normalizer = normalizers.NFKD()
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.decoder = decoders.WordPiece(cleanup=False)
    return _train(made, _bpe(600, ("[UNK]",), continuing_subword_prefix="##", limit_alphabet=100))


def roberta() -> Tokenizer:
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    _train(made, _byte_bpe(special=("<s>", "<pad>", "</s>", "<unk>")))
    made.add_special_tokens([AddedToken("<mask>", lstrip=True)])
    made.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), True, False)
    return made


def longformer() -> Tokenizer:
    """RoBERTa with a space in front, and trimmed offsets."""
    made = roberta()
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    made.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), True, True)
    return made


def gpt2() -> Tokenizer:
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.post_processor = processors.ByteLevel(trim_offsets=False)
    return _train(made, _byte_bpe(special=("<|endoftext|>",)))


def gptj() -> Tokenizer:
    """GPT-2's file, with extra tokens; offsets are trimmed."""
    made = gpt2()
    made.add_tokens([AddedToken(f"<|extratoken_{number}|>", normalized=True) for number in range(1, 4)])
    made.post_processor = processors.ByteLevel(trim_offsets=True)
    return made


def gpt_neox() -> Tokenizer:
    made = Tokenizer(models.BPE())
    made.normalizer = normalizers.NFC()
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.post_processor = processors.ByteLevel()
    _train(made, _byte_bpe(special=("<|endoftext|>", "<|padding|>")))
    made.add_tokens([AddedToken(" " * count, normalized=True) for count in range(24, 1, -1)])
    return made


def whisper() -> Tokenizer:
    made = gpt2()
    made.add_special_tokens(["<|startoftranscript|>", "<|en|>", "<|transcribe|>", "<|notimestamps|>"])
    made.add_tokens([AddedToken(f"<|{number / 50:.2f}|>", normalized=False) for number in range(5)])
    tokens = ("<|startoftranscript|>", "<|notimestamps|>", "<|endoftext|>")
    named = [(token, made.token_to_id(token)) for token in tokens]
    around = "<|startoftranscript|> <|notimestamps|> {} <|endoftext|>"
    made.post_processor = _template(around.format("$A"), around.format("$A:0 $B:1"), *named)
    return made


def bloom() -> Tokenizer:
    made = Tokenizer(models.BPE(fuse_unk=False))
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [split(r" ?[^(\s|[.,!?…。，、।۔،])]+"), byte_level(False, use_regex=False)]
    )
    made.decoder = decoders.ByteLevel()
    made.post_processor = processors.ByteLevel(trim_offsets=False)
    return _train(made, _byte_bpe(special=("<unk>", "<s>", "</s>", "<pad>")))


def falcon() -> Tokenizer:
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Punctuation("contiguous"), pre_tokenizers.ByteLevel(False),
            pre_tokenizers.Digits(individual_digits=False), split(r"[0-9][0-9][0-9]"),
        ]
    )  # fmt: skip
    made.decoder = decoders.ByteLevel()
    _train(made, _byte_bpe(special=(">>TITLE<<", "<|endoftext|>")))
    return made


def starcoder() -> Tokenizer:
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(True), pre_tokenizers.ByteLevel(False)])
    made.decoder = decoders.ByteLevel()
    made.post_processor = processors.ByteLevel()
    return _train(made, _byte_bpe(special=("<|endoftext|>", "<fim_prefix>")))


def deepseek_v3() -> Tokenizer:
    made = Tokenizer(models.BPE())
    made.normalizer = normalizers.Sequence([])
    third = (
        r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"""
        r"""| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"""
    )
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [
            split(r"\p{N}{1,3}"), split("[一-龥぀-ゟ゠-ヿ]+"), split(third), byte_level(False, use_regex=False),
        ]
    )  # fmt: skip
    made.decoder = decoders.ByteLevel()
    begin = "<｜begin▁of▁sentence｜>"
    _train(made, _byte_bpe(special=(begin, "<｜end▁of▁sentence｜>")))
    made.add_tokens([AddedToken("<｜User｜>", normalized=False)])
    template = _template(f"{begin} $A", f"{begin} $A {begin}:1 $B:1", (begin, 0))
    made.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), template])
    return made


def deepseek_coder() -> Tokenizer:
    made = Tokenizer(models.BPE())
    made.normalizer = normalizers.Sequence([])
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [
            split(r"[\r\n]"), split(r"\s?[A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-Ֆ]+"),
            split(r"\s?[!-/:-~！-／：-～‘-‟　-。]+"), split(r"\s+$"), split(r"[一-龥ࠀ-一가-퟿]+"),
            pre_tokenizers.Digits(True), byte_level(False, use_regex=False),
        ]
    )  # fmt: skip
    made.decoder = decoders.ByteLevel()
    return _train(made, _byte_bpe(special=("<｜begin▁of▁sentence｜>",)))


def gpt_oss() -> Tokenizer:
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.Sequence([split(O200K), byte_level(False, use_regex=False)])
    made.decoder = decoders.ByteLevel()
    return _train(made, _byte_bpe(special=("<|endoftext|>", "<|start|>")))


def kimi() -> Tokenizer:
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.Sequence([split(KIMI), byte_level(False, use_regex=False)])
    made.decoder = decoders.ByteLevel()
    return _train(made, _byte_bpe(special=("[BOS]", "[EOS]")))


def phi2() -> Tokenizer:
    made = gpt2()
    made.add_tokens([AddedToken(" " * count, normalized=True) for count in range(31, 1, -1)])
    made.add_tokens([AddedToken("\t" * count, normalized=True) for count in range(9, 1, -1)])
    return made


def phi3() -> Tokenizer:
    made = llama2_legacy()
    made.add_special_tokens([AddedToken(t, rstrip=True) for t in ("<|assistant|>", "<|user|>", "<|end|>")])
    made.add_special_tokens([AddedToken("<|endoftext|>")])
    made.add_tokens([AddedToken("</s>", rstrip=True, normalized=False)])
    return made


def byte_level_normalizer() -> Tokenizer:
    """Bytes are spelled by the normalizer; added tokens are found in that spelling."""
    made = Tokenizer(models.BPE())
    made.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.ByteLevel()])
    made.decoder = decoders.ByteLevel()
    _train(made, _byte_bpe())
    made.add_tokens([AddedToken("früh", normalized=True), AddedToken("Ort", normalized=False)])
    return made


def wav2vec2() -> Tokenizer:
    """Letters, decoded as CTC does."""
    letters = ["<pad>", "<s>", "</s>", "<unk>", "|", *"etaonihsrdlumwcfgypbvk'xjqz"]
    vocab = {letter: number for number, letter in enumerate(letters)}
    made = Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    made.normalizer = normalizers.Sequence([normalizers.Lowercase(), normalizers.Replace(" ", "|")])
    made.pre_tokenizer = split("", "isolated")
    made.decoder = decoders.CTC("<pad>", "|", True)
    return made


def words() -> Tokenizer:
    made = Tokenizer(models.WordLevel(unk_token="[UNK]"))
    made.normalizer = normalizers.Sequence([normalizers.NFD(), normalizers.StripAccents(), normalizers.Strip()])
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.WordLevelTrainer(vocab_size=500, special_tokens=["[UNK]"], show_progress=False)
    _train(made, trainer)
    made.add_tokens([AddedToken("word", single_word=True), AddedToken("Fuchs", normalized=True, single_word=True)])
    return made


def with_pre_tokenizer(*parts: Any) -> Callable[[], Tokenizer]:
    def make() -> Tokenizer:
        made = Tokenizer(models.BPE(unk_token="<unk>"))
        made.pre_tokenizer = pre_tokenizers.Sequence(list(parts)) if len(parts) > 1 else parts[0]
        made.decoder = decoders.Fuse()
        return _train(made, _bpe(500, ("<unk>",), limit_alphabet=150))

    return make


BEHAVIORS = ("removed", "isolated", "merged_with_previous", "merged_with_next", "contiguous")
STACKS: dict[str, Callable[[], Tokenizer]] = {
    make.__name__: make
    for make in (
        llama3, llama2_legacy, mistral, llama2_with_normalizer_and_first, gemma, qwen2, bert_uncased, bert_cased,
        bert_accents_stripped, t5, t5_legacy, xlm_roberta, albert, nmt, unigram_with_bytes, clip, gpt1,
        continuing_prefix, roberta, longformer, gpt2, gptj, gpt_neox, whisper, bloom, falcon, starcoder, deepseek_v3,
        deepseek_coder, gpt_oss, kimi, phi2, phi3, byte_level_normalizer, wav2vec2, words,
    )
}  # fmt: skip
STACKS |= {
    f"split_{behavior}{'_inverted' * invert}": with_pre_tokenizer(split(r"\s+|[,.]", behavior, invert))
    for behavior in BEHAVIORS
    for invert in (False, True)
}
STACKS |= {
    "string_split": with_pre_tokenizer(pre_tokenizers.Split("e", "merged_with_next")),
    "delimiter": with_pre_tokenizer(pre_tokenizers.CharDelimiterSplit("e")),
    "fixed_length": with_pre_tokenizer(pre_tokenizers.FixedLength(4)),
    "scripts": with_pre_tokenizer(pre_tokenizers.UnicodeScripts(), pre_tokenizers.Digits(True)),
    "punctuation": with_pre_tokenizer(pre_tokenizers.Punctuation("merged_with_previous")),
    "metaspace_never": with_pre_tokenizer(pre_tokenizers.Metaspace("_", "never", True)),
    "metaspace_first": with_pre_tokenizer(pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace("▁", "first")),
}


@cache
def stack(name: str) -> Tokenizer:
    """The tokenizer of that name, made once."""
    return STACKS[name]()


def version() -> str:
    return tokenizers.__version__
