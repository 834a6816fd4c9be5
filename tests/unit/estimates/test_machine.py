"""The machine's measured limits."""

import subprocess
import sys

from groundup.estimates.machine import copy_bandwidth, gemm_flops


def test_measured_once_and_plausible():
    first = gemm_flops("fp32", size=256, rounds=2)
    assert 1e8 < first < 1e14
    assert gemm_flops("fp32", size=256, rounds=2) == first
    assert 1e7 < copy_bandwidth(megabytes=4, rounds=2) < 1e13


def test_settings_and_estimates_import_no_torch():
    modules = [
        "training.optimizers.config", "training.schedules", "training.ema", "training.precision", "training.batch_ramp",
        "training.early_stopping", "training.presets", "training.search", "estimates.memory", "estimates.flops",
        "commands.estimate", "estimates.machine",
    ]  # fmt: skip
    lines = [f"import groundup.{module}" for module in modules]
    code = "\n".join(["import sys", *lines, "assert 'torch' not in sys.modules"])
    subprocess.run([sys.executable, "-c", code], check=True)
