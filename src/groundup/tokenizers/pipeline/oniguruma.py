r"""Regular expressions of tokenizer.json: they are written for Oniguruma (Ruby's dialect), and run by `regex` here.

What differs, and is translated:

- `^` and `$` are ends of lines; `.` leaves out the line end only; flag `m` makes it match that too.
- `{n,m}+` is a repetition repeated (possessive elsewhere), `{n}?` one that may be absent (lazy elsewhere), and
  `{,m}` starts at 0.
- A flag on its own, `(?i)`, holds up to the end of its group.
- `\h` is a hexadecimal digit, `\R` any line end, `\z` the very end; `\w` leaves out joiners, and
  outside of classes takes in the superscripts and fractions of Latin-1.
- In classes, `[a[bc]]` is a union and `&&` an intersection.
"""

from functools import lru_cache

import regex

from groundup.base.errors import CheckpointError

MAX_LENGTH = 2**16

_WORD = r"\p{Alphabetic}\p{M}\p{Nd}\p{Pc}"
_LATIN_NUMBERS = r"\xb2\xb3\xb9\xbc\xbd\xbe"
_HEX = "0-9A-Fa-f"
_OUTSIDE = {
    "w": f"[{_WORD}{_LATIN_NUMBERS}]",
    "W": f"[^{_WORD}{_LATIN_NUMBERS}]",
    "h": f"[{_HEX}]",
    "H": f"[^{_HEX}]",
    "R": r"(?>\r\n|[\n-\r\x85\u2028\u2029])",
    "z": r"\Z",
    "Z": r"(?=\n?\Z)",
    "e": r"\x1b",
}
_INSIDE = {"w": _WORD, "W": f"[^{_WORD}]", "h": _HEX, "H": f"[^{_HEX}]", "e": r"\x1b"}
_NESTED = "WH"  # escapes that become a class within a class
_LINE_START = r"(?:\A|(?<=\n)(?=[\s\S]))"
_LINE_END = r"(?=\n|\Z)"
_INTERVAL = regex.compile(r"\{(\d*)(,?)(\d*)\}")
_FLAGS = regex.compile(r"\(\?([a-z]*)(-[a-z]*)?([:)])")
_GROUP = regex.compile(r"\((?:\?(?:[:=!>]|<[=!]|<\w+>|'\w+'))?")
_POSIX = regex.compile(r"\[:\^?[a-z]+:\]")
_PROPERTY = regex.compile(r"[pP]\{[^}]*\}")
_CODE_POINT = regex.compile(r"x\{([0-9A-Fa-f]{1,6})\}")


@lru_cache(maxsize=256)
def compile_pattern(pattern: str) -> "regex.Pattern[str]":
    """The pattern as `regex` runs it.

    Raises:
        CheckpointError: not an expression, or one that `regex` cannot run.
    """
    if len(pattern) > MAX_LENGTH:
        raise CheckpointError(f"a regular expression of {len(pattern)} characters: at most {MAX_LENGTH} are read")
    try:
        return regex.compile(translate(pattern))
    except (regex.error, RecursionError, OverflowError, ValueError) as error:
        raise CheckpointError(f"{pattern!r:.200} is not a regular expression that is understood: {error}") from None


def translate(pattern: str) -> str:
    """A pattern of Oniguruma in the dialect of the `regex` module."""
    return _Translator(pattern).run()


class _Translator:
    """Goes over a pattern once. `done` holds what is translated, one entry an atom, quantifier or bracket."""

    def __init__(self, pattern: str):
        self.pattern, self.place = pattern, 0
        self.done: list[str] = []
        self.groups: list[tuple[int, int]] = []  # where each open group begins in `done`; flags to close with it
        self.flags = 0
        self.atom = 0  # where the last atom begins in `done`
        self.sets = False  # classes within classes, which only version 1 of `regex` knows

    def run(self) -> str:
        while self.place < len(self.pattern):
            self._step(self.pattern[self.place])
        return ("(?V1)" if self.sets else "") + "".join(self.done) + ")" * self.flags

    def _step(self, character: str) -> None:
        if character == "\\":
            self._atom(self._escape(_OUTSIDE))
        elif character == "[":
            self._atom(self._class())
        elif character == "(":
            self._open()
        elif character == ")":
            self._close()
        elif character == "{":
            self._interval()
        elif character in "?*+|":
            self.place += 1
            self.done.append(character)
        else:
            self.place += 1
            self._atom({"^": _LINE_START, "$": _LINE_END, "}": r"\}"}.get(character, character))

    def _atom(self, text: str) -> None:
        self.atom = len(self.done)
        self.done.append(text)

    def _escape(self, table: dict[str, str]) -> str:
        """The escape at this place."""
        start = self.place + 1
        for kind in (_PROPERTY, _CODE_POINT):
            if found := kind.match(self.pattern, start):
                self.place = found.end()
                return "\\" + found[0] if kind is _PROPERTY else regex.escape(chr(min(int(found[1], 16), 0x10FFFF)))
        letter = self.pattern[start : start + 1]
        self.place = start + 1
        self.sets = self.sets or (table is _INSIDE and letter in _NESTED and letter != "")
        return table.get(letter, "\\" + letter)

    def _class(self) -> str:
        """A bracketed class, with the classes inside it."""
        text, depth, first = "", 0, False
        while self.place < len(self.pattern):
            character = self.pattern[self.place]
            if character == "\\":
                text += self._escape(_INSIDE)
                first = False
                continue
            posix = _POSIX.match(self.pattern, self.place) if depth else None
            if posix:
                text += posix[0]
                self.place = posix.end()
                first = False
                continue
            self.place += 1
            if character == "[":
                self.sets = self.sets or depth > 0
                depth, first = depth + 1, True
                text += character
            elif character == "]" and not first:
                depth -= 1
                text += character
                if depth == 0:
                    return text
            else:
                first = first and character == "^"
                text += self._in_class(character)
        return text

    def _in_class(self, character: str) -> str:
        if character == "&" and self.pattern.startswith("&", self.place):
            self.place += 1
            self.sets = True
            return "&&"
        return "\\" + character if character in "|~&[]" else character

    def _open(self) -> None:
        if self.pattern.startswith("(?#", self.place):
            end = self.pattern.find(")", self.place)
            self.place = end + 1 if end >= 0 else len(self.pattern)
            return
        if flags := _FLAGS.match(self.pattern, self.place):
            on, off = (part.replace("m", "s") for part in (flags[1], flags[2] or ""))
            self.place = flags.end()
            opening = f"(?{on}{off}:" if on or len(off) > 1 else "(?:"
            if flags[3] == ")":  # up to the end of the group around it
                self.done.append(opening)
                self.flags += 1
                return
        else:
            found = _GROUP.match(self.pattern, self.place)
            opening = found[0] if found else "("
            self.place += len(opening)
        self.groups.append((len(self.done), self.flags))
        self.flags = 0
        self.done.append(opening)

    def _close(self) -> None:
        self.place += 1
        self.done.append(")" * self.flags + ")")
        if self.groups:
            self.atom, self.flags = self.groups.pop()

    def _interval(self) -> None:
        found = _INTERVAL.match(self.pattern, self.place)
        if not found or not (found[1] or found[3]):
            self.place += 1
            self._atom(r"\{")
            return
        self.place = found.end()
        self.done.append("{" + (found[1] or "0") + found[2] + found[3] + "}")
        following = self.pattern[self.place : self.place + 1]
        if following == "+" or (following == "?" and not found[2]):
            self.done[self.atom :] = ["(?:" + "".join(self.done[self.atom :]) + ")"]
