"""`inspect` and `convert` on files of other projects: SentencePiece's .model and RWKV's vocabulary."""

import json
import shutil

import pytest

from groundup.cli import main
from groundup.tokenizers.hub import load_tokenizer
from groundup.tokenizers.registry import SentencePieceConfig

TEXT = "the cat and the hat 中文 🙂\n"


def answer(capsys, *words):
    code = main(["tokenizer", *map(str, words)])
    caught = capsys.readouterr()
    return code, caught.out, caught.err


@pytest.fixture(params=["unigram", "bpe"])
def model(request, tmp_path):
    config = SentencePieceConfig(vocab_size=290, model=request.param, byte_fallback=True, coverage=0.9)
    tokenizer = config.train([TEXT] * 20)
    tokenizer.save_pretrained(tmp_path / "trained")
    return shutil.copy(tmp_path / "trained" / "tokenizer.model", tmp_path / "own.model"), request.param


@pytest.fixture
def rwkv(tmp_path):
    path = tmp_path / "rwkv_vocab_own.txt"
    lines = [f"{byte + 1} {bytes([byte])!r} 1" for byte in range(256)]
    path.write_text("\n".join([*lines, "257 ' the' 4", "258 '中文' 6", ""]), encoding="utf-8")
    return path


@pytest.mark.row("TOK-16", reference="own: from the command line")
def test_inspect_a_sentencepiece_file(model, capsys):
    path, kind = model
    facts = json.loads(answer(capsys, "inspect", path, "the cat", "--json")[1])
    assert (facts["kind"], facts["vocabulary"]) == ("sentencepiece", load_tokenizer(path).vocab_size)
    assert "".join(item["token"] for item in facts["tokens"]) == "▁the▁cat"
    plain = [token for token in load_tokenizer(path).vocab if not token.startswith("<")]
    piece = max(plain, key=len)
    assert len(piece) > 1
    assert piece.startswith("▁") == (kind == "bpe")  # the small unigram vocabulary keeps no word with its space
    for wanted in (piece, piece.replace("▁", " ")):  # its spelling, its text
        history = json.loads(answer(capsys, "inspect", path, "--token", wanted, "--json")[1])["history"]
        assert (history["token"], history["sort"]) == (piece, "vocabulary")
        assert history["start"] == (list(piece) if kind == "bpe" else [])
        assert any(note.startswith("its score is") for note in history["notes"])
    assert repr(piece) in answer(capsys, "inspect", path, "--token", piece)[1]
    by_id = json.loads(answer(capsys, "inspect", path, "--token", history["id"], "--json")[1])["history"]
    assert by_id == history


@pytest.mark.row("TOK-18", reference="own: from the command line")
def test_inspect_a_rwkv_vocabulary(rwkv, capsys):
    facts = json.loads(answer(capsys, "inspect", rwkv, "x the中文", "--json")[1])
    assert facts["kind"] == "trie"
    assert [item["id"] for item in facts["tokens"]] == [ord("x") + 1, 257, 258]
    for wanted in (" the", "Ġthe", "257"):
        history = json.loads(answer(capsys, "inspect", rwkv, "--token", wanted, "--json")[1])["history"]
        assert (history["id"], bytes.fromhex(history["bytes"])) == (257, b" the")
    out = answer(capsys, "inspect", rwkv, "--token", "中文")[1]
    assert "258" in out
    assert "e4 b8 ad e6 96 87 (6)" in out


@pytest.mark.row("TOK-16", reference="own: from the command line")
@pytest.mark.parametrize("to", ["json", "sentencepiece"])
def test_convert_a_sentencepiece_file(model, tmp_path, capsys, to):
    path, _ = model
    code, _, err = answer(capsys, "convert", path, "--to", to, "--out-dir", tmp_path / "out")
    assert (code, err) == (0, "")
    ours, back = load_tokenizer(path), load_tokenizer(tmp_path / "out")
    for text in (TEXT, "a  b", "x中é"):
        assert back.encode(text) == ours.encode(text)
    if to == "sentencepiece":
        assert (tmp_path / "out" / "tokenizer.model").read_bytes() == path.read_bytes()


@pytest.mark.row("TOK-18", reference="own: from the command line")
@pytest.mark.parametrize("to", ["json", "rwkv"])
def test_convert_a_rwkv_vocabulary(rwkv, tmp_path, capsys, to):
    code, _, err = answer(capsys, "convert", rwkv, "--to", to, "--out-dir", tmp_path / "out")
    assert (code, err) == (0, "")
    assert load_tokenizer(tmp_path / "out").encode("x the中文") == load_tokenizer(rwkv).encode("x the中文")


@pytest.mark.slow
@pytest.mark.row("TOK-16", reference="published: Llama 2")
@pytest.mark.row("TOK-18", reference="published: RWKV World")
def test_the_published_files(shared, tmp_path, capsys):
    for name, wanted, number, to in (
        ("llama2.model", "▁Hello", 15043, "json"),
        ("rwkv_vocab_v20230424.txt", "Hello", 33155, "rwkv"),
    ):
        path = shared / "tokenizers" / name
        history = json.loads(answer(capsys, "inspect", path, "--token", wanted, "--json")[1])["history"]
        assert history["id"] == number
        assert answer(capsys, "convert", path, "--to", to, "--out-dir", tmp_path / name)[0] == 0
        assert load_tokenizer(tmp_path / name).encode("Hello 中文") == load_tokenizer(path).encode("Hello 中文")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("inspect", "MODEL", "--token", "nosuchtoken"), "'nosuchtoken' is no token"),
        (("inspect", "MODEL", "--token", "99999"), "not in the vocabulary"),
        (("inspect", "MODEL", "--pattern", "gpt2"), "leave `pattern` off"),
        (("inspect", "CUT"), "cut.model"),
        (("inspect", "RWKV", "--token", "nosuchtoken"), "'nosuchtoken' is no token"),
        (("inspect", "RWKV", "--token", "99999"), "not in the vocabulary"),
        (("inspect", "RWKV", "--pattern", "gpt2"), "leave `pattern` off"),
        (("convert", "MODEL", "--to", "rwkv"), "can be written as: json, sentencepiece"),
        (("convert", "RWKV", "--to", "sentencepiece"), "can be written as: json, rwkv"),
        (("convert", "CUT", "--to", "json"), "cut.model"),
        (("convert", "RWKV", "--to", "nothing"), "nothing"),
    ],
)
def test_wrong_input_is_explained(model, rwkv, tmp_path, capsys, words, message):
    cut = tmp_path / "cut.model"
    cut.write_bytes(model[0].read_bytes()[:-7])
    paths = {"MODEL": model[0], "RWKV": rwkv, "CUT": cut}
    out = ("--out-dir", tmp_path / "out") if words[0] == "convert" else ()
    code, _, err = answer(capsys, *(paths.get(word, word) for word in words), *out)
    assert code != 0
    assert message in err
    assert "Traceback" not in err
    assert not (tmp_path / "out").exists()
