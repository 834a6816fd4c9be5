"""`groundup entropy` and `groundup shannon`: how many bits a letter of a text holds; and the game that finds out."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import Field
from pydantic_settings import CliPositionalArg

from groundup.base.console import json_output, say, table
from groundup.base.errors import UsageError
from groundup.commands.command import Command

MOST_LETTERS = 2_000_000


class OfText(Command):
    """What both share: the text."""

    source: CliPositionalArg[str] = "pydocs"
    """A text file, or a built-in corpus: stories, pydocs, pystdlib."""
    letters: Literal[26, 27] = 27
    """The alphabet: 26 letters, or 27 with the space between words."""

    def text(self) -> str:
        """The text in the alphabet."""
        from groundup.evaluation.entropy import reduced

        found = reduced(read_text(self.source), self.letters)[:MOST_LETTERS]
        if not found:
            raise UsageError(f"{self.source} holds no letters")
        return found


class Entropy(OfText):
    """Estimates of the entropy of a text: by blocks of letters (Shannon's F_N), by words, and under a model."""

    longest: int = Field(default=6, ge=1, le=20)
    """N of the longest blocks."""
    model: str | None = None
    """Also measure this model's cross-entropy on the end of the text as it is, in bits a character and byte."""
    measured: int = Field(default=20_000, ge=1)
    """Characters at the end that the model is measured on."""

    def run(self) -> dict[str, Any]:
        """Print the table."""
        from groundup.evaluation.entropy import block_entropies, word_entropy

        text = self.text()
        longest = min(self.longest, len(text))
        plain, corrected = (block_entropies(text, longest, corrected=c) for c in (False, True))
        names = [f"F{n}" for n in range(longest + 1)]
        rows = [[n, f"{a:.3f}", f"{b:.3f}"] for n, a, b in zip(names, plain, corrected, strict=True)]
        result: dict[str, Any] = {"letters": len(text), "bits_per_letter": dict(zip(names, plain, strict=True))}
        result["corrected"] = dict(zip(names, corrected, strict=True))
        say(f"{len(text):,} letters of an alphabet of {self.letters}")
        say(table(rows, ["bits a letter", "counted", "corrected"]))
        if self.letters == 27:
            words = text.split()
            bits, length = word_entropy(words), sum(map(len, words)) / len(words)
            result["bits_per_word"], result["letters_per_word"] = bits, length
            say(
                f"words by frequency: {bits:.2f} bits a word of {length:.2f} letters, {bits / length:.2f} bits a letter"
            )
        if self.model is not None:
            result |= self._under_model()
        return result

    def _under_model(self) -> dict[str, float]:
        from groundup.evaluation.entropy import bits_per_character
        from groundup.evaluation.perplexity import measure
        from groundup.models.hub import load_model
        from groundup.tokenizers.hub import load_tokenizer

        assert self.model is not None
        model, tokenizer = load_model(self.model), load_tokenizer(self.model)
        text = read_text(self.source)[-self.measured :]
        per_character = bits_per_character(model, tokenizer, [text])
        per_byte = measure(model, tokenizer, [text]).bits_per_byte
        say(f"under {self.model}, of the text as it is: {per_character:.3f} bits a character, {per_byte:.3f} a byte")
        return {"bits_per_character": per_character, "bits_per_byte": per_byte}


class Shannon(OfText):
    """The Shannon game: guess a text letter by letter. The numbers of guesses bound the entropy of the language."""

    by: Literal["human", "ngram", "model"] = "human"
    """Who guesses: you (one letter a line, an underscore for a space, an empty line ends the game), letters counted in
    the rest of the text, or a language model."""
    order: int = Field(default=6, ge=1)
    """n of the n-grams."""
    model: str = "tiny"
    """The language model that guesses."""
    length: int = Field(default=100, ge=1)
    """Letters to guess."""
    known: int = Field(default=60, ge=0)
    """Letters before them that are shown."""
    seed: int = 0
    """Of the passage."""

    def run(self) -> dict[str, Any]:
        """Play; the numbers of guesses, and the bounds."""
        from groundup.evaluation.entropy import ALPHABETS, cross_entropy
        from groundup.evaluation.shannon_game import Game, predictor

        alphabet, text = ALPHABETS[self.letters], self.text()
        begin = passage(len(text), self.known + self.length, self.seed)
        end = begin + self.known + self.length
        game = Game(text[begin:end], alphabet, self.known)
        if self.by == "human":
            with json_output():
                self._ask(game)
        guesser = self._guesser(text[:begin] + (" " if self.letters == 27 else "") + text[end:], alphabet)
        if self.by != "human":
            self._let_play(game, guesser)
        if not game.guesses:
            return {"guesses": []}
        lower, upper = game.bounds()
        first = game.guesses.count(1) / len(game.guesses)
        say(f"{len(game.guesses)} letters, {first:.0%} at the first guess")
        say(f"bounds of the entropy of a letter: {lower:.2f} to {upper:.2f} bits")
        known = game.text[: self.known]
        past = predictor(guesser, alphabet)
        bits = cross_entropy(game.past[self.known :], lambda text: past(known + text))
        name = self.model if self.by == "model" else f"{self.order}-grams of the rest of the text"
        say(f"the same letters under {name}: {bits:.2f} bits a letter")
        return {"guesses": game.guesses, "text": game.past, "lower": lower, "upper": upper, "model_bits": bits}

    def _guesser(self, rest: str, alphabet: str) -> Any:
        from groundup.evaluation.shannon_game import ModelGuesser, NGramGuesser

        if self.by != "model":
            return NGramGuesser(rest, alphabet, self.order)
        from groundup.models.hub import load_model
        from groundup.tokenizers.hub import load_tokenizer

        return ModelGuesser(load_model(self.model, dtype="float32"), load_tokenizer(self.model), alphabet)

    def _let_play(self, game: Any, guesser: Any) -> None:
        from groundup.evaluation.shannon_game import play

        play(game, guesser)
        shown = game.text[self.known :]
        for start in range(0, len(shown), 30):
            part, numbers = shown[start : start + 30], game.guesses[start : start + 30]
            say(" ".join(f"{letter:>2}" for letter in part.replace(" ", "_")))
            say(" ".join(f"{number:>2}" for number in numbers) + "\n")

    def _ask(self, game: Any) -> None:
        say(f"What comes next? One letter a line, _ for a space; an empty line ends the game.\n\n{game.past}_?")
        for line in lines():
            letter = line.strip().lower().replace("_", " ")
            if not letter:
                return
            try:
                right = game.guess(letter)
            except UsageError as error:
                say(str(error))
                continue
            if right:
                say(f"yes, after {game.guesses[-1]}\n{game.past[-70:]}_?")
            if game.over:
                return
            if not right:
                say(f"no; not {' '.join(game.tried).replace('  ', ' _')}")


def lines() -> Iterator[str]:
    """Lines of standard input until it ends."""
    yield from sys.stdin


def passage(letters: int, wanted: int, seed: int) -> int:
    """Where a passage of `wanted` letters begins, drawn by seed."""
    import random

    if letters < 2 * wanted:
        raise UsageError(f"the text has {letters:,} letters; a passage of {wanted} needs twice as many, to learn from")
    return random.Random(seed).randrange(letters - wanted)


def read_text(source: str) -> str:
    """A file's text, or that of a built-in corpus as far as it is needed."""
    from groundup.data.builtin import NAMES, open_corpus

    path = Path(source)
    if path.is_file():
        return path.read_text(encoding="utf-8", errors="replace")
    if source not in NAMES:
        raise UsageError(f"no text at {source}: give a file, or one of {', '.join(NAMES)}")
    return "\n\n".join(document.text for document in open_corpus(source, bytes=2 * MOST_LETTERS))
