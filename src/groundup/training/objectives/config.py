"""Objectives as settings: `LanguageModelingConfig().build()`. Imports no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from groundup.base.config import Config

if TYPE_CHECKING:
    from groundup.training.objectives.objective import Objective


class ObjectiveConfig(Config):
    """What the model is trained towards."""

    def build(self) -> Objective:
        """The objective."""
        raise NotImplementedError

    def build_for(self, model: Any, tokenizer: Any) -> Objective:
        """The objective for a model and the tokenizer of its data; most need neither."""
        return self.build()


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


class BlankInfillingConfig(LanguageModelingConfig):
    """Write again what was taken out of a text (Du et al. 2022): for models that fill blanks (`glm_2021`, `glm_130b`,
    `chatglm_6b`). The shares of the three kinds of blanks make 1.
    """

    kind: Literal["blank_infilling"] = "blank_infilling"  # type: ignore[assignment]
    short: float = Field(default=1.0, ge=0, le=1)
    """Share of texts with short blanks, [MASK]; 0.3 in GLM-130B."""
    sentence: float = Field(default=0.0, ge=0, le=1)
    """Share of texts that lack whole sentences, [sMASK]."""
    document: float = Field(default=0.0, ge=0, le=1)
    """Share of texts that lack their end, [gMASK]; 0.7 in GLM-130B."""
    blanked: float = Field(default=0.15, gt=0, lt=1)
    """Share of a text in short blanks or sentences."""
    mean_span: float = Field(default=3.0, gt=0)
    """Mean of the Poisson distribution of short blanks' lengths."""
    longest_span: int = Field(default=39, ge=1)
    """Most tokens of a short blank."""
    document_least: float = Field(default=0.5, ge=0, le=1)
    """Least share of a text in its missing end; 0 in GLM-130B."""
    document_most: float = Field(default=1.0, ge=0, le=1)
    """Largest share."""
    shuffle: bool = True
    """Tell the blanks of a text in any order, not from left to right."""

    @model_validator(mode="after")
    def _shares_make_one(self) -> BlankInfillingConfig:
        if abs(self.short + self.sentence + self.document - 1) > 1e-6:
            raise ValueError(
                f"the shares of short, sentence and document blanks must make 1, but {self.short:g} + "
                f"{self.sentence:g} + {self.document:g} = {self.short + self.sentence + self.document:g}"
            )
        if self.document_least > self.document_most:
            raise ValueError(f"document_least {self.document_least:g} is above document_most {self.document_most:g}")
        return self

    def build(self) -> Objective:
        """Refused: the marks and positions are a model's."""
        from groundup.base.errors import UsageError

        raise UsageError("blank_infilling depends on the model's marks and positions: use build_for(model, tokenizer)")

    def build_for(self, model: Any, tokenizer: Any) -> Objective:
        """The objective with the model's marks and positions."""
        from groundup.training.objectives.blank_infilling import BlankInfilling

        return BlankInfilling.for_model(self, model, tokenizer)
