"""Rows of a table of measurements: what each convention means, what is refused and why."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from setpoint.hardware.errors import HardwareError
from setpoint.hardware.measurements import Setting, covered, read_measurements, setting_of

ROW = {
    "backend": "vllm", "backend_version": "0.19.0", "model_path": "deepseek-ai/DeepSeek-R1", "system": "b200_sxm",
    "precision": "fp8", "isl": "1024", "osl": "512", "batch_size": "16", "tp_size": "8", "pp_size": "1",
    "attention_dp_size": "1", "moe_tp_size": "8", "moe_ep_size": "1", "silicon_ttft_ms": "250", "silicon_tpot_ms": "12.5",
}  # fmt: skip


def spread(setting: Setting) -> tuple[int, int, int, float]:
    deployment = setting.deployment
    return deployment.tensor_parallel, deployment.data_parallel, deployment.expert_parallel, setting.concurrency


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        ({}, (8, 1, 1, 16)),
        ({"tp_size": "64", "moe_ep_size": "8"}, (8, 1, 8, 16)),
        ({"tp_size": "16", "moe_tp_size": "4", "moe_ep_size": "4", "precision": "fp4"}, (4, 1, 4, 16)),
        ({"moe_tp_size": "1", "moe_ep_size": "8"}, (8, 1, 8, 16)),
        ({"tp_size": "1", "attention_dp_size": "64", "moe_ep_size": "8", "batch_size": "2"}, (1, 8, 8, 128)),
        ({"tp_size": "1", "attention_dp_size": "8", "moe_tp_size": "1", "moe_ep_size": "8", "batch_size": "2"}, (1, 8, 8, 16)),
        (
            {
                "tp_size": "4",
                "attention_dp_size": "4",
                "moe_tp_size": "1",
                "moe_ep_size": "16",
                "batch_size": "4",
                "precision": "fp4",
            },
            (1, 4, 4, 16),
        ),
        ({"attention_dp_size": "", "moe_tp_size": "", "moe_ep_size": ""}, (8, 1, 1, 16)),
    ],
)
def test_devices_are_counted_once(change: dict[str, str], wanted: tuple[int, int, int, float]) -> None:
    found = setting_of({**ROW, **change})
    assert spread(found) == wanted


def test_weights_that_cannot_fit_were_on_more_devices() -> None:
    found = setting_of(
        {**ROW, "system": "h100_sxm", "model_path": "Qwen/Qwen3-235B-A22B-FP8", "tp_size": "1", "moe_tp_size": "1"}
    )
    assert found.deployment.tensor_parallel == 4


def test_precisions_come_from_the_row_else_from_the_model() -> None:
    plain = {**ROW, "precision": "", "model_path": "meta-llama/Llama-3.1-8B-Instruct"}
    assert setting_of(plain).deployment.weight_precision == "bf16"
    assert setting_of({**plain, "gemm_quant_mode": "fp8_block"}).deployment.weight_precision == "fp8"
    assert setting_of({**plain, "model_path": "RedHatAI/Llama-3.1-8B-Instruct-FP8"}).deployment.weight_precision == "fp8"
    assert setting_of({**ROW, "precision": ""}).deployment.weight_precision == "fp8"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"backend": "abacus"}, "engine 'abacus' is not known"),
        ({"model_path": "nobody/nothing"}, "model 'nobody/nothing' is not known"),
        ({"system": "h900"}, "accelerator 'h900' is not known"),
        ({"tp_size": "36", "moe_tp_size": "36"}, "tp_size 36: 128 heads"),
        ({"tp_size": "64", "moe_tp_size": "64"}, "tp_size 64"),
        ({"attention_dp_size": "0"}, "attention_dp_size must be at least 1"),
        ({"isl": "many"}, "isl must be a number above 0"),
        ({"pp_size": "2"}, "pp_size above 1"),
        ({"precision": "fp7"}, "precision 'fp7'"),
    ],
)
def test_what_cannot_be_said_is_refused_with_a_reason(change: dict[str, str], says: str) -> None:
    with pytest.raises(HardwareError, match=says):
        setting_of({**ROW, **change})


def test_a_table_is_read_row_by_row(tmp_path: Path) -> None:
    file = tmp_path / "t.csv"
    with file.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(ROW))
        writer.writeheader()
        writer.writerows([ROW, {**ROW, "backend": "abacus"}, {**ROW, "silicon_tpot_ms": ""}])
    rows = read_measurements(file)
    assert covered(rows) == [0, 2]
    assert (rows[0].ttft_s, rows[0].tpot_s, rows[0].name) == (0.25, 0.0125, "row 1")
    assert rows[2].tpot_s is None


def test_a_table_without_its_columns_is_one_sentence(tmp_path: Path) -> None:
    file = tmp_path / "t.csv"
    file.write_text("backend,isl\nvllm,1\n")
    with pytest.raises(HardwareError, match="no column 'model_path'"):
        read_measurements(file)
    with pytest.raises(HardwareError, match="cannot be read"):
        read_measurements(tmp_path / "absent.csv")
    file.write_text(",".join(ROW) + "\n")
    with pytest.raises(HardwareError, match="has no rows"):
        read_measurements(file)
