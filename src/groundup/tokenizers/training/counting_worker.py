"""Counts the pieces of texts in a process of its own: `counting.ProcessCounter` starts it.

    python -m groundup.tokenizers.training.counting_worker PATTERN

Lines of JSON, each a list of texts, come in on stdin; at their end one object {piece: count} goes to stdout.
"""

import json
import sys

from groundup.tokenizers.pretokenize import PreTokenizer
from groundup.tokenizers.training.counting import count_here


def main(pattern: str) -> None:
    """Count until there is no more."""
    lines = (json.loads(line) for line in sys.stdin.buffer)
    json.dump(count_here(lines, PreTokenizer(pattern)), sys.stdout)


if __name__ == "__main__":
    main(sys.argv[1])
