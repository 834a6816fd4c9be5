"""What the tests of processes share."""

import subprocess

import pytest

from groundup.tokenizers import processes


@pytest.fixture
def started(monkeypatch):
    """All processes that are started."""
    made = []
    popen = subprocess.Popen

    def start(*args, **options):
        made.append(popen(*args, **options))
        return made[-1]

    monkeypatch.setattr(processes.subprocess, "Popen", start)
    return made
