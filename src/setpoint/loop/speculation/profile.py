"""Measures what ``outcome.py`` reckons with: one compiled model, its drafter, a user's prompts.

Acceptance: every prompt is answered with the longest draft wherever there is a guess, a few at a time. Costs: steps of each
batch and draft length are timed on the same executor, drafting beside them: medians of a few repeats after one thrown away.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Final

from setpoint.engine.models import ResolvedModel
from setpoint.engine.openvino.executor import ExecutorOptions, OpenVinoExecutor
from setpoint.engine.request import GenerationRequest
from setpoint.engine.speculation.building import build_speculator
from setpoint.engine.speculation.draft_model import DraftModel
from setpoint.engine.speculation.draft_source import draft_source
from setpoint.engine.speculation.speculator import Speculator
from setpoint.engine.step_loop import StepLoop
from setpoint.engine.tokenizer import ModelTokenizer
from setpoint.engine.warm_up import time_drafting, time_verification
from setpoint.loop.speculation.outcome import Acceptance, SpeculationProfile, StepCosts, survival_of
from setpoint.policy.configuration import ServingConfig
from setpoint.policy.modes import build_policy

LENGTHS: Final = (0, 1, 2, 3, 4, 6, 8, 11, 15)
REPEATS: Final = 5
TOGETHER: Final = 4
MAX_MODEL_LEN: Final = 4096


@dataclass(frozen=True, slots=True)
class ProfileOptions:
    """``config``: names the drafter and the longest draft. ``batches``: numbers of requests to time steps of."""

    config: ServingConfig
    batches: Sequence[int] = (1, 2, 4, 8, 16)


class Profiler:
    """A model, compiled; and its drafter. Raises ``EngineFailed`` if either cannot be had."""

    def __init__(self, model: ResolvedModel, options: ProfileOptions) -> None:
        config = options.config
        self._model, self._options = model, options
        self.tokenizer = ModelTokenizer(model.folder)
        draft = draft_source(config, model, self.tokenizer)
        executor_options = ExecutorOptions(threads=config.threads, kv_cache_tokens=config.kv_cache_tokens)
        self._executor = OpenVinoExecutor(model.folder, executor_options, time.perf_counter)

        def draft_model() -> DraftModel:
            assert draft is not None
            own = OpenVinoExecutor(draft.folder, executor_options, time.perf_counter)
            return DraftModel(own, vocabulary=self._executor.vocabulary, most_tokens=config.longest_draft_tokens)

        fixed = config.model_copy(update={"draft_tokens": config.max_draft_tokens, "max_running": TOGETHER})
        speculator = build_speculator(fixed, time.perf_counter, draft_model=draft_model)
        assert speculator is not None, "a profile of speculation needs a drafter"
        self._speculator: Speculator = speculator
        self._fixed = fixed

    def profile(
        self, work: Mapping[str, Sequence[GenerationRequest]], say: Callable[[str], None] = lambda _: None
    ) -> SpeculationProfile:
        """``work``: requests by what they are called. ``say`` hears what is done."""
        acceptances = []
        for name, requests in work.items():
            say(f"acceptance: {name}, {len(requests)} requests")
            acceptances.append(self._acceptance(name, requests))
        costs = []
        for batch in self._options.batches:
            say(f"costs: batch {batch}")
            costs.append(self._costs(batch))
        config = self._options.config
        return SpeculationProfile(
            model=self._model.name,
            drafter=config.speculation.value,
            draft_model=config.draft_model,
            acceptances=tuple(acceptances),
            costs=tuple(costs),
            change_s=self._change_s(),
        )

    @property
    def context_tokens(self) -> int:
        """How many tokens a prompt and its answer may have together."""
        return min(MAX_MODEL_LEN, self._model.context_tokens)

    def close(self) -> None:
        """Give memory back."""
        self._speculator.close()
        self._executor.close()

    def _acceptance(self, name: str, requests: Sequence[GenerationRequest]) -> Acceptance:
        loop = StepLoop(
            build_policy(self._fixed),
            self._executor,
            time.perf_counter,
            max_model_len=self.context_tokens,
            stop_token_ids=self.tokenizer.eos_ids,
            speculator=self._speculator,
        )
        longest = self._fixed.longest_draft_tokens
        accepted, drafted = [0] * longest, [0] * longest
        left = list(reversed(requests))
        decodes = drafts = 0
        while left or loop.busy:
            while left and len(loop.running) + len(loop.waiting) < TOGETHER:
                loop.submit(left.pop())
            if not loop.begin_step():
                continue
            batch = loop.batch_in_flight
            before = list(self._speculator.counters.accepted_per_position)
            loop.finish_step()
            if batch is None or batch.prefill_tokens:
                continue
            decodes += batch.work.sequences
            for item in batch.items:
                if item.draft is not None:
                    drafts += 1
                    drafted[len(item.draft.tokens) - 1] += 1
            after = self._speculator.counters.accepted_per_position
            for position, count in enumerate(after):
                accepted[position] += count - (before[position] if position < len(before) else 0)
        drafted_at_least = list(accumulate(reversed(drafted)))[::-1]
        return Acceptance(name, survival_of(accepted, drafted_at_least), drafts / max(1, decodes), drafts)

    def _costs(self, batch: int) -> StepCosts:
        lengths = [length for length in LENGTHS if length <= self._fixed.longest_draft_tokens]
        verify_s, draft_s = {}, {}
        for length in lengths:
            times = time_verification(self._executor, batch, length, REPEATS + 1)
            if times:
                verify_s[length] = statistics.median(times[1:])
            if length and self._options.config.draft_model is not None:
                draft_s[length] = statistics.median(time_drafting(self._speculator.drafter, batch, length, REPEATS)[1:])
        return StepCosts(batch, verify_s, draft_s)

    def _change_s(self) -> float:
        """Steps of one and two tokens in turn, against each in a row."""
        rows = [time_verification(self._executor, 1, length, REPEATS + 1)[1:] for length in (0, 1)]
        turns: list[float] = []
        for _ in range(REPEATS):
            for length in (0, 1):
                turns += time_verification(self._executor, 1, length, 1)
        alone_s = statistics.mean(statistics.median(row) for row in rows)
        return max(0.0, statistics.median(turns) - alone_s)
