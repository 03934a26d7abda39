"""Mean TTFT and TPOT of a closed loop: against a simulation step by step, and what must hold of every load."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from setpoint.hardware.accelerator import accelerator
from setpoint.hardware.closed_loop import BUDGET_TOKENS, ClosedLoop, Harness, closed_loop_s
from setpoint.hardware.coefficients import ON_GPU
from setpoint.hardware.deployment import Deployment
from setpoint.hardware.model_facts import model_facts
from setpoint.hardware.step_time import PhysicalTimer, step_s
from setpoint.hardware.terms import stacked, terms_of
from setpoint.policy.decisions import StepWork

# A server with nothing around it: no opening burst, no front end, lengths as they are.
BARE = Harness(burst=0.0, front_s=0.0, queue=1.0, cap=1.0, output_s=0.0, slot=0.0, length=1.0, lag=0.5)
MODELS = ("llama-3.1-8b", "mixtral-8x7b", "deepseek-v3")


def deployment_of(model: str) -> Deployment:
    return Deployment(model_facts(model), accelerator("h200"), 8 if model == "deepseek-v3" else 2, "vllm", "fp8")


def predicted(
    model: str, load: tuple[float, float, float], capacity: float = 1e6, harness: Harness = BARE
) -> tuple[float, float]:
    prompt, output, concurrency = load
    loop = ClosedLoop(*(np.array([value]) for value in (prompt, output, concurrency, capacity)))
    ttft_s, tpot_s = closed_loop_s(stacked([terms_of(deployment_of(model))]), ON_GPU, harness, loop)
    return float(ttft_s[0]), float(tpot_s[0])


def simulated(model: str, load: tuple[int, int, int], requests: int) -> tuple[float, float]:
    """The same loop step by step: decodes first, then prompts in order of arrival up to the budget; lengths within a fifth."""
    prompt, output, concurrency = load
    timer = PhysicalTimer(terms_of(deployment_of(model)), ON_GPU)
    random = np.random.default_rng(7)
    now_s = 0.0
    decoding: list[list[float]] = []
    ttft_s: list[float] = []
    tpot_s: list[float] = []

    def fresh() -> list[float]:  # sent, prompt left, prompt, output left, output, first token
        lengths = [float(round(length * random.uniform(0.8, 1.2))) for length in (prompt, output)]
        return [now_s, lengths[0], lengths[0], lengths[1] - 1, lengths[1], 0.0]

    waiting = [fresh() for _ in range(concurrency)]
    while len(tpot_s) < requests:
        left, products, kv, tokens = BUDGET_TOKENS, 0.0, 0.0, len(decoding)
        contexts = [each[2] + each[4] - each[3] for each in decoding]
        kv, products, chosen = sum(contexts), sum(contexts), []
        for each in waiting:
            take = min(left, each[1])
            if take <= 0:
                break
            each[1], left = each[1] - take, left - take
            context = each[2] - each[1]
            tokens, kv, products = tokens + int(take), kv + context, products + take * context
            chosen.append(each)
        now_s += step_s(timer, StepWork(tokens, len(decoding) + len(chosen), int(kv), int(products)))
        for each in decoding:
            each[3] -= 1
        for each in [each for each in decoding if each[3] <= 0]:
            decoding.remove(each)
            tpot_s.append((now_s - each[5]) / (each[4] - 1))
            waiting.append(fresh())
        for each in [each for each in chosen if each[1] <= 0]:
            waiting.remove(each)
            each[5] = now_s
            ttft_s.append(now_s - each[0])
            decoding.append(each)
    return float(np.mean(ttft_s[2 * concurrency :])), float(np.mean(tpot_s[concurrency:]))


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("load", [(512, 128, 8), (2048, 96, 32)])
def test_it_agrees_with_a_simulation_step_by_step(model: str, load: tuple[int, int, int]) -> None:
    ttft_s, tpot_s = simulated(model, load, requests=8 * load[2])
    found_ttft_s, found_tpot_s = predicted(model, load)
    assert found_tpot_s == pytest.approx(tpot_s, rel=0.12)
    assert found_ttft_s == pytest.approx(ttft_s, rel=0.35)


loads = st.tuples(st.floats(64, 8192), st.floats(32, 4096), st.floats(1, 512))


@given(st.sampled_from(MODELS), loads, st.floats(1.0, 4.0))
def test_more_clients_never_wait_less(model: str, load: tuple[float, float, float], more: float) -> None:
    prompt, output, concurrency = load
    ttft_s, tpot_s = predicted(model, load)
    more_ttft_s, more_tpot_s = predicted(model, (prompt, output, concurrency * more))
    assert 0 < tpot_s <= more_tpot_s * 1.02
    assert 0 < ttft_s <= more_ttft_s * 1.02


@given(st.sampled_from(MODELS), loads)
def test_a_cache_for_half_of_them_makes_the_others_wait_their_turn(model: str, load: tuple[float, float, float]) -> None:
    prompt, output, half = load
    ttft_s, tpot_s = predicted(model, (prompt, output, half))
    full_ttft_s, full_tpot_s = predicted(model, (prompt, output, 2 * half), capacity=half)
    assert full_tpot_s == pytest.approx(tpot_s, rel=0.03)
    assert full_ttft_s > ttft_s + 0.9 * tpot_s * output


def test_what_surrounds_the_engine_adds_up() -> None:
    load = (1024.0, 256.0, 16.0)
    ttft_s, tpot_s = predicted("llama-3.1-8b", load)
    slower_ttft_s, slower_tpot_s = predicted("llama-3.1-8b", load, harness=replace(BARE, front_s=0.2))
    assert slower_ttft_s - ttft_s == pytest.approx(0.2, rel=0.05)
    assert 0.8 * tpot_s < slower_tpot_s <= tpot_s  # fewer decode at once while they wait outside
    burst_ttft_s, _ = predicted("llama-3.1-8b", load, harness=replace(BARE, burst=1.0))
    assert burst_ttft_s > 2 * ttft_s
    limited_ttft_s, _ = predicted("llama-3.1-8b", load, harness=replace(BARE, output_s=1e-2))
    assert limited_ttft_s + tpot_s * 256 == pytest.approx(16 * 256 * 1e-2, rel=0.02)
