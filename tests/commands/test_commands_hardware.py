"""``setpoint hardware``, from the command line to what it prints and keeps."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from setpoint.cli import main

Run = Callable[..., tuple[int, str, str]]
TABLE = """id,backend,backend_version,model_path,system,precision,isl,osl,batch_size,tp_size,silicon_ttft_ms,silicon_tpot_ms
a,vllm,1,meta-llama/Llama-3.1-8B-Instruct,h100_sxm,fp8,1024,1024,16,1,150,8
b,vllm,1,meta-llama/Llama-3.1-8B-Instruct,h100_sxm,fp8,1024,1024,64,1,300,12
c,abacus,1,meta-llama/Llama-3.1-8B-Instruct,h100_sxm,fp8,1024,1024,64,1,300,12
"""


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """The program's exit code, output and errors for a list of words; its data folder is empty at first."""
    monkeypatch.setenv("SETPOINT_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("COLUMNS", "200")

    def called(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["setpoint", "hardware", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        caught = capsys.readouterr()
        return int(ended.value.code or 0), caught.out, caught.err

    return called


def test_the_list_has_every_accelerator(run: Run) -> None:
    code, out, _ = run("list")
    assert code == 0
    assert all(name in out for name in ("a100-40", "h100-sxm", "mi300x", "2.95"))
    found = json.loads(run("list", "--json")[1])
    assert {"name", "flops_per_s", "memory_bytes", "price_usd_per_h", "price_date"} <= set(found[0])


def test_one_accelerator_with_a_model_says_what_fits_and_what_binds(run: Run) -> None:
    code, out, _ = run("show", "h100-sxm", "--model", "llama-3.1-8b")
    assert code == 0
    assert "decode 32" in out
    assert "bandwidth" in out
    found = json.loads(run("show", "h100-sxm", "--model", "llama-3.1-70b", "--json")[1])
    assert found["deployment"]["kv_capacity_tokens"] < 0
    found = json.loads(run("show", "h100-sxm", "--model", "llama-3.1-70b", "--tensor-parallel", "4", "--json")[1])
    assert found["deployment"]["kv_capacity_tokens"] > 0
    assert found["deployment"]["source"] in ("measured", "transferred", "physics")


def test_an_error_that_is_a_guess_is_shown_as_one(run: Run) -> None:
    """Seen: "one standard deviation 45%" of hardware that nobody measured."""
    for device, guess in (("h100-sxm", False), ("mi300x", True)):
        words = ("show", device, "--model", "llama-3.1-8b")
        assert json.loads(run(*words, "--json")[1])["deployment"]["relative_error_is_guess"] is guess
        out = " ".join(run(*words)[1].split())
        assert ("one standard deviation" in out, "a guess:" in out) == (not guess, guess)


def test_a_model_alone_is_shown_too(run: Run) -> None:
    assert "671.026" in run("show", "deepseek-r1")[1].replace("6.71026e+11", "671.026")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("show", "h100-sxn"), "setpoint: accelerator 'h100-sxn' is not known"),
        (("show", "h100-sxm", "--model", "gtp"), "setpoint: model 'gtp' is not known"),
        (("show", "h100-sxm", "--model", "llama-3.1-8b", "--tensor-parallel", "7"), "has 32 heads and 8 KV heads"),
        (("show", "h100-sxm", "--model", "llama-3.1-8b", "--engine", "tgi"), "--engine 'tgi' is not known"),
        (("validate", "absent.csv"), "setpoint: absent.csv: cannot be read as CSV"),
        (("calibrate", "absent-run"), "setpoint: "),
        (("add", "absent.yaml"), "setpoint: absent.yaml: cannot be read as YAML"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(run: Run, words: tuple[str, ...], says: str) -> None:
    code, _, err = run(*words)
    assert code == 2
    assert says in err
    assert err.count("\n") == 1


def test_cuda_without_pytorch_or_a_gpu_is_one_line(run: Run) -> None:
    code, _, err = run("calibrate", "--cuda")
    assert code == 2
    assert "--cuda: PyTorch" in err


def test_an_added_accelerator_and_model_are_found(run: Run, tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text("name: mine\ndense_tflops: {bf16: 400}\nmemory_gb: 96\nmemory_tb_per_s: 3\nlink_gb_per_s: 0\npower_w: 1\n")
    config = tmp_path / "config.json"
    shape = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128, "vocab_size": 100}
    config.write_text(json.dumps(shape))
    assert run("add", str(mine))[0] == 0
    assert run("add", str(config), "--name", "tiny")[0] == 0
    code, out, _ = run("show", "mine", "--model", "tiny", "--json")
    assert code == 0
    assert json.loads(out)["deployment"]["accelerator"] == "mine"


def test_validation_prints_what_the_issue_asks_for(run: Run, tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    table.write_text(TABLE)
    code, out, _ = run("validate", str(table), "--json")
    found = json.loads(out)
    assert code == 0
    assert set(found) == {"coverage", "tpot_mape", "ttft_mape", "groups"}
    assert found["coverage"] == pytest.approx(2 / 3)
    assert 0 <= found["tpot_mape"] < 1
    assert set(found["groups"][0]) == {"backend", "system", "model", "rows", "coverage", "tpot_mape", "ttft_mape", "source"}
    code, out, _ = run("validate", str(table))
    assert "refused: 1 x engine 'abacus'" in out
    assert json.loads(run("validate", str(table), "--prior", "--json")[1])["groups"][1]["source"] == "physics"


def test_a_table_becomes_a_calibration_that_later_predictions_use(run: Run, tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    head, first, *_ = TABLE.splitlines()
    rows = [
        first.replace("a,vllm", f"r{batch},vllm").replace(",16,1,150,8", f",{batch},1,{100 + batch},{6 + batch // 8}")
        for batch in range(8, 80, 8)
    ]
    table.write_text("\n".join([head, *rows]) + "\n")
    before = json.loads(run("validate", str(table), "--prior", "--json")[1])
    code, out, _ = run("calibrate", str(table))
    assert code == 0
    assert "written to" in out
    after = json.loads(run("validate", str(table), "--json")[1])
    assert after["tpot_mape"] < before["tpot_mape"]
    assert after["groups"][0]["source"] == "measured"
    code, _, err = run("validate", str(table), "--unfitted")
    assert code == 2
    assert "leaves none" in err
