"""The machine's measured limits."""

import subprocess
import sys

from groundup.base.peak import copy_bandwidth, gemm_flops, peak_flops


def test_measured_once_and_plausible():
    assert 1e8 < gemm_flops(size=256, seconds=0.01) < 1e15
    assert peak_flops("cpu", "fp32") == peak_flops("cpu", "fp32")
    assert 1e7 < copy_bandwidth(megabytes=4, seconds=0.01) < 1e14


def test_settings_and_estimates_import_no_torch():
    modules = [
        "training.optimizers.config", "training.schedules", "training.ema", "training.precision", "training.batch_ramp",
        "training.early_stopping", "training.presets", "training.search", "estimates.memory", "estimates.flops",
        "commands.estimate", "base.peak",
    ]  # fmt: skip
    lines = [f"import groundup.{module}" for module in modules]
    code = "\n".join(["import sys", *lines, "assert 'torch' not in sys.modules"])
    subprocess.run([sys.executable, "-c", code], check=True)
