"""Small random worlds for the simulator, each run by the engine's own loop, step by step, and by the simulator in stretches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from hypothesis import strategies as st

from setpoint.policy.configuration import BatchingMode, ServingConfig
from setpoint.policy.decisions import StepWork
from setpoint.policy.modes import build_policy
from setpoint.policy.step_time import StepTimeModel
from setpoint.policy.views import RequestLimits
from setpoint.record import Phase
from setpoint.simulate.load import Load, PhaseOfLoad
from setpoint.simulate.replay import Arrival, Replayed, World, replay
from setpoint.simulate.run import SimulatedSystem
from setpoint.simulate.sequences import Kind
from setpoint.simulate.timing import LineTimer, Overheads

TIMER = LineTimer(6e-3, 2e-4, 3e-4, 2e-7, 1e-8)
BETWEEN_S = 1e-3
BLOCK = 8


@dataclass(frozen=True, slots=True)
class Small:
    """A world: requests as rows of (gap before it, prompt, output, cap above it, kind), and what serves them."""

    requests: tuple[tuple[float, int, int, int, int], ...]
    kinds: tuple[Kind, ...]
    configuration: ServingConfig
    blocks: int

    def load(self) -> Load:
        """As the simulator takes it."""
        gaps, prompts, outputs, more, kinds = (np.array(column) for column in zip(*self.requests, strict=True))
        sent_s = np.cumsum(gaps)
        phases = (PhaseOfLoad(Phase.SUSTAINED, 0.0, float(sent_s[-1]) + 1.0),)
        return Load(sent_s, prompts, outputs, outputs + more, phases, np.zeros(len(gaps), np.int8), self.kinds, kinds)

    def arrivals(self) -> list[Arrival]:
        """As the engine's loop takes it."""
        load = self.load()
        assert load.kind is not None
        return [
            Arrival(
                str(row),
                float(load.sent_s[row]),
                int(load.prompt_tokens[row]),
                int(load.output_tokens[row]),
                int(load.cap_tokens[row]),
                streaming=self.kinds[load.kind[row]].streaming,
                limits=self.kinds[load.kind[row]].limits,
                request_class=self.kinds[load.kind[row]].request_class,
            )
            for row in range(len(load))
        ]

    def system(self) -> SimulatedSystem:
        """What serves; its policy learns as it goes."""
        overheads = Overheads(BETWEEN_S)
        return SimulatedSystem(TIMER, self.blocks, BLOCK, self.configuration, overheads=overheads, model=StepTimeModel)

    def by_the_engine(self) -> Replayed:
        """Every step of it, one by one, through the engine's own loop and block pool."""
        model = StepTimeModel()

        def step_s(work: StepWork, _: float) -> float:
            base_s, per_read_s, per_product_s = TIMER.affine(work.tokens, work.sequences)
            return base_s + per_read_s * work.kv_tokens_read + per_product_s * work.attention_products

        world = World(step_s, self.blocks, BLOCK, BETWEEN_S)
        return replay(self.arrivals(), build_policy(self.configuration, model), world, until_s=1e9, model=model)


LIMITS = (RequestLimits(), RequestLimits(0.3, 0.05), RequestLimits(e2e_s=2.0), RequestLimits(0.5, None, 0.03, 3.0))


def small_worlds(modes: Sequence[BatchingMode] = tuple(BatchingMode), classes: int = 1) -> st.SearchStrategy[Small]:
    """Worlds in which blocks run short, queues fill, answers are one token long, and requests come at the same moment."""
    gaps = st.one_of(st.just(0.0), st.floats(0.0, 0.05), st.floats(0.0, 0.6))
    rows = st.tuples(gaps, st.integers(1, 70), st.integers(1, 60), st.sampled_from([0, 0, 30]), st.integers(0, 2))
    kinds = st.builds(
        Kind, st.booleans(), st.sampled_from(LIMITS), st.integers(0, classes - 1)
    )
    configurations = st.builds(
        ServingConfig,
        mode=st.sampled_from(list(modes)),
        max_running=st.sampled_from([1, 2, 4, 16]),
        token_budget=st.sampled_from([8, 32, 33, 256]),
        batch_wait_s=st.sampled_from([0.0, 0.05]),
        max_waiting=st.sampled_from([2, 1000]),
        prefill_floor_tokens=st.sampled_from([1, 16]),
    )
    return st.builds(
        Small,
        st.lists(rows, min_size=1, max_size=24).map(tuple),
        st.tuples(kinds, kinds, kinds),
        configurations,
        st.sampled_from([17, 20, 30, 60, 400]),
    )


