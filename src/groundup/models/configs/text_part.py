"""The config.json of a model for images and texts: what is said there of the text model inside."""

from typing import Any

from groundup.base.errors import CheckpointError

OF_IMAGES = frozenset(
    {
        *("vision_config", "image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id"),
        *("language_model_only", "architectures", "model_type", "text_config"),
    }
)
"""What says nothing of the text model."""


def text_part(values: dict[str, Any]) -> dict[str, Any]:
    """The text model's own config. What stands beside it holds for it too, and counts first where it is not null: ids,
    whether the head is tied, how weights are packed.

    Raises:
        CheckpointError: no `text_config`, or one without `model_type`.
    """
    inner = values.get("text_config")
    if not isinstance(inner, dict) or not isinstance(inner.get("model_type"), str):
        raise CheckpointError(
            f"config.json: a {values['model_type']} model needs a `text_config` with its `model_type`"
        )
    beside = {name: value for name, value in values.items() if name not in OF_IMAGES and value is not None}
    if {"dtype", "torch_dtype"} & beside.keys():
        inner = {name: value for name, value in inner.items() if name not in ("dtype", "torch_dtype")}
    return inner | beside
