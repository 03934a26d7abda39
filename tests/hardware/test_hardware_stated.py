"""What a prediction of a benchmark states: no queue that is not nearly certain; and the error a timer carries."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from setpoint.hardware.calibrations import (
    UNSEEN_VENDOR_ERROR,
    EffectsCalibration,
    HeldOut,
    group_name,
    relative_error,
    relative_ttft_error,
    vendor_known,
)
from setpoint.hardware.effects import Effects, levels_of
from setpoint.hardware.fit_effects import Rows, logarithms_of, rows_of
from setpoint.hardware.measurements import Setting, setting_of
from setpoint.hardware.stated import stated_logs

NONE = Effects({})


def setting(engine: str = "vllm", system: str = "h100_sxm", clients: float = 16, output: int = 1024) -> Setting:
    row = {"backend": engine, "system": system, "model_path": "meta-llama/Llama-3.1-8B-Instruct", "precision": "fp8"}
    return setting_of({**row, "tp_size": "1", "isl": "1024", "osl": str(output), "batch_size": str(clients)})


def rows(*asked: Setting) -> Rows:
    return rows_of(asked, [1.0] * len(asked), [1.0] * len(asked))


@settings(max_examples=25, deadline=None)
@given(clients=st.integers(1, 4096), engine=st.sampled_from(["vllm", "sglang", "trtllm"]))
def test_no_more_waiting_is_stated_than_is_most_probable(clients: int, engine: str) -> None:
    table = rows(setting(engine, clients=clients))
    probable = table.predicted(logarithms_of(NONE, table))
    stated = stated_logs(table, logarithms_of(NONE, table))
    assert stated[0, 0] <= probable[0, 0] + 1e-9
    assert stated[0, 1] == probable[0, 1]


def test_a_queue_is_stated_only_where_it_is_nearly_certain() -> None:
    places = 0.9 * setting().capacity
    asked = [setting(clients=factor * places) for factor in (0.5, 1.5, 6.0)]
    table = rows(*asked)
    probable, stated = table.predicted(logarithms_of(NONE, table))[:, 0], stated_logs(table, logarithms_of(NONE, table))[:, 0]
    assert stated[0] == pytest.approx(probable[0], abs=0.02)
    assert np.exp(probable[1] - stated[1]) > 2
    assert stated[2] - stated[1] > np.log(4)


def test_an_engine_that_reserves_the_whole_answer_holds_fewer_long_ones() -> None:
    long, short = (setting("trtllm", output=each).capacity / setting("vllm", output=each).capacity for each in (8192, 16))
    assert long < 0.65
    assert short == pytest.approx(1.0, abs=0.05)


def test_a_timer_carries_the_error_of_its_group() -> None:
    errors = HeldOut(100, 0.1, 0.2, 0.11, 0.3)
    here, there, elsewhere = (setting(system=each).deployment for each in ("h100_sxm", "a100_sxm", "mi300x"))
    measured = {"vllm h100-sxm": {"memory": 0.1}}
    effects = Effects(
        {"engine accelerator": measured, "engine": {"vllm": {}}, "engine family": {levels_of(here)["engine family"]: {}}}
    )
    kinds = {"measured": errors, "transferred": HeldOut(100, 0.1, 0.2, 0.22, 0.3)}
    calibration = EffectsCalibration("n", "", effects, frozenset(), kinds, {group_name(here): 0.05, group_name(there): 0.01})
    assert relative_error(calibration, here, levels_of(here)) == 0.05
    assert relative_error(calibration, there, levels_of(there)) == 0.22
    assert relative_error(calibration, elsewhere, levels_of(elsewhere)) == UNSEEN_VENDOR_ERROR
    assert [relative_ttft_error(calibration, each, levels_of(each)) for each in (here, there)] == [0.3, 0.3]
    assert relative_ttft_error(calibration, elsewhere, levels_of(elsewhere)) == UNSEEN_VENDOR_ERROR
    other = setting("vllm", output=64).deployment
    assert relative_error(EffectsCalibration("n", "", effects, frozenset(), kinds), other, levels_of(other)) == 0.11
    assert relative_error(EffectsCalibration("n", "", effects, frozenset(), {}), other, levels_of(other)) is None


VENDORS = {"h100-sxm": "nvidia", "b200": "nvidia", "h200": "nvidia", "mi325x": "amd", "forgotten": ""}


@settings(deadline=None)
@given(
    system=st.sampled_from(["a100_sxm", "h200_sxm", "l40s", "mi300x", "mi355x"]),
    engine=st.sampled_from(["vllm", "sglang", "trtllm"]),
    measured=st.sets(st.tuples(st.sampled_from(["vllm", "sglang", "trtllm"]), st.sampled_from(sorted(VENDORS)))),
    stated=st.floats(0.01, 1.0),
)
def test_no_error_is_narrower_than_a_guess_where_nothing_of_the_vendor_was_measured(
    system: str, engine: str, measured: set[tuple[str, str]], stated: float
) -> None:
    asked = setting(engine, system).deployment
    known: dict[str, dict[str, float]] = {name: {} for name, _ in measured}
    effects = Effects({"engine accelerator": {" ".join(each): {} for each in measured}, "engine": known})
    errors = HeldOut(100, 0.1, 0.2, stated, 0.3)
    kinds = dict.fromkeys(("measured", "measured, unseen model", "transferred", "physics"), errors)
    found = relative_error(EffectsCalibration("n", "", effects, frozenset(), kinds), asked, levels_of(asked))
    vendors = {VENDORS[device] for name, device in measured if name == engine}
    assert found == (stated if asked.accelerator.vendor in vendors else max(stated, UNSEEN_VENDOR_ERROR))


def test_errors_are_of_those_vendors_whose_rows_taught_them() -> None:
    asked = setting("vllm", "mi300x").deployment
    effects = Effects(
        {"engine accelerator": {"vllm mi325x": {}, "vllm h100-sxm": {}, "sglang mi325x": {}}, "engine": {"vllm": {}}}
    )
    kinds = {"transferred": HeldOut(100, 0.1, 0.2, 0.1, 0.3)}
    made = partial(EffectsCalibration, "n", "", effects, frozenset(), kinds, {})
    learned_on = [None, {"vllm mi325x"}, {"vllm h100-sxm"}, {"sglang mi325x"}, set()]
    known = [vendor_known(made(None if each is None else frozenset(each)), asked) for each in learned_on]
    assert known == [True, True, False, False, False], "a file that does not say was taught by what it was fitted to"
