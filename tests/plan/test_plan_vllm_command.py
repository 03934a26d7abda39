"""Reading a ``vllm serve`` command that runs today."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from setpoint.plan.errors import PlanError
from setpoint.plan.vllm_command import VllmCommand, default_max_running, default_token_budget, parse_vllm_command


def test_a_usual_command() -> None:
    command = parse_vllm_command(
        "CUDA_VISIBLE_DEVICES=0,1 vllm serve meta-llama/Llama-3.1-8B-Instruct --tensor-parallel-size 2 --max-num-seqs=128 \\\n"
        " --max_num_batched_tokens 4096 --max-model-len 32K --gpu-memory-utilization 0.95 -q fp8 --kv-cache-dtype fp8_e4m3"
        " --served-model-name a b --enable-prefix-caching --port 8001 -dp 2"
    )
    assert command == VllmCommand(
        model="meta-llama/Llama-3.1-8B-Instruct",
        tensor_parallel=2,
        replicas=2,
        max_running=128,
        token_budget=4096,
        max_model_tokens=32768,
        memory_share=0.95,
        weight_precision="fp8",
        kv_precision="fp8",
        extra={"enable-prefix-caching": "", "port": "8001"},
    )


def test_what_is_not_said_is_left_to_vllm() -> None:
    command = parse_vllm_command("vllm serve qwen3-8b --no-enable-prefix-caching")
    assert command == VllmCommand(model="qwen3-8b", prefix_caching=False, extra={"no-enable-prefix-caching": ""})


def test_the_older_way_to_start_it() -> None:
    command = parse_vllm_command("python3 -m vllm.entrypoints.openai.api_server --model qwen3-8b -tp 4")
    assert (command.model, command.tensor_parallel) == ("qwen3-8b", 4)


def test_defaults_depend_on_the_card() -> None:
    assert (default_max_running(80e9, "h100-sxm"), default_token_budget(80e9, "h100-sxm")) == (1024, 8192)
    assert (default_max_running(80e9, "a100-80"), default_token_budget(80e9, "a100-80")) == (256, 2048)
    assert (default_max_running(24e9, "l4"), default_token_budget(24e9, "l4")) == (256, 2048)
    assert (default_max_running(180e9, "b200"), default_token_budget(180e9, "b200")) == (1024, 16384)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("python serve.py", "a command that begins with vllm serve"),
        ("", "found 'nothing'"),
        ("vllm serve", "names no model"),
        ("vllm serve m --max-num-seqs many", "--max-num-seqs: found 'many'"),
        ("vllm serve m --gpu-memory-utilization 1.5", "a fraction above 0"),
        ("vllm serve m --max-model-len long", "a number of tokens"),
        ("vllm serve m --quantization magic", "--quantization magic: not known"),
        ("vllm serve m -pp 2", "pipeline stages are not simulated"),
        ("vllm serve 'm", "cannot be read"),
    ],
)
def test_a_wrong_command_is_one_sentence(text: str, said: str) -> None:
    with pytest.raises(PlanError) as caught:
        parse_vllm_command(text)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(PlanError):
        parse_vllm_command("vllm serve model " + text)
