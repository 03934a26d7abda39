"""How the threaded engine ends: drained, stopped, failed. Every stream gets an end and every caller an answer."""

from __future__ import annotations

import asyncio

import pytest
from engine_stepped import Rig, SteppedExecutor, all_of, in_event_loop, make_rig, running, text_of

from setpoint.engine.emission import Emission
from setpoint.engine.executor import Executor
from setpoint.engine.request import EngineFailed, FinishReason
from setpoint.engine.step_loop import StepLoop
from setpoint.engine.threaded import ThreadedEngine
from setpoint.policy.configuration import ServingConfig
from setpoint.policy.continuous import ContinuousPolicy
from setpoint.policy.decisions import Admit, Reject, StepPlan
from setpoint.policy.step_time import StepTimeModel
from setpoint.policy.views import RequestView, StepView, SystemView

MANY = 100


@in_event_loop
async def test_a_drain_lets_running_requests_end() -> None:
    async with running(make_rig(SteppedExecutor(by_hand=True))) as rig:
        stream = await rig.ask(5)
        await rig.executor.begun(1)
        asking = asyncio.create_task(rig.ask(3))
        await asyncio.sleep(0)  # posted, not yet admitted: it counts as in the engine
        stopping = asyncio.create_task(rig.engine.stop(drain_s=60))
        await asyncio.sleep(0)
        with pytest.raises(EngineFailed, match="shutting down"):
            await rig.ask(1)
        following = asyncio.create_task(rig.ask(5, follows=True))
        await asyncio.sleep(0)
        rig.executor.let_go()
        assert text_of(await all_of(stream)) == "abcde"
        assert text_of(await all_of(await asking)) == "abc"
        assert text_of(await all_of(await following)) == "abcde", "one more answer to a request that is in the engine"
        await stopping
        assert rig.executor.closed
        assert rig.engine.gauges().kv_used_blocks == 0


@in_event_loop
async def test_without_a_drain_what_runs_is_cut() -> None:
    async with running(make_rig(SteppedExecutor(by_hand=True), config=ServingConfig(max_running=1))) as rig:
        stream = await rig.ask(100)
        await rig.executor.begun(1)
        asking = asyncio.create_task(rig.ask(5))
        await asyncio.sleep(0)
        rig.executor.step()
        waiting = await asking
        await rig.executor.begun(2)
        stopping = asyncio.create_task(rig.engine.stop())
        await asyncio.sleep(0)
        rig.executor.step()
        await stopping
        for one, text in ((stream, "ab"), (waiting, "")):
            deltas = await all_of(one)
            assert text_of(deltas) == text
            assert (deltas[-1].finish_reason, deltas[-1].message) == (FinishReason.ERROR, "the server is shutting down")
        assert rig.executor.closed
        assert rig.engine.gauges().kv_used_blocks == 0
        with pytest.raises(EngineFailed, match="shutting down"):
            await rig.ask(1)
        await rig.engine.stop()
        stream.cancel()


@in_event_loop
async def test_a_request_that_ends_in_the_very_last_step_is_told_so() -> None:
    async with running(make_rig(SteppedExecutor(by_hand=True))) as rig:
        stream = await rig.ask(2)
        rig.executor.step()
        await rig.executor.begun(2)
        stopping = asyncio.create_task(rig.engine.stop())
        await asyncio.sleep(0)
        rig.executor.step()
        deltas = await all_of(stream)
        assert (text_of(deltas), deltas[-1].finish_reason) == ("ab", FinishReason.LENGTH)
        await stopping


@in_event_loop
async def test_text_held_back_comes_out_when_the_engine_is_cut() -> None:
    async with running(make_rig(SteppedExecutor(by_hand=True))) as rig:
        stream = await rig.ask(100, stop=("cde",))
        rig.executor.step(3)
        await rig.executor.begun(4)
        stopping = asyncio.create_task(rig.engine.stop())
        await asyncio.sleep(0)
        rig.executor.step()
        assert text_of(await all_of(stream)) == "abcd"
        await stopping


@pytest.mark.parametrize("where", ["collect", "submit"])
@in_event_loop
async def test_when_a_step_fails_everything_in_flight_ends_with_an_error(where: str) -> None:
    async with running(make_rig(SteppedExecutor(by_hand=True), config=ServingConfig(max_running=2))) as rig:
        done = await rig.ask(1)
        await rig.executor.begun(1)
        asking = [asyncio.create_task(rig.ask(9)) for _ in range(3)]
        await asyncio.sleep(0)
        if where == "submit":
            rig.executor.fail_in_submit = RuntimeError("out of memory")
            rig.executor.step()
        else:
            rig.executor.step()
            await rig.executor.begun(2)
            rig.executor.fail_in_collect = RuntimeError("out of memory")
            rig.executor.step()
        # What the last good step gave is not lost with the next one.
        deltas = await all_of(done)
        assert (text_of(deltas), deltas[-1].finish_reason) == ("a", FinishReason.LENGTH)
        for stream in await asyncio.gather(*asking):
            (last,) = await all_of(stream)
            assert (last.finish_reason, last.message) == (FinishReason.ERROR, "the engine failed: out of memory")
        await is_down(rig, "the engine failed: out of memory")


async def is_down(rig: Rig, message: str) -> None:
    with pytest.raises(EngineFailed, match=message):
        await rig.ask(1)
    with pytest.raises(EngineFailed, match=message):
        rig.engine.gauges()
    await rig.engine.stop(drain_s=5)
    assert rig.executor.closed


@in_event_loop
async def test_a_request_posted_while_the_engine_fails_is_answered() -> None:
    """It lies in the inbox of a thread that will not look there again."""
    async with running(make_rig(SteppedExecutor(by_hand=True))) as rig:
        stream = await rig.ask(9)
        await rig.executor.begun(1)
        late = [asyncio.create_task(rig.ask(1)) for _ in range(3)]
        await asyncio.sleep(0)
        rig.executor.fail_in_collect = RuntimeError("gone")
        rig.executor.step()
        for task in late:
            with pytest.raises(EngineFailed, match="gone"):
                await task
        assert (await all_of(stream))[-1].finish_reason is FinishReason.ERROR


@pytest.mark.parametrize("failed", [False, True], ids=["stopped", "failed"])
@in_event_loop
async def test_a_request_that_was_checked_before_the_end_and_posted_after_it_is_answered(
    failed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(make_rig()) as rig:
        if failed:
            rig.executor.fail_in_collect = RuntimeError("gone")
            await all_of(await rig.ask(1))
        await rig.engine.stop()
        monkeypatch.setattr(rig.engine, "_raise_if_down", lambda **_: None)
        with pytest.raises(EngineFailed, match="gone" if failed else "shutting down"):
            await rig.ask(1)


@pytest.mark.parametrize("ending", ["stop", "fail"])
@in_event_loop
async def test_many_requests_race_with_the_end(ending: str) -> None:
    """Requests come from all sides while the engine ends: each is answered, refused or cut, none is left waiting."""

    async def one(rig: Rig, number: int) -> str:
        for _ in range(number % 17):
            await asyncio.sleep(0)
        try:
            deltas = await all_of(await rig.ask(1 + number % 5))
        except EngineFailed:
            return "refused"
        assert deltas[-1].finish_reason in (FinishReason.LENGTH, FinishReason.ERROR)
        return str(deltas[-1].finish_reason)

    ends: list[str] = []
    for moment in range(1, 20, 2):
        async with running(make_rig()) as rig:
            tasks = [asyncio.create_task(one(rig, number)) for number in range(MANY)]
            for _ in range(moment):
                await asyncio.sleep(0)
            if ending == "stop":
                await rig.engine.stop()
            else:
                rig.executor.fail_in_collect = RuntimeError("gone")
            ends += await asyncio.gather(*tasks)
    assert len(ends) == 10 * MANY
    assert set(ends) <= {"length", "error", "refused"}


class BrokenPolicy(ContinuousPolicy):
    """Breaks in ``admit`` or in ``plan``."""

    def __init__(self, breaks: str) -> None:
        super().__init__(max_running=4, token_budget=64, max_waiting=8, model=StepTimeModel())
        self.breaks = breaks

    def admit(self, request: RequestView, system: SystemView) -> Admit | Reject:
        if self.breaks == "admit":
            raise ZeroDivisionError
        return super().admit(request, system)

    def plan(self, step: StepView) -> StepPlan:
        if self.breaks == "plan":
            raise KeyError("no such request")
        return super().plan(step)


@in_event_loop
async def test_a_policy_that_breaks_in_admit_ends_the_engine_not_the_callers_patience() -> None:
    async with running(make_rig(policy=BrokenPolicy("admit"))) as rig:
        with pytest.raises(EngineFailed, match="ZeroDivisionError"):
            await rig.ask(1)
        await rig.engine.stop()
        await is_down(rig, "ZeroDivisionError")


@in_event_loop
async def test_a_policy_that_breaks_in_plan_ends_the_stream() -> None:
    async with running(make_rig(policy=BrokenPolicy("plan"))) as rig:
        (last,) = await all_of(await rig.ask(1))
        assert (last.finish_reason, last.message) == (FinishReason.ERROR, "the engine failed: 'no such request'")
        await is_down(rig, "no such request")


@in_event_loop
async def test_streams_end_even_if_the_step_loop_cannot_be_wound_up(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(loop: StepLoop, message: str) -> list[Emission]:
        raise ValueError("block 3 released more often than it was taken")

    monkeypatch.setattr(StepLoop, "abort_all", broken)
    async with running(make_rig(SteppedExecutor(by_hand=True))) as rig:
        stream = await rig.ask(9)
        await rig.executor.begun(1)
        stopping = asyncio.create_task(rig.engine.stop())
        await asyncio.sleep(0)
        rig.executor.step()
        last = (await all_of(stream))[-1]
        assert (last.finish_reason, "block 3" in last.message) == (FinishReason.ERROR, True)
        await stopping
        assert rig.executor.closed


@pytest.mark.parametrize(
    ("error", "message"),
    [(EngineFailed("no model here"), "no model here"), (MemoryError("too large"), "too large"), (OSError(), "OSError")],
    ids=str,
)
@in_event_loop
async def test_an_engine_that_cannot_be_built_says_why(error: Exception, message: str) -> None:
    def build() -> tuple[StepLoop, Executor]:
        raise error

    rig = make_rig()
    engine = ThreadedEngine(model_name="none", tokenizer=rig.engine.tokenizer, build=build, max_model_len=8)
    broken = Rig(engine, rig.executor)
    with pytest.raises(EngineFailed, match="not started"):
        engine.gauges()
    with pytest.raises(EngineFailed, match="not started"):
        await broken.ask(1)
    with pytest.raises(EngineFailed, match=message):
        await engine.start()
    with pytest.raises(EngineFailed, match=message):
        await broken.ask(1)
    await engine.stop()


@in_event_loop
async def test_a_start_that_is_given_up_leaves_no_error_behind() -> None:
    errors: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: errors.append(context))
    rig = make_rig()
    starting = asyncio.create_task(rig.engine.start())
    await asyncio.sleep(0)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    await rig.engine.stop()
    await asyncio.sleep(0)
    assert errors == []


def test_an_event_loop_that_is_gone_does_not_keep_the_thread() -> None:
    """The server's loop may close before the engine has handed over its last words."""
    rig = make_rig(SteppedExecutor(by_hand=True))

    async def start_and_leave() -> None:
        await rig.engine.start()
        await rig.ask(3)

    asyncio.run(start_and_leave())
    rig.executor.let_go()
    asyncio.run(asyncio.wait_for(rig.engine.stop(), 10))
    assert rig.executor.closed
