"""What a policy has learned outlasts a change of the configuration."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from setpoint.policy.changing import LIVE_FIELDS, ChangingPolicy, needs_restart
from setpoint.policy.configuration import BatchingMode, ServingConfig, SpeculationMode
from setpoint.policy.continuous import ContinuousPolicy
from setpoint.policy.modes import build_policy
from setpoint.policy.setpoint import SetpointPolicy
from setpoint.policy.speculating import FixedDrafts, SpeculatingPolicy
from setpoint.policy.step_time import StepTimeModel

SETPOINT = ServingConfig(mode=BatchingMode.SETPOINT, max_running=8)
CONTINUOUS = SETPOINT.model_copy(update={"mode": BatchingMode.CONTINUOUS})
LOOKUP = SETPOINT.model_copy(update={"speculation": SpeculationMode.PROMPT_LOOKUP})

live_configs = st.builds(
    ServingConfig,
    mode=st.sampled_from(BatchingMode),
    max_running=st.integers(1, 64),
    token_budget=st.sampled_from([1, 16, 512, 2048]),
    max_waiting=st.sampled_from([0, 5, 1024]),
)


def test_a_setpoint_policy_is_resized_and_comes_back_after_another_mode_as_it_was() -> None:
    changing = ChangingPolicy(SETPOINT, StepTimeModel())
    first = changing.policy
    assert isinstance(first, SetpointPolicy)
    first.lengths.ended(0, cap_tokens=100, emitted_tokens=10)
    learned = (first.lengths, first.tenants, first.promises, first.outcomes, first.step_margin)
    assert changing.change(SETPOINT.model_copy(update={"max_running": 3, "token_budget": 40})) is first
    assert isinstance(changing.change(CONTINUOUS), ContinuousPolicy)
    assert changing.change(SETPOINT) is first
    assert (first.lengths, first.tenants, first.promises, first.outcomes, first.step_margin) == learned


@given(st.lists(live_configs, min_size=1, max_size=6))
def test_whatever_it_was_before_a_policy_is_of_the_kind_of_its_configuration_and_shares_the_model(
    configs: list[ServingConfig],
) -> None:
    model = StepTimeModel()
    changing = ChangingPolicy(ServingConfig(), model)
    for config in configs:
        assert needs_restart(ServingConfig(), config) == ()
        policy = changing.change(config)
        assert changing.config == config
        assert type(policy) is type(build_policy(config))
        assert getattr(policy, "model", None) is model


def test_a_resized_policy_decides_as_a_fresh_one_of_that_size() -> None:
    small = SETPOINT.model_copy(update={"max_running": 3, "token_budget": 40, "max_waiting": 2, "prefill_floor_tokens": 64})
    resized = ChangingPolicy(SETPOINT, StepTimeModel()).change(small)
    fresh = build_policy(small)
    assert isinstance(resized, SetpointPolicy)
    assert isinstance(fresh, SetpointPolicy)
    assert (resized._limits, resized._max_waiting) == (fresh._limits, fresh._max_waiting)
    assert resized._outlooks._limits == fresh._outlooks._limits


def test_drafts_can_be_turned_off_and_on_with_what_was_learned_of_them() -> None:
    changing = ChangingPolicy(LOOKUP, StepTimeModel())
    assert isinstance(changing.policy, SpeculatingPolicy)
    inner, chooser = changing.policy.inner, changing.policy.chooser
    assert changing.change(SETPOINT) is inner
    fixed = changing.change(LOOKUP.model_copy(update={"draft_tokens": 4}))
    assert isinstance(fixed, SpeculatingPolicy)
    assert isinstance(fixed.chooser, FixedDrafts)
    back = changing.change(LOOKUP)
    assert isinstance(back, SpeculatingPolicy)
    assert (back.inner, back.chooser) == (inner, chooser)


def test_what_drafting_takes_is_what_whoever_decides_on_drafts_has_learned() -> None:
    changing = ChangingPolicy(LOOKUP, StepTimeModel())
    assert changing.drafting_s is None
    assert isinstance(changing.policy, SpeculatingPolicy)
    for count in (1, 2, 4, 8):
        for rounds, read in ((1, 95 * count), (4, 2 * count)):
            changing.policy.chooser.learn_drafting(rounds, rounds * count, read, 1e-3 * rounds)
    known = changing.drafting_s
    assert known is not None
    changing.change(SETPOINT)
    assert changing.drafting_s == known, "it is known while drafts are off"
    changing.change(LOOKUP.model_copy(update={"draft_tokens": 4}))
    assert changing.drafting_s is None, "a fixed length has its own"
    assert ChangingPolicy(SETPOINT, StepTimeModel()).drafting_s is None


def test_what_a_server_was_not_started_with_needs_a_restart() -> None:
    def changed(**values: object) -> ServingConfig:
        return LOOKUP.model_copy(update=values)

    assert needs_restart(LOOKUP, changed(kv_cache_tokens=64, threads=1)) == ("kv_cache_tokens", "threads")
    assert needs_restart(LOOKUP, changed(speculation=SpeculationMode.DRAFT)) == ("speculation",)
    assert needs_restart(SETPOINT, LOOKUP) == ("speculation",)
    assert needs_restart(LOOKUP, SETPOINT) == ()
    assert needs_restart(LOOKUP, changed(max_draft_tokens=64)) == ("max_draft_tokens",)
    assert needs_restart(LOOKUP, changed(max_draft_tokens=2)) == ()


def test_every_field_of_a_configuration_is_live_or_not_on_purpose() -> None:
    fixed = {"kv_cache_tokens", "threads", "draft_model"}
    assert LIVE_FIELDS | fixed == set(ServingConfig.model_fields), "a new field: can it change while the engine runs?"


@pytest.mark.parametrize("mode", list(BatchingMode))
def test_a_change_to_the_same_configuration_keeps_the_kind(mode: BatchingMode) -> None:
    config = ServingConfig(mode=mode)
    changing = ChangingPolicy(config, StepTimeModel())
    assert type(changing.change(config)) is type(build_policy(config))
