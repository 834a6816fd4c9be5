"""How long the start takes: `import groundup` and `groundup --help` in fresh interpreters, beside other imports."""

import importlib.util
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace

from groundup.benchmarks.rounds import Comparison, compare, in_turn

TARGET_SECONDS = 0.3

OURS = {
    "import groundup": ["-c", "import groundup"],
    "groundup --help": ["-m", "groundup", "--help"],
}
PEERS = {
    "python (an empty program)": ["-c", "pass"],
    "import torch": ["-c", "import torch"],
    "import transformers": ["-c", "import transformers"],
}


def seconds_of(arguments: list[str]) -> float:
    """Wall time of one fresh interpreter, from its start to its end."""
    start = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def measure(rounds: int) -> list[Comparison]:
    """Medians over the rounds; each of ours against each peer that is installed."""
    peers = {name: words for name, words in PEERS.items() if is_installed(words[-1])}
    measured = in_turn({name: timer(words) for name, words in {**OURS, **peers}.items()}, rounds)
    return [compare_start(name, peer, measured) for name in OURS for peer in peers]


def timer(words: list[str]) -> Callable[[], float]:
    """A measurement of these arguments."""
    return lambda: seconds_of(words)


def is_installed(code: str) -> bool:
    """Whether the module that `import NAME` names is there; true for other code."""
    return not code.startswith("import ") or importlib.util.find_spec(code.removeprefix("import ")) is not None


def compare_start(name: str, peer: str, measured: dict[str, list[float]]) -> Comparison:
    """One row of the result."""
    found = compare(name, peer, measured[name], {peer: measured[peer]}, "s", higher_is_better=False)
    return replace(found, target=f"{TARGET_SECONDS} s", met=found.ours <= TARGET_SECONDS)
