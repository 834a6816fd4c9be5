"""Lines that tokenizers stumble over: real text of three kinds, generated lines, and random bytes. Always the same.

Tests compare our ids with a reference library's, line by line.
"""

# ruff: noqa: E501, RUF001
import gzip
import json
import random
import unicodedata
from collections.abc import Callable
from pathlib import Path

# Characters are drawn from these ranges; code points that this Python's Unicode tables do not assign are left out,
# because a library with newer or older tables may class them otherwise.
_SCRIPTS = {
    "german": "aäbcdefghijklmnoöpqrsßtuüvwxyzÄÖÜẞ .,-",
    "chinese": "".join(map(chr, range(0x4E00, 0x5200))) + "，。！？、：；（）《》",
    "japanese": "".join(map(chr, [*range(0x3041, 0x3097), *range(0x30A1, 0x30FB)])) + "。、ー・",
    "korean": "".join(map(chr, range(0xAC00, 0xAF00))) + "".join(map(chr, range(0x1100, 0x1113))),
    "cyrillic": "".join(map(chr, range(0x400, 0x460))) + " ",
    "greek": "".join(map(chr, range(0x386, 0x3CF))) + " ",
    "arabic": "".join(map(chr, range(0x620, 0x660))) + " ؟،",
    "hebrew": "".join(map(chr, range(0x5B0, 0x5EB))) + " ",
    "hindi": "".join(map(chr, range(0x900, 0x970))) + " ",
    "thai": "".join(map(chr, range(0xE01, 0xE5C))),
    "marks": "".join(map(chr, range(0x300, 0x370))) + "aeiouyAEIOU",
    "digits": "0123456789٠١٢٣४५६７８９①②½¾²³Ⅷ.,eE+-%$€£",
    "space": " \t\n\r\x0b\x0c\x85\u00a0\u1680\u2000\u2003\u2009\u200b\u2028\u2029\u202f\u205f\u3000\ufeffab",
    "control": "".join(map(chr, [*range(0x20), *range(0x7F, 0xA0)])) + "a b",
    "letters": "ﬁﬂﬃĳǆΩÅÀÉÎÕÜàéîõüçñŠžıİſßẞŁøÆœÞð𝐀𝓑𝔠ｱﾊﾟ㌀㍿℃№™",
    "signs": "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~ «»“”‘’…–—·•→∀∑√≠≤©®§¶†",
    "emoji": "😀😂🤣🙂🙃😉🥰🤖👍👎👩👨👧👦🏻🏿🇩🇪🇨🇳❤️\u200d\ufe0f🌍🚀♂♀ ",
    "ascii": "".join(map(chr, range(0x20, 0x7F))),
}  # fmt: skip

_EDGES = [
    "", " ", "  ", "\t", "\n", "\r\n", " \n ", "a", " a", "a ", "  a  ", "don't DON'T I'LL we've 'S 's ''s '", "▁", "▁▁a▁",
    "##a", "[UNK]", "[CLS] [SEP] [MASK]", "<s>", "</s>", "<unk>", "<0x0A>", "<|endoftext|>", "a<|endoftext|>b", "Ġ", "Ċ",
    "<|im_start|>user", "someunknownPlace", "Akwirw ier", "\ufeffbom", "e\u0301 é", "\u1e9b\u0323", "ﬁ ligature", "İstanbul", "ǅ",
    "👩‍👩‍👧‍👦 🇩🇪🇨🇳 👍🏿", "\U0010ffff", "\ufffd", "\ufffe", "\x00", "a\x00b", "\u200d", "ｆｕｌｌ　ｗｉｄｔｈ", "1234567890", "12.5e-3",
    "if x:\n\treturn  1\n", "{{ }} {% %}", "http://a.b/c?d=e&f=%20#g", "a" * 500, " " * 500, "\n" * 200, "1" * 300,
    "好" * 300, "🙂" * 100, "a\u0301" * 200, "e" + "\u0301" * 200, "ab" * 300, "!" * 300, "'" * 100, "- " * 100,
]  # fmt: skip


def nasty_lines(shared: Path, count: int = 10_000) -> list[str]:
    """At least `count` lines: English, German and code of `shared/data`, Chinese and 17 other kinds of generated text,
    mixtures, and random bytes read as UTF-8 with replacement."""
    rng = random.Random(20230424)
    real = _real_lines(shared / "data", rng, count // 2)
    made = [*_EDGES]
    makers: list[Callable[[random.Random], str]] = [_of_one_script, _mixture, _random_bytes, _repeated]
    while len(real) + len(made) < count:
        made.append(makers[len(made) % 4](rng))
    lines = real + made
    rng.shuffle(lines)
    return lines


def _real_lines(data: Path, rng: random.Random, count: int) -> list[str]:
    shakespeare = (data / "tinyshakespeare.txt").read_text(encoding="utf-8").splitlines(keepends=True)
    german = gzip.decompress((data / "multi30k" / "train.de.gz").read_bytes()).decode().splitlines()
    code = gzip.decompress((data / "humaneval" / "HumanEval.jsonl.gz").read_bytes()).decode().splitlines()
    programs = [json.loads(line) for line in code]
    functions = [program["prompt"] + program["canonical_solution"] for program in programs]
    code_lines = [line for function in functions for line in function.splitlines(keepends=True)]
    sums = [
        json.loads(line)["answer"] for line in (data / "gsm8k" / "test.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    kinds = [shakespeare, german, code_lines, sums]
    return functions + [line for kind in kinds for line in rng.sample(kind, min(len(kind), count // 4))]


def _assigned(text: str) -> str:
    return "".join(c for c in text if unicodedata.category(c) != "Cn")


_ALPHABETS = {name: _assigned(characters) for name, characters in _SCRIPTS.items()}
_NAMES = sorted(_ALPHABETS)


def _of_one_script(rng: random.Random) -> str:
    return "".join(rng.choices(_ALPHABETS[rng.choice(_NAMES)], k=rng.randint(1, 60)))


def _mixture(rng: random.Random) -> str:
    parts = [
        "".join(rng.choices(_ALPHABETS[rng.choice(_NAMES)], k=rng.randint(1, 6))) for _ in range(rng.randint(2, 12))
    ]
    return rng.choice(["", " ", ""]).join(parts)


def _random_bytes(rng: random.Random) -> str:
    """Bytes as they come, or a text's bytes with a few changed."""
    if rng.random() < 0.5:
        data = rng.randbytes(rng.randint(1, 80))
    else:
        data = bytearray(_mixture(rng).encode())
        for _ in range(rng.randint(1, 4)):
            data[rng.randrange(len(data))] = rng.randrange(256)
    return _assigned(bytes(data).decode("utf-8", errors="replace"))


def _repeated(rng: random.Random) -> str:
    piece = "".join(rng.choices(_ALPHABETS[rng.choice(_NAMES)], k=rng.randint(1, 4)))
    return piece * rng.randint(2, 40)
