"""Small steps have kernels of their own where that pays, and go on in the cache that large ones wrote."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import psutil
import pytest
from engine_prompts import LIGHTHOUSE

from setpoint.engine.batch import BatchItem, make_batch
from setpoint.engine.models import ResolvedModel
from setpoint.engine.openvino import small_steps
from setpoint.engine.openvino.executor import ExecutorOptions, OpenVinoExecutor
from setpoint.engine.openvino.small_steps import SMALL_STEP_TOKENS, pays
from setpoint.engine.request import GenerationRequest, SamplingParams
from setpoint.engine.sequence import Sequence
from setpoint.engine.tokenizer import ModelTokenizer


class Memory:
    """As psutil tells it."""

    available = 8000


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """1,000 bytes of weights, on a processor with AMX and just enough memory."""
    monkeypatch.setattr(small_steps, "cpu_features", lambda: ["avx512f", "amx_bf16"])
    monkeypatch.setattr("psutil.virtual_memory", Memory)
    path = tmp_path / "weights.bin"
    path.write_bytes(bytes(1000))
    return path


def test_small_kernels_pay_on_a_cpu_with_amx_at_its_own_precision(weights: Path) -> None:
    assert pays(weights, device="CPU", precision=None)
    assert not pays(weights, device="GPU", precision=None)
    assert not pays(weights, device="CPU", precision="bf16")


def test_without_amx_there_is_one_kind_of_kernel(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(small_steps, "cpu_features", lambda: ["avx512f", "avx512_vnni"])
    assert not pays(weights, device="CPU", precision=None)


def test_large_weights_are_not_kept_twice(weights: Path) -> None:
    weights.write_bytes(bytes(1001))
    assert not pays(weights, device="CPU", precision=None)


@pytest.fixture(scope="module")
def both(demo_model: ResolvedModel) -> Iterator[OpenVinoExecutor]:
    one = OpenVinoExecutor(demo_model.folder, ExecutorOptions(kv_cache_tokens=1024, small_steps=True), time.monotonic)
    yield one
    one.close()


def sequence_of(tokens: list[int]) -> Sequence:
    """Sampled, so that its logits come out."""
    sampling = SamplingParams(max_tokens=1, temperature=1.0, seed=1)
    sequence = Sequence(0, GenerationRequest(tuple(tokens), sampling), arrived_s=0.0, max_tokens=1)
    sequence.blocks = list(range(10))
    return sequence


def logits(executor: OpenVinoExecutor, *items: BatchItem) -> npt.NDArray[np.float32]:
    executor.collect(executor.submit(make_batch(list(items))))
    return executor._running.output("row_logits").copy()


@pytest.mark.model
def test_the_number_of_tokens_of_a_step_decides(both: OpenVinoExecutor, tokenizer: ModelTokenizer) -> None:
    tokens = (tokenizer.encode(LIGHTHOUSE) * 4)[: SMALL_STEP_TOKENS + 1]
    assert both._small is not both._large
    logits(both, BatchItem(sequence_of(tokens), 0, SMALL_STEP_TOKENS + 1, True))
    assert both._running is both._large
    logits(both, BatchItem(sequence_of(tokens), 0, SMALL_STEP_TOKENS, True))
    assert both._running is both._small


@pytest.mark.model
@pytest.mark.parametrize("first", [SMALL_STEP_TOKENS + 20, 20])
def test_either_goes_on_in_the_cache_that_the_other_wrote(
    both: OpenVinoExecutor, executor: OpenVinoExecutor, tokenizer: ModelTokenizer, first: int
) -> None:
    """A text whose two parts are computed by different kernels ends as it does in F32, but for what 8 bits cost."""
    rest = 3 if first > SMALL_STEP_TOKENS else SMALL_STEP_TOKENS + 30
    tokens = (tokenizer.encode(LIGHTHOUSE) * 8)[: first + rest]
    sequence = sequence_of(tokens)
    logits(both, BatchItem(sequence, 0, first, False))
    began = both._running
    mixed = logits(both, BatchItem(sequence, first, rest, True))[-1]
    assert both._running is not began
    true = logits(executor, BatchItem(sequence, 0, first + rest, True))[-1]
    without_first = logits(executor, BatchItem(sequence_of(tokens[first:]), 0, rest, True))[-1]
    error = np.abs(mixed - true).mean()
    assert error < 0.4
    assert np.abs(without_first - true).mean() > 2 * error, "the first part must matter, or this shows nothing"


@pytest.mark.model
def test_a_closed_executor_keeps_no_file_open(demo_model: ResolvedModel) -> None:
    """Whoever still refers to it, as the error of a failed step does, does not hold the model in memory."""
    files = psutil.Process().num_fds()
    one = OpenVinoExecutor(demo_model.folder, ExecutorOptions(kv_cache_tokens=64, small_steps=True), time.monotonic)
    one.close()
    assert psutil.Process().num_fds() == files
