"""What all tests share."""

import os
from pathlib import Path

import pytest

pytest_plugins = ["groundup.catalogue.pytest_plugin"]


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data sets and vocabularies; the test is skipped where it is absent."""
    default = Path(__file__).resolve().parents[1].parent / "shared"
    path = Path(os.environ.get("GROUNDUP_SHARED", default))
    if not path.is_dir():
        pytest.skip(f"real data not found at {path} (set GROUNDUP_SHARED)")
    return path
