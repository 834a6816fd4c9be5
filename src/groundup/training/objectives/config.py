"""Objectives as settings: `LanguageModelingConfig().build()`. Imports no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from groundup.base.config import Config

if TYPE_CHECKING:
    from groundup.training.objectives.objective import Objective


class ObjectiveConfig(Config):
    """What the model is trained towards."""

    def build(self) -> Objective:
        """The objective."""
        raise NotImplementedError


class LanguageModelingConfig(ObjectiveConfig):
    """Maximum likelihood of the next token."""

    kind: Literal["language_modeling"] = "language_modeling"
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    """Share of the target spread evenly over the vocabulary (Szegedy et al. 2016)."""
    z_loss: float = Field(default=0.0, ge=0)
    """Weight of log(Z)^2, which keeps the logits small (Chowdhery et al. 2022); 1e-4 there."""
    accuracy: bool = False
    """Also measure how often the likeliest token is the right one."""
    chunk_tokens: int = Field(default=1024, ge=1)
    """Logits are made for so many tokens at a time; the whole (tokens x vocabulary) matrix never exists."""

    def build(self) -> Objective:
        """The objective."""
        from groundup.training.objectives.language_modeling import LanguageModeling

        return LanguageModeling(self)


class JointFineTuningConfig(ObjectiveConfig):
    """Fine-tuning for a task together with language modelling (Radford et al. 2018)."""

    kind: Literal["joint_fine_tuning"] = "joint_fine_tuning"
    task: Literal["classification", "entailment", "similarity", "multiple_choice"] = "classification"
    """How an example is laid out: see `groundup.data.task_inputs`."""
    choices: int = Field(default=2, ge=2)
    """Answers to choose from, in multiple_choice."""
    language_weight: float = Field(default=0.5, ge=0)
    """Weight of the language modelling loss; 0.5 in the paper."""
    chunk_tokens: int = Field(default=1024, ge=1)
    """Logits are made for so many tokens at a time."""

    def build(self) -> Objective:
        """The objective."""
        from groundup.training.objectives.joint_fine_tuning import JointFineTuning

        return JointFineTuning(self)


class BidirectionalConfig(ObjectiveConfig):
    """Maximum likelihood of the next token and of the one before: for models that read from both ends (`elmo`)."""

    kind: Literal["bidirectional_language_modeling"] = "bidirectional_language_modeling"
    chunk_tokens: int = Field(default=1024, ge=1)
    """Logits are made for so many tokens at a time."""

    def build(self) -> Objective:
        """The objective."""
        from groundup.training.objectives.bidirectional import BidirectionalLanguageModeling

        return BidirectionalLanguageModeling(self)
