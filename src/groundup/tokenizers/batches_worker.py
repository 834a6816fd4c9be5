"""Encodes portions of a large batch in a process of its own: `batches.Team` feeds it.

Messages (`processes`) come in on stdin: first the folder of the tokenizer, in JSON; then portions, in JSON: texts and
options of `encode`. Answers go to stdout: what was loaded; then the ids of each portion, or nothing for one that has
none.
"""

import json
from pathlib import Path
from typing import IO

from groundup.base.errors import GroundupError
from groundup.tokenizers.batches import identity, ids_as_bytes
from groundup.tokenizers.hub import load_tokenizer
from groundup.tokenizers.processes import messages, serve, write_message


def encode(read: IO[bytes], write: IO[bytes]) -> None:
    """Encode until there is no more."""
    told = map(json.loads, messages(read))
    try:
        tokenizer = load_tokenizer(Path(next(told)))
        write_message(write, identity(tokenizer).encode("utf-8"))
    except GroundupError as error:
        write_message(write, str(error).encode("utf-8"))
        return
    for texts, options in told:
        try:
            answer = ids_as_bytes([tokenizer.encode(text, **options) for text in texts])
        except GroundupError:
            answer = b""
        write_message(write, answer)


if __name__ == "__main__":
    serve(encode)
