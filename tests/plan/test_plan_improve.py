"""From a command that runs today to what to change in it, over a runner of formulas."""

from __future__ import annotations

import pytest
from plan_world import CHAT, FormulaRunner, asks, requirement

from setpoint.hardware.errors import HardwareError
from setpoint.plan.errors import PlanError
from setpoint.plan.improve import Improvement, improvement_document, make_improvement, sentences
from setpoint.plan.vllm_command import parse_vllm_command


def improved(text: str, hardware: tuple[str, ...] = ("h100-sxm",)) -> Improvement:
    asked = requirement(CHAT)
    command = parse_vllm_command(text)
    return make_improvement(asks(asked, hardware=hardware), command, FormulaRunner(asked), lambda stage, done, total: None)


def test_a_batch_that_is_too_small_is_found() -> None:
    found = improved("vllm serve llama-3.1-8b --max-num-seqs 8 --max-num-batched-tokens 512 --port 8001")
    assert found.now.flags == {"--max-num-seqs": 8, "--max-num-batched-tokens": 512}
    assert found.best.flags["--max-num-seqs"] > 8
    assert found.best.knee_rps > 1.5 * found.now.knee_rps
    said = sentences(found, 40.0)
    assert any(sentence.startswith("Change --max-num-seqs 8 -> ") for sentence in said)
    assert said[-1] == "Left as they are: --port."


def test_each_change_is_tried_alone() -> None:
    found = improved("vllm serve llama-3.1-8b --max-num-seqs 8 --max-num-batched-tokens 512")
    if len({flag for flag in found.best.flags if found.best.flags[flag] != found.now.flags[flag]}) > 1:
        assert {flag for flag, _ in found.alone} == set(found.best.flags)
    for flag, outcome in found.alone:
        assert outcome.flags[flag] == found.best.flags[flag]


def test_what_the_command_leaves_out_is_vllms_default() -> None:
    assert improved("vllm serve llama-3.1-8b").now.flags == {"--max-num-seqs": 1024, "--max-num-batched-tokens": 8192}
    assert improved("vllm serve llama-3.1-8b", ("l40s",)).now.flags == {"--max-num-seqs": 256, "--max-num-batched-tokens": 2048}


def test_the_document_has_numbers_and_sentences() -> None:
    document = improvement_document(improved("vllm serve llama-3.1-8b -dp 2"), 40.0)
    assert document["now"]["name"].startswith("2 x h100-sxm tp1 bf16 vllm-1024x8192")
    assert document["sentences"]


def test_a_command_needs_one_hardware() -> None:
    with pytest.raises(PlanError, match="name it with --hardware"):
        improved("vllm serve llama-3.1-8b", ("h100-sxm", "l4"))


def test_a_command_that_cannot_hold_a_request_is_told() -> None:
    asked = requirement(CHAT, **{"llama-3.1-8b": "llama-3.1-70b"})
    with pytest.raises(PlanError, match="room for"):
        make_improvement(
            asks(asked, hardware=("l4",)),
            parse_vllm_command("vllm serve llama-3.1-70b"),
            FormulaRunner(asked),
            lambda stage, done, total: None,
        )


def test_a_command_whose_context_is_too_short_is_told() -> None:
    with pytest.raises(PlanError, match="--max-model-len 512: its context is 512 tokens"):
        improved("vllm serve llama-3.1-8b --max-model-len 512")


def test_a_command_that_no_engine_runs_is_told() -> None:
    with pytest.raises(HardwareError, match=r"--tensor-parallel-size 3: llama-3\.1-8b has 32 heads and 8 KV heads"):
        improved("vllm serve llama-3.1-8b --tensor-parallel-size 3")


def test_what_the_command_says_of_contexts_and_of_the_cache_is_simulated() -> None:
    text = {"prompt_tokens: 500": "prompt_tokens: 500\n  shared_prefix_tokens: 480"}
    asked = requirement(CHAT, **text)
    runner = FormulaRunner(asked)
    command = parse_vllm_command("vllm serve llama-3.1-8b --max-model-len 4096 --no-enable-prefix-caching")
    make_improvement(asks(asked, hardware=("h100-sxm",)), command, runner, lambda stage, done, total: None)
    assert {(job.serving.context_tokens, job.serving.prefix_caching) for job in runner.jobs} == {(4096, False)}


def test_what_is_not_simulated_is_named() -> None:
    said = sentences(improved("""vllm serve llama-3.1-8b --port 8001 --speculative-config '{"method": "ngram"}'"""), 40.0)
    assert said[-2] == "Left as they are: --port, --speculative-config."
    assert said[-1].startswith("Not simulated, though it changes what a server does: --speculative-config;")


def test_a_command_on_hardware_whose_error_is_a_guess_is_told_so() -> None:
    found = improved("vllm serve llama-3.1-8b", ("mi300x",))
    assert found.guess
    assert improvement_document(found, 40.0)["step_error_is_guess"] is True
    said = sentences(found, 40.0)
    assert said[1].startswith("None of this is sure on mi300x: ")
    assert "itself a guess" in said[1]
    known = improved("vllm serve llama-3.1-8b")
    assert not known.guess
    assert not any("a guess" in sentence for sentence in sentences(known, 40.0))
