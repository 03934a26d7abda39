"""The executor over the real kernels: its logits are the original graph's, however the work is cut, packed and paged."""

from __future__ import annotations

import re
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from engine_prompts import BRIDGE, LIGHTHOUSE, MARKET

from model_reference import NEAR_TIE, Reference
from setpoint.engine.batch import BatchItem, make_batch
from setpoint.engine.models import ResolvedModel
from setpoint.engine.openvino import graph
from setpoint.engine.openvino.bounds import KERNELS_KEPT
from setpoint.engine.openvino.executor import ExecutorOptions, OpenVinoExecutor
from setpoint.engine.openvino.fusion import fuse_parallel_projections
from setpoint.engine.openvino.runtime import ops, ov, paged_attention_transformation
from setpoint.engine.request import EngineFailed, GenerationRequest, SamplingParams
from setpoint.engine.sequence import Sequence
from setpoint.engine.tokenizer import ModelTokenizer

pytestmark = pytest.mark.model

LAYERS, KV_HEADS, HEAD_SIZE = 30, 3, 64
SAMPLED = SamplingParams(max_tokens=1, temperature=1.0, seed=1)
GREEDY = SamplingParams(max_tokens=1, temperature=0.0)


def sequence_of(tokens: list[int], blocks: list[int], sampling: SamplingParams = SAMPLED) -> Sequence:
    """A sequence whose KV lies in ``blocks``; sampled, so that its logits come out."""
    sequence = Sequence(0, GenerationRequest(tuple(tokens), sampling), arrived_s=0.0, max_tokens=1)
    sequence.blocks = blocks
    return sequence


def run(executor: OpenVinoExecutor, items: list[BatchItem]) -> tuple[tuple[int, ...], npt.NDArray[np.float32]]:
    """One step: the tokens, and the logits of the items that are sampled."""
    output = executor.collect(executor.submit(make_batch(items)))
    return output.tokens, executor._running.output("row_logits").copy()


def whole(sequence: Sequence) -> BatchItem:
    return BatchItem(sequence, 0, len(sequence.tokens), emits=True)


@pytest.fixture(scope="module")
def texts(tokenizer: ModelTokenizer) -> list[list[int]]:
    return [tokenizer.encode(text) for text in (LIGHTHOUSE, MARKET, BRIDGE)]


@pytest.mark.parametrize("chunk", [1, 7, 32, 33, 200])
def test_a_prompt_may_be_computed_in_chunks_of_any_size(
    executor: OpenVinoExecutor, reference: Reference, texts: list[list[int]], chunk: int
) -> None:
    tokens = texts[0][:80]
    expected = reference.logits(tokens)
    sequence = sequence_of(tokens, [101, 5, 77])
    for start in range(0, len(tokens), chunk):
        count = min(chunk, len(tokens) - start)
        _, logits = run(executor, [BatchItem(sequence, start, count, emits=True)])
        assert logits.shape == (1, executor.vocabulary)
        np.testing.assert_allclose(logits[0], expected[start + count - 1], atol=NEAR_TIE, rtol=0)


def test_sequences_in_one_step_do_not_touch_each_other(
    executor: OpenVinoExecutor, reference: Reference, texts: list[list[int]]
) -> None:
    """A prefill, a later chunk and a decode side by side, their blocks in no order, buffers used again in every round."""
    expected = [reference.logits(tokens) for tokens in texts]
    for shift in (0, 40, 80):
        tables = [[shift + block for block in table] for table in ([9, 2, 17, 5], [1, 30, 12, 7], [22, 0, 3, 14, 31])]
        first, second, third = (sequence_of(tokens, table) for tokens, table in zip(texts, tables, strict=True))
        length = len(third.tokens)
        run(executor, [BatchItem(second, 0, 50, emits=False), BatchItem(third, 0, length - 1, emits=False)])
        tokens, logits = run(
            executor,
            [
                whole(first),
                BatchItem(second, 50, len(second.tokens) - 50, emits=True),
                BatchItem(third, length - 1, 1, emits=True),
            ],
        )
        assert len(tokens) == len(logits) == 3
        for row, rows in zip(logits, expected, strict=True):
            np.testing.assert_allclose(row, rows[-1], atol=NEAR_TIE, rtol=0)


def test_a_shared_block_serves_two_sequences(executor: OpenVinoExecutor, reference: Reference, texts: list[list[int]]) -> None:
    shared = texts[0][:64]
    one, other = shared + texts[1][:20], shared + texts[2][:9]
    run(executor, [BatchItem(sequence_of(shared, [50, 40]), 0, 64, emits=False)])
    items = [
        BatchItem(sequence_of(one, [50, 40, 3]), 64, 20, emits=True),
        BatchItem(sequence_of(other, [50, 40, 4]), 64, 9, emits=True),
    ]
    _, logits = run(executor, items)
    np.testing.assert_allclose(logits[0], reference.logits(one)[-1], atol=NEAR_TIE, rtol=0)
    np.testing.assert_allclose(logits[1], reference.logits(other)[-1], atol=NEAR_TIE, rtol=0)


def test_every_token_goes_to_the_item_it_is_for(
    executor: OpenVinoExecutor, reference: Reference, texts: list[list[int]]
) -> None:
    """Greedy, silent, penalised and sampled items in one step: logits are fetched for some of them only."""
    best = [int(reference.logits(tokens)[-1].argmax()) for tokens in texts]
    banned = SamplingParams(max_tokens=1, temperature=0.0, repetition_penalty=1.5)
    only_one = SamplingParams(max_tokens=1, temperature=0.8, top_k=1)
    sharp = SamplingParams(max_tokens=1, temperature=1e-3, seed=3)
    items = [
        whole(sequence_of(texts[0], [0, 1, 2, 3], GREEDY)),
        BatchItem(sequence_of(texts[1], [4, 5, 6, 7], GREEDY), 0, 30, emits=False),
        whole(sequence_of(texts[2], [8, 9, 10, 11], banned)),
        whole(sequence_of(texts[1], [12, 13, 14, 15], only_one)),
        whole(sequence_of(texts[2], [16, 17, 18, 19], sharp)),
        whole(sequence_of(texts[1], [20, 21, 22, 23], GREEDY)),
    ]
    tokens, logits = run(executor, items)
    assert len(logits) == 2
    row = reference.logits(texts[2])[-1].astype(np.float64)
    for token in set(texts[2]):
        row[token] = row[token] / 1.5 if row[token] > 0 else row[token] * 1.5
    assert tokens == (best[0], int(row.argmax()), best[1], best[2], best[1])


def test_the_cache_is_as_large_as_it_was_ordered(executor: OpenVinoExecutor) -> None:
    assert (executor.blocks, executor.block_tokens) == (4096 // 32, 32)
    assert executor.kv_bytes == 4096 * LAYERS * 2 * KV_HEADS * HEAD_SIZE * 4


def test_f32_means_that_activations_are_not_quantised_either(executor: OpenVinoExecutor) -> None:
    compiled: Any = executor._large._request.get_compiled_model()
    assert compiled.get_property("DYNAMIC_QUANTIZATION_GROUP_SIZE") == 0
    assert ExecutorOptions(precision="f32").properties()["INFERENCE_PRECISION_HINT"] == "f32"
    assert "DYNAMIC_QUANTIZATION_GROUP_SIZE" not in ExecutorOptions(precision="bf16").properties()


def test_options_become_properties() -> None:
    plain = ExecutorOptions().properties()
    kept = {"CPU_RUNTIME_CACHE_CAPACITY": KERNELS_KEPT}
    assert plain == {"PERFORMANCE_HINT": "LATENCY", "ENABLE_CPU_PINNING": False, **kept}
    named = ExecutorOptions(threads=3, precision="bf16", cache_precision="u8").properties()
    assert named["INFERENCE_NUM_THREADS"] == 3
    assert named["KV_CACHE_PRECISION"] == "u8"
    assert "INFERENCE_NUM_THREADS" not in ExecutorOptions(device="GPU", threads=3).properties()


def test_fusion_joins_what_reads_the_same_input(demo_model: ResolvedModel) -> None:
    """Query, key and value, and gate and up, in each of the layers."""
    model = ov.Core().read_model(demo_model.folder / graph.MODEL_FILE)
    paged_attention_transformation(model)
    products = count_products(model)
    assert fuse_parallel_projections(model) == 2 * LAYERS == 60
    assert count_products(model) == products - 3 * LAYERS
    assert fuse_parallel_projections(model) == 0


def count_products(model: Any) -> int:
    return sum(node.get_type_name() == "MatMul" for node in model.get_ordered_ops())


def test_the_fused_graph_gives_the_logits_of_the_unfused_one(
    demo_model: ResolvedModel, executor: OpenVinoExecutor, texts: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graph, "fuse_parallel_projections", lambda model: 0)
    options = ExecutorOptions(precision="f32", cache_precision="f32", kv_cache_tokens=512)
    unfused = OpenVinoExecutor(demo_model.folder, options, time.monotonic)
    for tokens in texts:
        _, fused_rows = run(executor, [whole(sequence_of(tokens, [0, 1, 2, 3, 4]))])
        _, rows = run(unfused, [whole(sequence_of(tokens, [0, 1, 2, 3, 4]))])
        np.testing.assert_allclose(fused_rows, rows, atol=NEAR_TIE, rtol=0)
    # Closing waits for a step that is still running: it reads and writes memory that is about to go.
    unfused.submit(make_batch([whole(sequence_of(texts[0], [0, 1, 2, 3, 4]))]))
    unfused.close()


def test_a_folder_without_a_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(EngineFailed, match=re.escape(str(tmp_path))):
        OpenVinoExecutor(tmp_path, ExecutorOptions(), time.monotonic)


def test_a_model_that_is_no_decoder_is_refused(tmp_path: Path) -> None:
    parameter = ops.parameter([-1, 4], np.float32, name="x")
    ov.save_model(ov.Model([ops.result(ops.relu(parameter))], [parameter]), tmp_path / graph.MODEL_FILE)
    with pytest.raises(EngineFailed, match=r"paged|attention"):
        OpenVinoExecutor(tmp_path, ExecutorOptions(), time.monotonic)


def test_telemetry_is_off() -> None:
    assert sys.modules["openvino_telemetry"] is None
