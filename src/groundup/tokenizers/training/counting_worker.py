"""Counts the words of texts in a process of its own: `counting.ProcessCounter` feeds it.

Messages (`processes`), each JSON, come in on stdin: first how to cut, then lists of texts. At their end one message
{word: count} goes to stdout.
"""

import json
from typing import IO

from groundup.tokenizers.processes import messages, serve, write_message
from groundup.tokenizers.training.counting import count_here
from groundup.tokenizers.training.splitting import read_splitter


def count(read: IO[bytes], write: IO[bytes]) -> None:
    """Count until there is no more."""
    told = map(json.loads, messages(read))
    splitter = read_splitter(next(told))
    counts = count_here(told, splitter)
    write_message(write, json.dumps(counts, ensure_ascii=False).encode("utf-8"))


if __name__ == "__main__":
    serve(count)
