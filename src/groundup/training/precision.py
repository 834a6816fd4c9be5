"""Number formats of training: fp32, bf16 and fp16, and the loss scaling that fp16 needs."""

import contextlib
import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from groundup.base.config import Config

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class PrecisionConfig(Config):
    """How numbers are stored and multiplied while training.

    `dtype` bf16 or fp16 with `weights` "copies": the model's parameters are kept in that dtype, and the optimizer holds
    fp32 masters (Micikevicius et al. 2018). With `weights` "autocast": parameters stay fp32 and torch rounds the
    inputs of each matrix product. fp16 also scales the loss; bf16 has fp32's range and needs no scaling.

    `dtype` auto becomes bf16 with copies where the device multiplies bf16 in hardware (AVX512-bf16, AMX, NVIDIA from
    Ampere on), else fp32: see `resolved`.
    """

    dtype: Literal["auto", "fp32", "bf16", "fp16"] = "fp32"
    """Format of matrix products."""
    weights: Literal["copies", "autocast"] = "autocast"
    """Low-precision parameters with fp32 masters, or fp32 parameters under torch.autocast."""
    initial_scale: float = Field(default=65536.0, gt=0)
    """fp16: the first loss scale."""
    growth_interval: int = Field(default=2000, ge=1)
    """fp16: good steps in a row after which the scale doubles."""

    def resolved(self, device_type: str = "cpu") -> "PrecisionConfig":
        """This config with `auto` decided for a device."""
        if self.dtype != "auto":
            return self
        dtype = "bf16" if multiplies_bf16(device_type) else "fp32"
        return self.model_copy(update={"dtype": dtype, "weights": "copies"})

    def torch_dtype(self) -> "torch.dtype":
        """The torch dtype of `dtype`."""
        import torch

        assert self.dtype != "auto", "see `resolved`"
        return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[self.dtype]

    def parameter_dtype(self) -> "torch.dtype":
        """What the model's parameters are kept in."""
        import torch

        return self.torch_dtype() if self.weights == "copies" else torch.float32

    def autocast(self, device_type: str = "cpu") -> contextlib.AbstractContextManager[Any]:
        """The context of forward and loss."""
        import torch

        if self.dtype == "fp32" or self.weights == "copies":
            return contextlib.nullcontext()
        return torch.autocast(device_type, dtype=self.torch_dtype())

    def scaler(self) -> "LossScaler":
        """The loss scaler: dynamic for fp16; one that does nothing otherwise."""
        if self.dtype != "fp16":
            return LossScaler(scale=1.0, growth=1.0, backoff=1.0)
        return LossScaler(scale=self.initial_scale, growth_interval=self.growth_interval)


def multiplies_bf16(device_type: str) -> bool:
    """Whether the device has instructions for bf16 products; without them they are emulated, slower than fp32."""
    import torch

    if device_type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device_type == "cpu":
        return any(getattr(torch.cpu, name, bool)() for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    return False


class LossScaler:
    """Dynamic loss scaling (Micikevicius et al. 2018, section 3.2).

    fp16 holds nothing below 2^-24: smaller gradients become 0. The loss is multiplied by `scale` before backward, so
    all gradients are; they are divided by it in fp32 before clipping and update. A step whose gradients overflowed is
    skipped and the scale halves; after `growth_interval` good steps in a row it doubles.

        scaler.scale_loss(loss).backward()
        optimizer.gather()
        if scaler.unscale(optimizer.gradients()):
            optimizer.step()
        scaler.update()
    """

    def __init__(
        self, scale: float = 65536.0, *, growth: float = 2.0, backoff: float = 0.5, growth_interval: int = 2000
    ):
        self.scale = scale
        self.growth = growth
        self.backoff = backoff
        self.growth_interval = growth_interval
        self.good_steps = 0
        self._finite = True

    def scale_loss(self, loss: "Tensor") -> "Tensor":
        """The loss x scale."""
        return loss * self.scale if self.scale != 1.0 else loss

    def unscale(self, gradients: Iterable["Tensor"]) -> bool:
        """Divide gradients by the scale, in place; whether all are finite (else skip the update)."""
        from groundup.training.clipping import global_norm

        if self.scale == self.growth == 1.0:  # no scaling: whoever asks for the norm sees what is not finite
            self._finite = True
            return True
        gradients = list(gradients)
        for gradient in gradients:
            gradient.mul_(1.0 / self.scale)
        # The norm may overflow fp32 though each element is finite: then look at the elements.
        self._finite = math.isfinite(float(global_norm(gradients))) or all(bool(g.isfinite().all()) for g in gradients)
        return self._finite

    def update(self) -> None:
        """Adjust the scale after a step."""
        if not self._finite:
            self.scale *= self.backoff
            self.good_steps = 0
            return
        self.good_steps += 1
        if self.good_steps == self.growth_interval:
            grown = self.scale * self.growth
            self.scale = grown if math.isfinite(grown) else self.scale
            self.good_steps = 0

    def state_dict(self) -> dict[str, float | int]:
        """What a checkpoint keeps (JSON-able)."""
        return {"scale": self.scale, "good_steps": self.good_steps}

    def load_state_dict(self, state: dict[str, float | int]) -> None:
        """Take back `state_dict()`."""
        self.scale, self.good_steps = float(state["scale"]), int(state["good_steps"])
