"""Other configurations between two steps: nobody in the engine comes to harm, and a rebuilt engine keeps the newest."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import cast

import pytest
from engine_stepped import ByteTable, SteppedExecutor, all_of, eventually, in_event_loop, text_of
from engine_world import Driver, WatchedPolicy, World, alone, worlds
from hypothesis import given, settings
from hypothesis import strategies as st

from setpoint.engine.reconfiguring import Built, CannotReconfigure, ReconfigurableEngine, apply_config
from setpoint.engine.request import EngineFailed, FinishReason, GenerationRequest, SamplingParams
from setpoint.engine.restarts import RestartLimits
from setpoint.engine.speculation.building import build_speculator
from setpoint.engine.step_loop import StepLoop
from setpoint.engine.tokenizer import ModelTokenizer
from setpoint.policy.changing import ChangingPolicy
from setpoint.policy.configuration import BatchingMode, ServingConfig, SpeculationMode
from setpoint.policy.step_time import StepTimeModel

MODEL_LEN = 40
configs: st.SearchStrategy[dict[str, object]] = st.builds(
    dict,
    mode=st.sampled_from(BatchingMode),
    max_running=st.integers(1, 6),
    token_budget=st.sampled_from([1, 3, 8, 64]),
    batch_wait_s=st.sampled_from([0.0, 0.01]),
    speculation=st.sampled_from([SpeculationMode.OFF, SpeculationMode.DRAFT]),
)


class ChangingDriver(Driver):
    """A world whose configuration changes every few steps."""

    def __init__(self, world: World, turns: Sequence[dict[str, object]], every: int) -> None:
        super().__init__(world)
        self.changing = ChangingPolicy(world.config, StepTimeModel((2e-3, 1e-4, 0.0, 0.0, 0.0)))
        self.policy = WatchedPolicy(self.changing.policy)
        self.loop.decide_by(self.policy)
        self.turns, self.every, self.count = turns, every, 0

    def _one_step(self) -> None:
        self.count += 1
        if self.count % self.every == 0:
            turn = dict(self.turns[self.count // self.every % len(self.turns)])
            if self.world.config.speculation is SpeculationMode.OFF:
                turn["speculation"] = SpeculationMode.OFF
            apply_config(self.loop, self.changing, self.world.config.model_copy(update=turn))
            self.policy = WatchedPolicy(self.changing.policy)
            self.loop.decide_by(self.policy)
        super()._one_step()

    def _check_batch(self) -> None:
        assert self.policy.last is not None
        batch = self.executor.batch
        assert batch is not None
        assert batch.prefill_tokens <= self.policy.last.prefill_budget_tokens


@pytest.mark.parametrize("speculating", [False, True])
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_whoever_runs_gets_the_same_answer_whatever_changes_around_it(speculating: bool, data: st.DataObject) -> None:
    world = data.draw(worlds(data.draw(st.sampled_from(BatchingMode)), speculating=speculating))
    turns = data.draw(st.lists(configs, min_size=1, max_size=4))
    run = ChangingDriver(world, turns, data.draw(st.integers(1, 7))).run()
    for life in run.lives:
        if life.sequence is None or life.cancelled:
            continue
        assert len(life.ends) == 1, "a request has one end"
        if life.ends[0] is FinishReason.SHED:
            assert not life.tokens, "whoever had begun was ended"
            continue
        wanted = alone(life.arrival.request, run.loop.max_model_len, world.stop_ids)
        assert (life.tokens, life.ends[0]) == wanted


class Rebuilt:
    """An engine over an executor that can be made to fail; ``loops`` are those that were built."""

    def __init__(self, config: ServingConfig) -> None:
        self.loops: list[StepLoop] = []
        self.executor = SteppedExecutor()
        self.engine = ReconfigurableEngine(
            model_name="letters",
            tokenizer=cast(ModelTokenizer, ByteTable()),
            config=config,
            build=self._build,
            max_model_len=MODEL_LEN,
            restarts=RestartLimits(first_wait_s=0.001),
        )

    def _build(self, config: ServingConfig) -> Built:
        model = StepTimeModel()
        changing = ChangingPolicy(config, model)
        speculator = build_speculator(config, time.monotonic)
        loop = StepLoop(
            changing.policy, self.executor, time.monotonic, max_model_len=MODEL_LEN, model=model, speculator=speculator
        )
        self.loops.append(loop)
        return loop, self.executor, changing

    async def ask(self, tokens: int) -> str:
        stream = await self.engine.submit(
            GenerationRequest(tuple(b"hello"), SamplingParams(max_tokens=tokens, temperature=0.0))
        )
        return text_of(await all_of(stream))


@in_event_loop
async def test_it_changes_at_once_and_keeps_the_change_when_it_is_built_again() -> None:
    wanted = ServingConfig(mode="continuous", max_running=2, token_budget=7)
    rig = Rebuilt(ServingConfig())
    await rig.engine.start()
    try:
        await rig.engine.reconfigure(wanted)
        assert rig.engine.config == wanted
        assert await rig.ask(4) == "abcd"
        assert rig.loops[0].steps.columns(0)[0]["prefill_budget_tokens"][0] == 7
        rig.executor.fail_in_collect = ValueError("broken")
        assert await rig.ask(4) == ""
        rig.executor.fail_in_collect = None
        await eventually(lambda: len(rig.loops) > 1 and rig.engine._recovery.outage is None)
        assert await rig.ask(3) == "abc"
        assert rig.engine.config == wanted
        budgets = rig.loops[-1].steps.columns(0)[0]["prefill_budget_tokens"]
        assert budgets[-3] == 7, "the prompt of the last request"
        assert await rig.engine.step_samples(), "a model that has seen steps has samples"
        assert await rig.engine.drafting_s() is None, "nothing drafts"
    finally:
        await rig.engine.stop()


@in_event_loop
async def test_what_needs_a_restart_is_refused_with_its_name_and_changes_nothing() -> None:
    rig = Rebuilt(ServingConfig())
    with pytest.raises(EngineFailed):
        await rig.engine.reconfigure(ServingConfig(max_running=2))
    await rig.engine.start()
    try:
        with pytest.raises(CannotReconfigure, match="kv_cache_tokens: cannot change while the engine runs"):
            await rig.engine.reconfigure(ServingConfig(kv_cache_tokens=64))
        assert rig.engine.config == ServingConfig()
    finally:
        await rig.engine.stop()


def test_with_drafting_off_nobody_looks_for_drafts_and_on_again_they_are_found() -> None:
    config = ServingConfig(speculation=SpeculationMode.PROMPT_LOOKUP, draft_tokens=3)
    rig = Rebuilt(config)
    loop, _, changing = rig._build(config)
    assert loop.speculator is not None
    loop.submit(GenerationRequest(tuple(b"abcdefabcdef"), SamplingParams(max_tokens=20, temperature=0.0)))
    loop.begin_step()
    loop.finish_step()
    assert loop.speculator.view(loop.running.values()) is not None
    apply_config(loop, changing, config.model_copy(update={"speculation": SpeculationMode.OFF}))
    assert loop.speculator.view(loop.running.values()) is None
    apply_config(loop, changing, config)
    assert loop.speculator.view(loop.running.values()) is not None
