"""The threaded engine while it runs: streams, cancellation, refusals, stop strings, and what it tells of itself."""

from __future__ import annotations

import asyncio
import math
import time
from typing import Any

import pytest
from engine_driving import FewerBlocks
from engine_prompts import SENTENCES, plain_texts
from engine_stepped import MODEL_LEN, Rig, SteppedExecutor, all_of, eventually, in_event_loop, make_rig, running, text_of

from model_reference import Reference, without_end
from setpoint.engine import handing_over
from setpoint.engine.executor import Executor
from setpoint.engine.openvino.executor import OpenVinoExecutor
from setpoint.engine.request import FinishReason, GenerationRequest, InvalidRequest, Rejected, SamplingParams
from setpoint.engine.step_loop import StepLoop
from setpoint.engine.threaded import ThreadedEngine
from setpoint.engine.tokenizer import ModelTokenizer
from setpoint.policy.configuration import BatchingMode, ServingConfig
from setpoint.policy.decisions import Admit, Reject
from setpoint.policy.modes import build_policy
from setpoint.policy.views import RequestLimits, RequestView, SystemView
from setpoint.record.columns import STEP_COLUMNS

LETTERS_IN_ORDER = "abcdefghijklmnopqrstuvwxyz"


def idle(rig: Rig) -> bool:
    """Nothing in the engine, no block taken."""
    gauges = rig.engine.gauges()
    return gauges.waiting == gauges.running == gauges.kv_used_blocks == 0


@in_event_loop
async def test_streams_side_by_side() -> None:
    async with running(make_rig()) as rig:
        streams = [await rig.ask(n, prompt="x" * n) for n in (1, 3, 26, 9)]
        answers = await asyncio.gather(*map(all_of, streams))
        for stream, n, deltas in zip(streams, (1, 3, 26, 9), answers, strict=True):
            assert text_of(deltas) == LETTERS_IN_ORDER[:n]
            assert [delta.finish_reason for delta in deltas] == [None] * (n - 1) + [FinishReason.LENGTH]
            assert [token for delta in deltas for token in delta.token_ids] == list(LETTERS_IN_ORDER[:n].encode())
            assert stream.prompt_tokens == n
            assert await all_of(stream) == []
        assert idle(rig)
        assert rig.engine.gauges().output_tokens_total == 39


@in_event_loop
async def test_cancelling_frees_the_blocks_at_the_next_step() -> None:
    async with running(make_rig(SteppedExecutor(by_hand=True))) as rig:
        stream = await rig.ask(100)
        asking = asyncio.create_task(rig.ask(3))
        reader = asyncio.create_task(all_of(stream))
        await asyncio.sleep(0)
        rig.executor.step(2)
        await rig.executor.begun(3)
        other = await asking
        assert rig.engine.gauges().kv_used_blocks > 0
        stream.cancel()
        rig.executor.step(1)
        deltas = await reader
        assert text_of(deltas).startswith("ab")
        assert deltas[-1].finish_reason is FinishReason.CANCELLED
        rig.executor.let_go()
        assert text_of(await all_of(other)) == "abc"
        assert idle(rig)
        stream.cancel()
        assert text_of(await all_of(await rig.ask(2))) == "ab"


@in_event_loop
async def test_a_waiting_request_is_cancelled_without_ever_running() -> None:
    async with running(make_rig(SteppedExecutor(by_hand=True), config=ServingConfig(max_running=1))) as rig:
        first = await rig.ask(4)
        await rig.executor.begun(1)
        asking = asyncio.create_task(rig.ask(4))
        await asyncio.sleep(0)
        rig.executor.step()
        second = await asking
        await rig.executor.begun(2)
        second.cancel()
        rig.executor.step()
        assert [delta.finish_reason for delta in await all_of(second)] == [FinishReason.CANCELLED]
        rig.executor.let_go()
        assert text_of(await all_of(first)) == "abcd"
        assert idle(rig)


@in_event_loop
async def test_a_caller_that_gives_up_while_it_is_admitted_leaves_nothing() -> None:
    async with running(make_rig(SteppedExecutor(by_hand=True))) as rig:
        first = await rig.ask(3)
        await rig.executor.begun(1)
        asking = asyncio.create_task(rig.ask(200))
        await asyncio.sleep(0)  # the request is posted; the engine is inside a step and has not seen it
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        rig.executor.let_go()
        await all_of(first)
        await eventually(lambda: idle(rig))
        assert [stats.finish_reason for stats in rig.engine.ended_requests(0)[0]].count(FinishReason.CANCELLED) == 1


class AdmissionsSeen:
    """A policy that keeps the requests it was asked to admit."""

    def __init__(self) -> None:
        inner = build_policy(ServingConfig(mode=BatchingMode.CONTINUOUS))
        self.seen: list[RequestView] = []
        self._admit = inner.admit
        self.plan, self.observe = inner.plan, inner.observe

    def admit(self, request: RequestView, system: SystemView) -> Admit | Reject:
        self.seen.append(request)
        return self._admit(request, system)


@in_event_loop
async def test_limits_run_from_when_the_server_has_the_request_not_from_the_next_step() -> None:
    policy = AdmissionsSeen()
    async with running(make_rig(SteppedExecutor(by_hand=True), policy=policy)) as rig:
        first = await rig.ask(3)
        await rig.executor.begun(1)
        asking = asyncio.create_task(rig.ask(1))
        await asyncio.sleep(0)  # posted: the engine is inside a step
        had_s = time.monotonic()
        rig.executor.let_go()
        await all_of(await asking)
        await all_of(first)
    assert policy.seen[1].sent_s <= had_s <= policy.seen[1].arrived_s


@in_event_loop
async def test_a_full_queue_rejects() -> None:
    rig = make_rig(SteppedExecutor(by_hand=True), config=ServingConfig(max_running=1, max_waiting=0))
    async with running(rig):
        first = await rig.ask(3)
        await rig.executor.begun(1)
        asking = asyncio.create_task(rig.ask(3))
        await asyncio.sleep(0)
        rig.executor.step()
        with pytest.raises(Rejected, match="queue_full") as rejected:
            await asking
        assert rejected.value.retry_after_s > 0
        assert rig.engine.gauges().rejected_total == 1
        rig.executor.let_go()
        assert text_of(await all_of(first)) == "abc"
        assert text_of(await all_of(await rig.ask(1))) == "a"


@pytest.mark.parametrize(
    ("field", "options"),
    [
        ("prompt", {"prompt": ""}),
        ("prompt", {"prompt": "x" * MODEL_LEN}),
        ("prompt", {"prompt": "é"}),  # bytes that this vocabulary does not have
        ("max_tokens", {"tokens": 0}),
        ("temperature", {"temperature": -1.0}),
        ("temperature", {"temperature": math.nan}),
        ("temperature", {"temperature": math.inf}),
        ("top_p", {"top_p": 1.5}),
        ("top_k", {"top_k": -1}),
        ("min_p", {"min_p": 2.0}),
        ("presence_penalty", {"presence_penalty": math.inf}),
        ("frequency_penalty", {"frequency_penalty": math.nan}),
        ("repetition_penalty", {"repetition_penalty": 0.0}),
        ("stop", {"stop": ("end", "")}),
    ],
    ids=str,
)
@in_event_loop
async def test_what_can_never_be_served_is_named(field: str, options: dict[str, Any]) -> None:
    async with running(make_rig()) as rig:
        tokens, prompt = options.pop("tokens", 5), options.pop("prompt", "hello")
        sampling = SamplingParams(**{"temperature": 0.0, **options, "max_tokens": tokens})
        with pytest.raises(InvalidRequest) as refusal:
            await rig.engine.submit(GenerationRequest(tuple(prompt.encode()), sampling))
        assert refusal.value.field_name == field
        assert text_of(await all_of(await rig.ask(2))) == "ab"


@in_event_loop
async def test_a_stop_string_across_tokens_ends_the_request() -> None:
    async with running(make_rig()) as rig:
        deltas = await all_of(await rig.ask(26, stop=("def", "xyz")))
        assert text_of(deltas) == "abc"
        assert deltas[-1].finish_reason is FinishReason.STOP
        assert sum(len(delta.token_ids) for delta in deltas) == 6
        await eventually(lambda: idle(rig))
        # What only looked like the beginning of a stop string comes out with the end.
        assert text_of(await all_of(await rig.ask(4, stop=("cdz",)))) == "abcd"


@in_event_loop
async def test_the_end_token_ends_the_request_unless_it_is_ignored() -> None:
    async with running(make_rig(stop_token_ids=frozenset({ord("d")}))) as rig:
        deltas = await all_of(await rig.ask(26))
        assert deltas[-1].finish_reason is FinishReason.STOP
        assert sum(len(delta.token_ids) for delta in deltas) == 4
        assert text_of(deltas) == "abc", "the token that only ends the answer is none of its text, whatever it spells"
        assert text_of(await all_of(await rig.ask(6, ignore_eos=True))) == "abcdef"
        own = await all_of(await rig.ask(6, ignore_eos=True, stop_token_ids=frozenset({ord("c")})))
        assert (text_of(own), own[-1].finish_reason) == ("ab", FinishReason.STOP)


@in_event_loop
async def test_a_doomed_request_is_shed() -> None:
    async with running(make_rig(config=ServingConfig(mode=BatchingMode.SETPOINT))) as rig:
        (delta,) = await all_of(await rig.ask(5, limits=RequestLimits(ttft_s=1e-9)))
        assert delta.finish_reason is FinishReason.SHED
        assert delta.retry_after_s is not None
        assert rig.engine.gauges().shed_total == 1
        assert idle(rig)


@in_event_loop
async def test_a_batch_that_does_not_fill_starts_when_its_wait_is_over() -> None:
    config = ServingConfig(mode=BatchingMode.STATIC, max_running=8, batch_wait_s=0.01)
    async with running(make_rig(config=config)) as rig:
        assert text_of(await all_of(await rig.ask(3))) == "abc"


@in_event_loop
async def test_ended_requests_are_numbered_and_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handing_over, "STATS_RING", 4)
    async with running(make_rig()) as rig:
        assert rig.engine.ended_requests(0) == ([], 0)
        for number in range(6):
            await all_of(await rig.ask(number + 1, name=f"request-{number}"))
        kept, following = rig.engine.ended_requests(0)
        assert [stats.name for stats in kept] == ["request-2", "request-3", "request-4", "request-5"]
        assert following == 6
        assert [stats.name for stats in rig.engine.ended_requests(5)[0]] == ["request-5"]
        assert rig.engine.ended_requests(6) == ([], 6)
        assert rig.engine.ended_requests(99) == ([], 6)
        last = kept[-1]
        assert (last.prompt_tokens, last.output_tokens, last.finish_reason) == (5, 6, FinishReason.LENGTH)
        assert last.first_scheduled_s is not None
        assert last.first_token_s is not None
        assert last.arrived_s <= last.first_scheduled_s <= last.first_token_s <= last.ended_s


@in_event_loop
async def test_steps_are_told_as_columns() -> None:
    async with running(make_rig()) as rig:
        await all_of(await rig.ask(5))
        columns, following = rig.engine.step_columns(0)
        assert set(columns) == set(STEP_COLUMNS.names) - {"candidate"}
        assert columns["step"] == [0, 1, 2, 3, 4]
        assert columns["prefill_tokens"] == [5, 0, 0, 0, 0]
        assert columns["decode_tokens"] == [0, 1, 1, 1, 1]
        assert following == 5
        newer, _ = rig.engine.step_columns(3)
        assert newer["step"] == [3, 4]
        assert rig.engine.gauges().steps_total == 5


@in_event_loop
async def test_the_engine_tells_the_context_length_that_it_enforces() -> None:
    rig = make_rig(SteppedExecutor(blocks=8, block_tokens=4))
    async with running(rig):
        assert rig.engine.max_model_len == 32
        deltas = await all_of(await rig.ask(100, prompt="x" * 30))
        assert text_of(deltas) == "ab"
        assert deltas[-1].finish_reason is FinishReason.LENGTH


def real_engine(executor: OpenVinoExecutor, tokenizer: ModelTokenizer, config: ServingConfig) -> ThreadedEngine:
    def build() -> tuple[StepLoop, Executor]:
        few = FewerBlocks(executor, 64)
        policy = build_policy(config)
        return StepLoop(policy, few, time.monotonic, max_model_len=512, stop_token_ids=tokenizer.eos_ids), few

    return ThreadedEngine(model_name="demo", tokenizer=tokenizer, build=build, max_model_len=512)


@pytest.mark.model
@in_event_loop
async def test_the_real_model_streams_what_the_reference_says(
    executor: OpenVinoExecutor, tokenizer: ModelTokenizer, reference: Reference
) -> None:
    """Also with a stop string that real tokens only complete together, a neighbour that leaves, and a prefix found again."""
    engine = real_engine(executor, tokenizer, ServingConfig(mode=BatchingMode.SETPOINT, token_budget=64))
    await engine.start()
    prompts = [tuple(tokenizer.encode(text)) for text in (*SENTENCES[:5], *plain_texts()[-2:])]
    expected = [reference.greedy(prompt, 20) for prompt in prompts]
    whole = [tokenizer.decode(tokens) for tokens in expected]
    stops = [(text[len(text) // 2 : len(text) // 2 + 3],) if index % 2 else () for index, text in enumerate(whole)]

    async def ask(prompt: tuple[int, ...], stop: tuple[str, ...]) -> tuple[str, list[int]]:
        sampling = SamplingParams(max_tokens=20, temperature=0.0, stop=stop)
        deltas = await all_of(await engine.submit(GenerationRequest(prompt, sampling)))
        return text_of(deltas), [token for delta in deltas for token in delta.token_ids]

    leaving = await engine.submit(GenerationRequest(prompts[-1], SamplingParams(max_tokens=300, ignore_eos=True)))
    tasks = [asyncio.create_task(ask(prompt, stop)) for prompt, stop in zip(prompts, stops, strict=True)]
    await anext(aiter(leaving))
    leaving.cancel()
    for (text, tokens), complete, stop, right in zip(await asyncio.gather(*tasks), whole, stops, expected, strict=True):
        assert text == (complete.partition(stop[0])[0] if stop else complete)
        tokens = without_end(tokens, tokenizer.eos_ids)
        assert tokens == right[: len(tokens)]
        assert len(tokens) == len(right) or stop
    again = await engine.submit(GenerationRequest(prompts[-1], SamplingParams(max_tokens=4, temperature=0.0)))
    await all_of(again)
    assert again.cached_tokens >= 96
    await eventually(lambda: engine.gauges().kv_used_blocks == 0)
    await engine.stop()
