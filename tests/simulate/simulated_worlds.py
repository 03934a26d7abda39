"""Small random worlds for the simulator, each run by the engine's own loop, step by step, and by the simulator in stretches."""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Sequence as Items
from dataclasses import dataclass, field, replace

import numpy as np
from hypothesis import strategies as st

from setpoint.engine.emission import Emission
from setpoint.engine.request import FinishReason, GenerationRequest, Rejected, SamplingParams
from setpoint.engine.sequence import Sequence as EngineSequence
from setpoint.engine.simulated import SimulatedExecutor, VirtualClock
from setpoint.engine.speculation.building import most_drafting
from setpoint.engine.speculation.draft import Draft
from setpoint.engine.speculation.speculator import Speculator
from setpoint.engine.step_loop import StepLoop
from setpoint.policy.configuration import BatchingMode, ServingConfig, SpeculationMode
from setpoint.policy.decisions import StepWork
from setpoint.policy.modes import build_policy
from setpoint.policy.step_time import StepTimeModel
from setpoint.policy.survival import SurvivalProfile
from setpoint.policy.views import RequestLimits
from setpoint.record import Phase
from setpoint.simulate.acceptance import AcceptedDrafts
from setpoint.simulate.drafter import Drafting, ProfiledDrafter
from setpoint.simulate.load import Load, PhaseOfLoad
from setpoint.simulate.naming import SharedPrefixes
from setpoint.simulate.run import SimulatedSystem
from setpoint.simulate.sequences import Kind
from setpoint.simulate.timing import LineTimer, Overheads

TIMER = LineTimer(6e-3, 2e-4, 3e-4, 2e-7, 1e-8)
BETWEEN_S = 1e-3
BLOCK = 8
MOST_ROUNDS = 100_000


@dataclass(slots=True)
class Told:
    """What the engine's loop did with a request."""

    times_s: list[float] = field(default_factory=list)
    finish: FinishReason | None = None
    refused: bool = False
    sequence: EngineSequence | None = None


@dataclass(frozen=True, slots=True)
class Small:
    """A world: requests as rows of (gap before it, prompt, output, cap above it, kind, text, share of it), and what serves."""

    requests: tuple[tuple[float, int, int, int, int, int, float], ...]
    kinds: tuple[Kind, ...]
    configuration: ServingConfig
    blocks: int
    drafting: Drafting | None = None

    def load(self) -> Load:
        """As the simulator takes it."""
        gaps, prompts, outputs, more, kinds, texts, _ = (np.array(column) for column in zip(*self.requests, strict=True))
        sent_s = np.cumsum(gaps)
        phases = (PhaseOfLoad(Phase.SUSTAINED, 0.0, float(sent_s[-1]) + 1.0),)
        named = SharedPrefixes(texts, np.array(self.shared()))
        first = np.zeros(len(gaps), dtype=np.int64)
        return Load(sent_s, prompts, outputs, outputs + more, phases, first, self.kinds, kinds, named)

    def shared(self) -> list[int]:
        """How many leading tokens of each prompt are those of its text."""
        return [int(share * (prompt - 1)) for _, prompt, _, _, _, _, share in self.requests]

    def system(self) -> SimulatedSystem:
        """What serves; its policy learns as it goes."""
        overheads = Overheads(BETWEEN_S)
        return SimulatedSystem(
            TIMER, self.blocks, BLOCK, self.configuration, overheads=overheads, model=StepTimeModel, drafting=self.drafting
        )

    def by_the_engine(self) -> tuple[list[Told], StepLoop]:
        """Every step of it, one by one, through the engine's own loop, assembler and block pool."""
        return _Engine(self).run()


class TokenDrafter(ProfiledDrafter):
    """The simulation's drafter with real tokens: right ones as far as they stand, then a wrong one."""

    def row(self, sequence: EngineSequence) -> int:
        return int(sequence.request.name)

    def propose(self, asked: Items[tuple[EngineSequence, int]]) -> list[Draft | None]:
        told = super().propose(asked)
        right = iter(self.right)
        return [
            None if draft is None else Draft(self.tokens(sequence, count, next(right)))
            for (sequence, count), draft in zip(asked, told, strict=True)
        ]

    def foretell(self, sequence: EngineSequence) -> tuple[int, ...]:
        count = len(super().foretell(sequence))
        stands = [self.draws.stands(self.row(sequence), sequence.emitted, place) for place in range(count)]
        return self.tokens(sequence, count, stands.index(False) if False in stands else count)

    @staticmethod
    def tokens(sequence: EngineSequence, count: int, right: int) -> tuple[int, ...]:
        return tuple(model_token(sequence) if place < right else 5 for place in range(count))


def model_token(sequence: EngineSequence) -> int:
    """What the model says next, whatever was said before."""
    return 10**9 + sequence.sequence_id


class _Engine:
    """Drives the engine's loop on a virtual clock; requests are seen between two steps."""

    def __init__(self, world: Small) -> None:
        self.world, self.load, self.clock = world, world.load(), VirtualClock()
        self.told = [Told() for _ in world.requests]
        self.rows: dict[int, int] = {}
        model = StepTimeModel()
        executor = SimulatedExecutor(
            self.clock,
            _step_s,
            blocks=world.blocks,
            block_tokens=BLOCK,
            next_token=model_token,
        )
        longest = world.blocks * BLOCK
        policy = build_policy(world.configuration, model)
        speculator = None if world.drafting is None else self.speculator(world.drafting)
        self.loop = StepLoop(policy, executor, self.clock, max_model_len=longest, model=model, speculator=speculator)

    def speculator(self, drafting: Drafting) -> Speculator:
        """The engine's own, with a drafter that knows which of its tokens will stand."""
        config = self.world.configuration
        drafter = TokenDrafter(drafting, self.clock, seed=0, most_tokens=config.longest_draft_tokens)
        return Speculator(drafter, self.clock, most_tokens=config.longest_draft_tokens, most_running=most_drafting(config))

    def run(self) -> tuple[list[Told], StepLoop]:
        coming, sent_s = 0, self.load.sent_s.tolist()
        for _ in range(MOST_ROUNDS):
            while coming < len(sent_s) and sent_s[coming] <= self.clock():
                self.submit(coming)
                coming += 1
            if self.loop.begin_step():
                self.hear(self.loop.take_notices())
                self.hear(self.loop.finish_step())
                self.clock.advance_to(self.clock() + BETWEEN_S)
                continue
            self.hear(self.loop.take_notices())
            moments = sent_s[coming : coming + 1]
            if self.loop.wake_at_s is not None and self.loop.wake_at_s > self.clock():
                moments.append(self.loop.wake_at_s)
            if not moments:
                return self.told, self.loop
            self.clock.advance_to(min(moments))
        raise AssertionError("the engine did not come to an end")

    def submit(self, row: int) -> None:
        _, prompt, output, more, kind, text, _ = self.world.requests[row]
        shared = self.world.shared()[row]
        tokens = (*range(text * 1000, text * 1000 + shared), *range(10**6 * (row + 1), 10**6 * (row + 1) + prompt - shared))
        chosen = self.world.kinds[kind]
        request = GenerationRequest(
            tokens,
            SamplingParams(max_tokens=output + more),
            name=str(row),
            streaming=chosen.streaming,
            limits=chosen.limits,
            request_class=chosen.request_class,
            sent_s=float(self.load.sent_s[row]),
        )
        try:
            sequence = self.loop.submit(request)
        except (Rejected, ValueError):
            self.told[row].refused = True
            return
        self.told[row].sequence, self.rows[sequence.sequence_id] = sequence, row

    def hear(self, emissions: list[Emission]) -> None:
        for emission in emissions:
            row = self.rows[emission.sequence.sequence_id]
            told = self.told[row]
            if emission.token is not None:
                told.times_s.append(self.clock())
                if emission.finish_reason is None and len(told.times_s) == self.world.requests[row][2]:
                    raise AssertionError("an answer went on beyond its length")
            if emission.finish_reason is not None:
                told.finish = emission.finish_reason


def _step_s(work: StepWork) -> float:
    base_s, per_read_s, per_product_s = TIMER.affine(work.tokens, work.sequences)
    return base_s + per_read_s * work.kv_tokens_read + per_product_s * work.attention_products


LIMITS = (RequestLimits(), RequestLimits(0.3, 0.05), RequestLimits(e2e_s=2.0), RequestLimits(0.5, None, 0.03, 3.0))


def small_worlds(modes: Sequence[BatchingMode] = tuple(BatchingMode)) -> st.SearchStrategy[Small]:
    """Worlds in which blocks run short, queues fill, answers are one token long, and requests come at the same moment."""
    gaps = st.one_of(st.just(0.0), st.floats(0.0, 0.05), st.floats(0.0, 0.6))
    texts, shares = st.integers(0, 1), st.sampled_from([0.0, 0.5, 1.0])
    rows = st.tuples(gaps, st.integers(1, 70), st.integers(1, 60), st.just(0), st.integers(0, 2), texts, shares)
    kinds = st.builds(Kind, st.booleans(), st.sampled_from(LIMITS))
    configurations = st.builds(
        ServingConfig,
        mode=st.sampled_from(list(modes)),
        max_running=st.sampled_from([1, 2, 4, 16]),
        token_budget=st.sampled_from([8, 32, 33, 256]),
        batch_wait_s=st.sampled_from([0.0, 0.05]),
        max_waiting=st.sampled_from([2, 1000]),
        prefill_floor_tokens=st.sampled_from([1, 16]),
    )
    requests = st.lists(rows, min_size=1, max_size=24).map(tuple)
    return st.builds(Small, requests, st.tuples(kinds, kinds, kinds), configurations, st.sampled_from([17, 20, 30, 60, 400]))


PASSES = LineTimer(1e-3, 1e-5, 2e-5, 1e-8, 1e-9)


@st.composite
def speculating_worlds(draw: st.DrawFn) -> Small:
    """Those worlds with drafts: of a model or from the text, few or many that stand, as pays or of a fixed length."""
    world = draw(small_worlds())
    chances = draw(st.lists(st.sampled_from([0.0, 0.3, 0.8, 0.95, 1.0]), min_size=1, max_size=6))
    survival = tuple(np.cumprod(chances).tolist())
    model = draw(st.booleans())
    accepted = AcceptedDrafts(SurvivalProfile(survival), 1.0 if model else draw(st.sampled_from([0.4, 1.0])))
    drafting = Drafting(accepted, PASSES if model else None, read_tokens=draw(st.sampled_from([4, 128])), warmed_up=False)
    given = {
        "speculation": SpeculationMode.DRAFT if model else SpeculationMode.PROMPT_LOOKUP,
        "max_draft_tokens": draw(st.sampled_from([1, 4, 15])),
        "draft_tokens": draw(st.sampled_from([None, 0, 1, 3, 20])),
    }
    return replace(world, configuration=world.configuration.model_copy(update=given), drafting=drafting)
