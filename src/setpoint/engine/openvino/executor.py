"""Runs batches on OpenVINO: block tables in, tokens out. Cache allocated once; small steps may have other kernels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from setpoint.engine.batch import Batch, BatchItem, StepOutput
from setpoint.engine.openvino.bounds import KERNELS_KEPT
from setpoint.engine.openvino.graph import WEIGHTS_FILE, first_line, load_graph
from setpoint.engine.openvino.kernels import Kernels, block_tokens, new_cache
from setpoint.engine.openvino.masks import Masks
from setpoint.engine.openvino.sampler import Sampler
from setpoint.engine.openvino.small_steps import EIGHT_BIT, SMALL_STEP_TOKENS, pays
from setpoint.engine.request import EngineFailed
from setpoint.engine.sequence import Sequence
from setpoint.engine.speculation.verification import row_starts, verified_greedily, verified_sampled, widths


@dataclass(frozen=True, slots=True)
class ExecutorOptions:
    """How to compile. ``precision``: ``f32``, ``bf16``, ``f16``, or ``None`` for the device's choice; ``cache_precision``
    likewise (``u8`` is the CPU's default). ``threads``: ``None`` for every core.

    ``f32`` is meant for comparison: it also switches off the 8-bit quantisation of activations that the CPU applies beside
    quantised weights at every precision. With it, logits move by up to 1 with the shape of the batch; without, by 1e-4.

    small_steps: whether steps of few tokens get kernels of their own (``openvino/small_steps.py``); ``None``: where it pays.
    """

    device: str = "CPU"
    threads: int | None = None
    precision: str | None = None
    cache_precision: str | None = None
    kv_cache_tokens: int = 32768
    small_steps: bool | None = None

    def properties(self) -> dict[str, Any]:
        """As OpenVINO compile properties."""
        properties: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY"}
        if self.device.startswith("CPU"):
            # Pinned threads collapse when another process takes their core.
            properties["ENABLE_CPU_PINNING"] = False
            properties["CPU_RUNTIME_CACHE_CAPACITY"] = KERNELS_KEPT
            if self.threads is not None:
                properties["INFERENCE_NUM_THREADS"] = self.threads
        if self.precision is not None:
            properties["INFERENCE_PRECISION_HINT"] = self.precision
        if self.precision == "f32":
            properties["DYNAMIC_QUANTIZATION_GROUP_SIZE"] = 0
        if self.cache_precision is not None:
            properties["KV_CACHE_PRECISION"] = self.cache_precision
        return properties


class OpenVinoExecutor:
    """The model of ``folder`` compiled with a paged KV cache of ``options.kv_cache_tokens`` tokens."""

    observation_lag = 0

    def __init__(self, folder: Path, options: ExecutorOptions, clock: Callable[[], float]) -> None:
        self._clock = clock
        model = load_graph(folder)
        try:
            self._large = Kernels(model, options.device, options.properties())
            self._small = _small_kernels(model, folder, options, self._large)
        except RuntimeError as error:
            raise EngineFailed(f"{folder}: cannot be compiled for {options.device}: {first_line(error)}") from error
        self._running = self._large
        self.block_tokens = block_tokens(self._large)
        self.blocks = max(1, options.kv_cache_tokens // self.block_tokens)
        self._caches = new_cache(self._large, self.blocks)
        self.kv_bytes = sum(tensor.byte_size for tensor in self._caches)
        for each in {self._large, self._small}:
            each.use_cache(self._caches)
        self.vocabulary = self._large.vocabulary
        self._sampler = Sampler(self.vocabulary, options.threads)
        self._sampler.prepare()
        self._masks = Masks(self.vocabulary)

    def submit(self, batch: Batch) -> Batch:
        """Set the block tables and start; the ticket is the batch."""
        self._running = self._small if batch.work.tokens <= SMALL_STEP_TOKENS else self._large
        self._running.take(_inputs(batch))
        self._start_s = self._clock()
        self._running.start()
        return batch

    def collect(self, ticket: Batch) -> StepOutput:
        """Wait for the kernels, then choose tokens: arg-max came with them, the rest is sampled from logits rows.

        What grammars allow is worked out before the wait, while the kernels are busy.
        """
        if ticket.drafted:
            return self._collect_drafted(ticket)
        emitting = [item.sequence for item in ticket.items if item.emits]
        rows = [index for index, sequence in enumerate(emitting) if sequence.wants_logits]
        wanting = [emitting[row] for row in rows]
        allowed = self._masks.prepare(wanting) if rows else None
        self._running.wait()
        tokens: list[int] = self._running.output("best_token").reshape(-1).tolist()
        if rows:
            logits = self._running.output("row_logits")
            chosen = self._sampler.choose(logits, wanting, allowed)
            for index, token in zip(rows, chosen, strict=True):
                tokens[index] = token
            self._note_logprobs(logits, wanting, chosen)
        return StepOutput(self._start_s, self._clock(), tuple(tokens))

    def _collect_drafted(self, batch: Batch) -> StepOutput:
        """``collect`` where some items have drafts: as many sampled rows an item as it has positions to verify."""
        emitting = [item for item in batch.items if item.emits]
        counts = widths(emitting)
        sampled = [place for place, item in enumerate(emitting) if item.sequence.wants_logits]
        wanting = [emitting[place].sequence for place in sampled]
        allowed = self._masks.prepare(wanting) if sampled else None
        self._running.wait()
        best: list[int] = self._running.output("best_token").reshape(-1).tolist()
        starts = row_starts(counts)
        emitted = [
            verified_greedily(item, best[start : start + count])
            for item, start, count in zip(emitting, starts, counts, strict=True)
        ]
        if sampled:
            logits = self._running.output("row_logits")

            def choose_first(rows: npt.NDArray[Any], sequences: list[Sequence]) -> list[int]:
                # Those whose drafts were drawn are not among them, and have no grammar.
                kept = None if allowed is None else allowed[[wanting.index(each) for each in sequences]]
                tokens = self._sampler.choose(np.ascontiguousarray(rows), sequences, kept)
                self._note_logprobs(rows, sequences, tokens)
                return tokens

            def choose(rows: npt.NDArray[Any], sequences: list[Sequence]) -> list[int]:
                return self._sampler.choose(np.ascontiguousarray(rows), sequences)

            items = [emitting[place] for place in sampled]
            firsts = row_starts([counts[place] for place in sampled])
            for place, tokens in zip(sampled, verified_sampled(items, logits, firsts, choose_first, choose), strict=True):
                emitted[place] = tokens
        accepted = tuple(len(tokens) - 1 for tokens, item in zip(emitted, emitting, strict=True) if item.draft is not None)
        return StepOutput(self._start_s, self._clock(), tuple(chain.from_iterable(emitted)), accepted)

    def collect_rows(self, ticket: Batch) -> tuple[list[int], npt.NDArray[Any]]:
        """``collect`` without a choice: arg-max of every emitting item, and the logits of those that want them.

        [R, vocabulary], valid until the next ``submit``. ``ticket`` must have no drafts.
        """
        self._running.wait()
        return self._running.output("best_token").reshape(-1).tolist(), self._running.output("row_logits")

    def _note_logprobs(self, logits: npt.NDArray[Any], sequences: list[Sequence], tokens: list[int]) -> None:
        """Leave with each sequence that asks for them the logprobs of its new token."""
        rows = [row for row, sequence in enumerate(sequences) if sequence.request.sampling.logprobs is not None]
        if not rows:
            return
        likeliest = self._sampler.likeliest(logits if len(rows) == len(sequences) else logits[rows])
        for place, row in enumerate(rows):
            sequence, token = sequences[row], tokens[row]
            count = sequence.request.sampling.logprobs or 0
            sequence.logprobs = likeliest.of(place, token, float(logits[row, token]), count)

    def close(self) -> None:
        """Drop the compiled model and the cache. A step still running is waited for: it reads and writes our memory."""
        for each in {self._large, self._small}:
            each.close()
        self._caches.clear()


def _small_kernels(model: Any, folder: Path, options: ExecutorOptions, large: Kernels) -> Kernels:
    """Those for small steps; ``large`` where they would not pay, or could not go on with its cache."""
    wanted = options.small_steps
    if wanted is None:
        wanted = pays(folder / WEIGHTS_FILE, device=options.device, precision=options.precision)
    if not wanted:
        return large
    small = Kernels(model, options.device, {**options.properties(), **EIGHT_BIT})
    return small if small.cache_is_like(large) else large


def _inputs(batch: Batch) -> dict[str, npt.NDArray[Any]]:
    items = batch.items
    counts = np.array([item.count for item in items], dtype=np.int32)
    starts = np.array([item.start for item in items], dtype=np.int32)
    ends = np.cumsum(counts, dtype=np.int32)
    begins = ends - counts
    tables = [item.sequence.blocks for item in items]
    emits = np.array([item.emits for item in items], dtype=bool)
    emitting = [item for item in items if item.emits]
    total = int(ends[-1])
    if batch.drafted:
        sampled, logits_rows = _drafted_rows(emitting, ends[emits])
    else:
        sampled = (ends - 1)[emits]
        logits_rows = [i for i, item in enumerate(emitting) if item.sequence.wants_logits]
    return {
        "input_ids": np.fromiter(chain.from_iterable(item.tokens for item in items), dtype=np.int64, count=total),
        "position_ids": np.arange(total, dtype=np.int64) + np.repeat(starts - begins, counts),
        "past_lens": starts,
        "subsequence_begins": np.concatenate(([0], ends)).astype(np.int32),
        "block_indices": np.fromiter(chain.from_iterable(tables), dtype=np.int32),
        "block_indices_begins": np.cumsum([0, *map(len, tables)], dtype=np.int32),
        "max_context_len": np.array((starts + counts).max(), dtype=np.int32),
        "sampled_positions": sampled,
        "logits_rows": np.array(logits_rows, dtype=np.int32),
    }


def _drafted_rows(emitting: list[BatchItem], ends: npt.NDArray[np.int32]) -> tuple[npt.NDArray[np.int32], list[int]]:
    """The sampled positions of items that end before ``ends``, every one of a draft; and which of them as logits."""
    counts = widths(emitting)
    sampled = np.concatenate([np.arange(end - count, end) for end, count in zip(ends.tolist(), counts, strict=True)])
    wanted = np.repeat([item.sequence.wants_logits for item in emitting], counts)
    return sampled.astype(np.int32), np.flatnonzero(wanted).tolist()
