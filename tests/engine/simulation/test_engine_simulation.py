"""A million steps of random worlds in every run of the tests; what breaks prints the line that replays it.

``SETPOINT_SIMULATION_STEPS`` asks for another number of steps (``make simulate-nightly``), ``SETPOINT_SIMULATION_SEED`` for
other worlds.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest
from simulation_executor import WorldExecutor
from simulation_recipe import MODES, draw
from simulation_run import STEPS, Result, SimulationFailed, run_seed

from setpoint.engine.assembly import Assembler
from setpoint.engine.batch import Batch, BatchItem, make_batch
from setpoint.engine.kv_blocks import BlockPool
from setpoint.engine.sequence import Sequence
from setpoint.engine.step_loop import StepLoop
from setpoint.policy import fifo
from setpoint.policy.configuration import BatchingMode
from setpoint.policy.decisions import StepPlan
from setpoint.policy.views import StepView

TOTAL_STEPS = int(os.environ.get("SETPOINT_SIMULATION_STEPS", "1000000"))
FIRST_SEED = int(os.environ.get("SETPOINT_SIMULATION_SEED", "0"))
PROCESSES = min(2, os.cpu_count() or 1)
TWICE_EVERY = 20
ENOUGH_TO_COVER = 500_000
HERE = Path(__file__).parent


@pytest.mark.timeout(max(300, TOTAL_STEPS // 1000))
def test_a_million_steps_of_random_worlds_keep_every_invariant() -> None:
    results: list[Result] = []
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(PROCESSES, mp_context=context) as pool:
        while (left := TOTAL_STEPS - sum(result.steps for result in results)) > 0:
            first = FIRST_SEED + len(results)
            results += run_worlds(pool, range(first, first + -(-left // STEPS)))
    if TOTAL_STEPS >= ENOUGH_TO_COVER:
        check_coverage(results)


def run_worlds(pool: ProcessPoolExecutor, seeds: range) -> list[Result]:
    """Every world once, and some again, in another process or later in the same: the digests have to agree."""
    each = [pool.submit(run_seed, seed) for seed in seeds]
    again = {seed: pool.submit(run_seed, seed) for seed in seeds[::TWICE_EVERY]}
    try:
        results = [future.result() for future in each]
        digests = {seed: future.result().digest for seed, future in again.items()}
    except SimulationFailed as failure:
        pool.shutdown(cancel_futures=True)
        pytest.fail(str(failure), pytrace=False)
    for result in results:
        assert digests.get(result.seed, result.digest) == result.digest, f"seed {result.seed} decides differently again"
    return results


def check_coverage(results: list[Result]) -> None:
    """The worlds were worth it: enough steps, every mode has its share, and everything that may happen has happened."""
    steps = Counter[str]()
    for result in results:
        steps[result.mode] += result.steps
    assert steps[BatchingMode.SETPOINT] >= 0.3 * steps.total()
    assert all(steps[mode] >= 0.1 * steps.total() for mode in BatchingMode)
    happened = Counter[str]()
    for result in results:
        happened.update(result.counts)
    few = [name for name, count in happened.items() if count < len(results)]
    assert not few, f"hardly ever happened: {few}"


def test_a_seed_draws_one_world_and_eight_in_a_row_every_mode() -> None:
    assert draw(1) == draw(1)
    assert draw(1) != draw(9)
    assert [draw(seed).config.mode for seed in range(8)] == list(MODES)
    assert set(MODES) == set(BatchingMode)


def test_the_replay_command_runs_a_world_and_says_where_it_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    done = subprocess.run(
        [sys.executable, str(HERE / "simulation_replay.py"), "2", "--steps", "50"], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("seed 2 static steps=")
    assert run_seed(2, 50).digest in done.stdout
    monkeypatch.setattr(WorldExecutor, "_duration_s", lambda *_: -1.0)
    with pytest.raises(SimulationFailed, match=r"(?s)seed 2 fails at step \d+: .*replay: .*simulation_replay.py 2 --steps 50"):
        run_seed(2, 50)


# Engines that are broken on purpose: the invariants have to see it.


def leaky(self: Assembler, sequence: Sequence) -> None:
    self._pool.release(sequence.forget_blocks()[1:])


def crossed_join(self: Assembler, sequence: Sequence, running: int) -> bool:
    """The first two blocks change places."""
    joined = join(self, sequence, running)
    if joined and len(sequence.blocks) > 1:
        sequence.blocks[0], sequence.blocks[1] = sequence.blocks[1], sequence.blocks[0]
    return joined


def wrong_hash(self: Sequence, block_tokens: int, limit_tokens: int) -> list[bytes]:
    """Every prompt looks like every other of its length."""
    return [bytes([index % 256]) * 16 for index in range(limit_tokens // block_tokens)]


def evict_in_use(self: BlockPool, count: int) -> list[int]:
    blocks = allocate(self, count)
    used = [block for block, references in enumerate(self._references) if references > 0 and block not in blocks]
    return [*blocks[:-1], used[0]] if used and blocks else blocks


def two_tokens(self: StepLoop, plan: StepPlan) -> None:
    shed(self, plan)
    for sequence in self.running.values():
        if sequence.emitted == 2:
            sequence.max_tokens += 1


def lost(self: StepLoop) -> list[object]:
    self._notices.clear()
    return []


def over_budget(items: list[BatchItem]) -> Batch:
    whole = [BatchItem(i.sequence, i.start, len(i.sequence.tokens) - i.start, emits=True) if i.count > 1 else i for i in items]
    return make_batch(whole)


join, allocate, shed = Assembler._join, BlockPool.allocate, StepLoop._shed


def run_all(seeds: range, steps: int) -> None:
    for seed in seeds:
        run_seed(seed, steps)


BREAKS = {
    "a block is never given back": (Assembler, "release", leaky, "references and block tables disagree"),
    "block tables are mixed up": (Assembler, "_join", crossed_join, "a block was computed behind another text"),
    "hashes collide": (Sequence, "hash_full_blocks", wrong_hash, "a block holds other tokens"),
    "blocks in use are taken": (BlockPool, "allocate", evict_in_use, "behind another text|somebody else uses"),
    "the cap moves": (StepLoop, "_shed", two_tokens, "more tokens than the cap"),
    "ends are lost": (StepLoop, "take_notices", lost, "does not come to an end|nothing will ever happen again"),
}


@pytest.mark.parametrize("name", BREAKS)
def test_a_broken_engine_is_found_within_a_few_worlds(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    where, what, broken, finding = BREAKS[name]
    monkeypatch.setattr(where, what, broken)
    with pytest.raises(SimulationFailed, match=finding):
        run_all(range(40), 200)


def test_a_budget_that_is_not_kept_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("setpoint.engine.assembly.make_batch", over_budget)
    with pytest.raises(SimulationFailed, match="more prompt than the plan's budget"):
        run_all(range(40), 200)


def test_a_policy_that_forgets_somebody_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """It serves the newest first: with enough load the oldest never gets its turn."""

    def newest_first(step: StepView, max_running: int) -> tuple[int, ...]:
        room = max(0, max_running - len(step.running))
        return (*fifo.in_prefill(step.running).tolist(), *step.waiting.ids[::-1][:room].tolist())

    monkeypatch.setattr(fifo, "oldest_first", newest_first)
    with pytest.raises(SimulationFailed, match="starves"):
        run_all(range(1, 200, 4), 1000)


def test_another_decision_gives_another_digest(monkeypatch: pytest.MonkeyPatch) -> None:
    seeds = (0, 3, 6, 8, 11)
    before = [run_seed(seed, 100).digest for seed in seeds]
    assert [run_seed(seed, 100).digest for seed in seeds] == before
    monkeypatch.setattr("setpoint.policy.setpoint.MARGIN", 0.3)
    assert [run_seed(seed, 100).digest for seed in seeds] != before
