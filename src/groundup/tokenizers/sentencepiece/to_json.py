"""A SentencePiece tokenizer as tokenizer.json, which the `tokenizers` library reads.

The same ids, but for what that format cannot say: sums of scores are in double precision there, so cuts that are equal
in single precision may be told apart; a normalization map is applied to clusters of characters that are seen as one,
the shortest rule first; BPE prefers one way to write a piece over another, where here the leftmost comes first; and
symbols of the user end the text before them, so that a space is put in front of what follows.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from groundup.base.errors import UsageError
from groundup.tokenizers.formats.sentencepiece_proto import ModelFile, ModelType, Piece, PieceType
from groundup.tokenizers.sentencepiece.text import SPACE

if TYPE_CHECKING:
    from groundup.tokenizers.sentencepiece.tokenizer import SentencePiece

NEVER = -10_000.0  # the score of pieces that text must not become; the other format has no types
Json = dict[str, Any]


def sentencepiece_to_json(tokenizer: "SentencePiece") -> Json:
    """The content of tokenizer.json.

    Raises:
        UsageError: a model that the format cannot express.
    """
    from groundup.tokenizers.files import _frame

    file = tokenizer.file
    if tokenizer.model_type not in (ModelType.UNIGRAM, ModelType.BPE):
        raise UsageError(
            f"tokenizer.json cannot express a {tokenizer.model_type.name.lower()} model: use tokenizer.model"
        )
    frame = _frame(
        tokenizer,
        normalizer=_normalizer(file),
        post_processor=tokenizer.post_processor,
        decoder=_decoder(file),
        model=_unigram(file) if tokenizer.model_type == ModelType.UNIGRAM else _bpe(file),
    )
    if tokenizer.model_type == ModelType.BPE:
        frame["added_tokens"] += [_symbol(n, p) for n, p in enumerate(file.pieces) if p.piece in tokenizer.symbols]
        frame["added_tokens"].sort(key=lambda token: token["id"])
    return frame


def _symbol(number: int, piece: Piece) -> Json:
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized", "special"), False)
    return {"id": number, "content": piece.piece, **flags}


def _normalizer(file: ModelFile) -> Json | None:
    spec, space = file.normalizer, SPACE if file.normalizer.escape_whitespaces else " "
    parts: list[Json] = []
    if spec.precompiled_charsmap:
        import base64

        data = base64.b64encode(spec.precompiled_charsmap).decode("ascii")
        parts.append({"type": "Precompiled", "precompiled_charsmap": data})
    if spec.remove_extra_whitespaces:
        parts += [_replace({"Regex": " {2,}"}, " "), _replace({"Regex": r"\A +"}, "")]
    if spec.escape_whitespaces:
        parts.append(_replace({"String": " "}, SPACE))
    if spec.add_dummy_prefix and not file.trainer.treat_whitespace_as_suffix:
        parts.append({"type": "Prepend", "prepend": space})
    if spec.remove_extra_whitespaces:
        parts.append(_replace({"Regex": rf"{space}+\z"}, ""))
    if spec.add_dummy_prefix and file.trainer.treat_whitespace_as_suffix:
        parts.append(_replace({"Regex": r"(?<=[\s\S])\z"}, space))
    return {"type": "Sequence", "normalizers": parts} if parts else None


def _replace(pattern: Json, content: str) -> Json:
    return {"type": "Replace", "pattern": pattern, "content": content}


def _decoder(file: ModelFile) -> Json:
    parts: list[Json] = [_replace({"String": SPACE}, " ")]
    unknown = file.pieces[_unknown(file)].piece
    if not file.trainer.byte_fallback and file.trainer.unk_surface != unknown:
        parts.insert(0, _replace({"String": unknown}, file.trainer.unk_surface))
    if file.trainer.byte_fallback:
        parts.append({"type": "ByteFallback"})
    parts.append({"type": "Fuse"})
    if file.normalizer.add_dummy_prefix and not file.trainer.treat_whitespace_as_suffix:
        parts.append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
    return {"type": "Sequence", "decoders": parts}


def _unknown(file: ModelFile) -> int:
    return next(number for number, piece in enumerate(file.pieces) if piece.type == PieceType.UNKNOWN)


def _unigram(file: ModelFile) -> Json:
    from groundup.tokenizers.sentencepiece.models import Unigram

    searched = (PieceType.NORMAL, PieceType.USER_DEFINED)
    vocab = [[p.piece, Unigram.score(p) if p.type in searched else NEVER] for p in file.pieces]
    return {
        "type": "Unigram",
        "unk_id": _unknown(file),
        "vocab": vocab,
        "byte_fallback": file.trainer.byte_fallback,
    }


def _bpe(file: ModelFile) -> Json:
    unknown = file.pieces[_unknown(file)].piece
    return {
        "type": "BPE",
        "dropout": None,
        "unk_token": unknown,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": True,
        "byte_fallback": file.trainer.byte_fallback,
        "ignore_merges": False,
        "vocab": {piece.piece: number for number, piece in enumerate(file.pieces)},
        "merges": [list(pair) for pair in merges_of(file)],
    }


def merges_of(file: ModelFile) -> list[tuple[str, str]]:
    """Every way to write a piece as two others, the pieces with the best scores first."""
    scores = {piece.piece: piece.score for piece in file.pieces if piece.type in (PieceType.NORMAL, PieceType.UNUSED)}
    ranks = {piece.piece: number for number, piece in enumerate(file.pieces)}

    def ways() -> Iterator[tuple[float, int, int, str, str]]:
        for piece, score in scores.items():
            for place in range(1, len(piece)):
                left, right = piece[:place], piece[place:]
                if left in scores and right in scores:
                    yield -score, ranks[left], ranks[right], left, right

    return [(left, right) for _, _, _, left, right in sorted(ways())]
