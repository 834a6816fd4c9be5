"""What benchmarks need of transformers beside its models."""

from pathlib import Path
from typing import Any


def transformers_config(folder: str | Path) -> Any:
    """Its config of a folder, without a padding token: what a family sets by default may lie above a small vocabulary,
    and then the embedding refuses it.
    """
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(folder)
    config.pad_token_id = None
    return config
