"""Effects fitted to tables: what made the rows is found again, through odd rows; unseen hardware keeps its prior."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from setpoint.hardware.calibrations import parsed, source_of
from setpoint.hardware.coefficients import ON_GPU
from setpoint.hardware.effects import ALL_NAMES, Effects, all_levels_of, deployment_coefficients, levels_of, weighted_median
from setpoint.hardware.errors import HardwareError
from setpoint.hardware.fit_effects import Rows, fit_effects, logarithms_of, rows_of
from setpoint.hardware.measurements import Measurement, Setting, setting_of
from setpoint.hardware.silicon import chosen_rows
from setpoint.hardware.validate import predictions, validate


def settings_of(system: str = "h100_sxm", engine: str = "vllm") -> list[Setting]:
    models = ("meta-llama/Llama-3.1-8B-Instruct", "Qwen/Qwen3-32B")
    varied = product(models, ("2", "4"), (("1024", "1024"), ("4096", "256")), ("4", "16", "64"))
    fixed = {"backend": engine, "system": system, "precision": "fp8"}
    return [
        setting_of({**fixed, "model_path": model, "tp_size": tensor, "isl": lengths[0], "osl": lengths[1], "batch_size": batch})
        for model, tensor, lengths, batch in varied
    ]


TRUTH = Effects(
    {"engine accelerator": {"vllm h100-sxm": {"memory": 0.2, "compute": 0.3, "front_s": 1.0, "sequence_s": 0.5, "scale": 0.1}}}
)


def measured(settings: list[Setting], noise: float = 0.02) -> Rows:
    rows = rows_of(settings, [1.0] * len(settings), [1.0] * len(settings))
    logs = rows.predicted(logarithms_of(TRUTH, rows))
    return replace(rows, logs=logs + np.random.default_rng(1).normal(0, noise, logs.shape))


def errors(effects: Effects, rows: Rows) -> tuple[float, float]:
    off = np.abs(np.exp(rows.predicted(logarithms_of(effects, rows)) - rows.logs) - 1)
    return float(off[:, 0].mean()), float(off[:, 1].mean())


def test_a_third_of_the_rows_predicts_the_others() -> None:
    rows = measured(settings_of())
    everything = range(len(rows.levels))
    fitted = [place for place in everything if place % 3 == 0]
    effects = fit_effects(rows.some(fitted))
    others = rows.some([place for place in everything if place % 3])
    before, after = errors(Effects({}), others), errors(effects, others)
    assert before[1] > 0.15
    assert after[1] < 0.05
    assert after[0] < 0.15


def test_one_odd_row_pulls_little() -> None:
    rows = measured(settings_of())
    odd = rows.logs.copy()
    odd[5] += 2.0
    assert errors(fit_effects(replace(rows, logs=odd)), rows)[1] < 0.06


def test_the_same_rows_give_the_same_effects() -> None:
    rows = measured(settings_of()[:8])
    assert fit_effects(rows) == fit_effects(rows)


def test_effects_survive_their_file_and_say_their_source() -> None:
    rows = measured(settings_of()[:12])
    effects = fit_effects(rows)
    document = {
        "schema": 1,
        "kind": "effects",
        "name": "n",
        "note": "",
        **effects.as_document(),
        "rows": ["a"],
        "errors": {},
    }
    kept = parsed(document, where="here")
    assert getattr(kept, "effects") == effects  # noqa: B009 (a union)
    there, unseen, unknown = (all_levels_of(settings_of(*each)[0]) for each in (("h100_sxm",), ("mi300x",), ("h200", "sglang")))
    assert [source_of(effects, levels) for levels in (there, unseen, unknown)] == ["measured", "transferred", "physics"]


def test_what_was_never_measured_keeps_its_prior_at_that_level() -> None:
    effects = fit_effects(measured(settings_of()))
    levels = all_levels_of(settings_of("mi300x", "sglang")[0])
    of_its_own = {
        level: name for level, name in levels.items() if level in ("engine", "accelerator", "engine accelerator", "model")
    }
    assert not effects.logarithms(of_its_own).any()
    assert effects.logarithms(levels).shape == (len(ALL_NAMES),)


def test_a_deployment_takes_a_middling_version_of_its_engine() -> None:
    deployment = settings_of()[0].deployment
    name = levels_of(deployment)["model"]
    versions = {f"{name} {number} plain": {"memory": 0.1 * number} for number in (1, 2, 9)}
    found = deployment_coefficients(Effects({"version": versions, "protocol": {"vllm plain": {"memory": 0.3}}}), deployment)
    assert found.memory == pytest.approx(ON_GPU.memory * np.exp(0.2 + 0.3))
    assert found.compute == pytest.approx(ON_GPU.compute)


def test_versions_weigh_by_the_rows_that_were_fitted() -> None:
    """Seen: one row and three of versions that look too fast outvoted the six of the version that fits."""
    deployment = settings_of()[0].deployment
    name = levels_of(deployment)["model"]
    versions = {f"{name} {number} plain": {"scale": scale} for number, scale in ((1, -1.13), (2, -0.57), (3, 0.28))}
    counts = dict(zip(versions, (1, 3, 6), strict=True))
    found = deployment_coefficients(Effects({"version": versions}, {"version": counts}), deployment)
    assert found.memory == pytest.approx(ON_GPU.memory * np.exp(0.28))
    unknown = deployment_coefficients(Effects({"version": versions}), deployment)
    assert unknown.memory == pytest.approx(ON_GPU.memory * np.exp(-0.57))


members = st.lists(
    st.tuples(st.integers(1, 20), st.floats(-3, 3, allow_subnormal=False), st.floats(-3, 3, allow_subnormal=False)),
    min_size=1,
    max_size=12,
)


@given(members)
def test_a_weight_counts_as_so_many_of_the_same(found: list[tuple[int, float, float]]) -> None:
    weights, values = np.array([each[0] for each in found]), np.array([each[1:] for each in found])
    wanted = np.median(np.repeat(values, weights, axis=0), axis=0)
    assert weighted_median(values, weights.astype(np.float64)) == pytest.approx(wanted)


def test_fitted_rows_are_counted_by_version() -> None:
    rows = measured(settings_of()[:12])
    effects = fit_effects(rows)
    assert set(effects.counts) == {"engine version", "version"}
    assert sum(effects.counts["version"].values()) == 12
    assert set(effects.counts["version"]) == set(effects.factors["version"])


@pytest.mark.parametrize("counts", [{"version": {"a": 0}}, {"version": {"a": "many"}}, ["version"]])
def test_counts_that_are_none_are_refused(counts: object) -> None:
    document = {"schema": 1, "kind": "effects", "name": "n", "note": "", "effects": {}, "rows": [], "errors": {}}
    with pytest.raises(HardwareError, match="here: is not a calibration of setpoint"):
        parsed({**document, "counts": counts}, where="here")


def measurements(count: int = 60) -> list[Measurement]:
    settings = settings_of()
    return [
        Measurement(f"m{place}", ("vllm", "h100_sxm", "x"), settings[place % len(settings)], "", 0.1 + place // 2, 0.01)
        for place in range(count)
    ]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_fitted_rows_are_at_most_a_fifth_of_each_group_with_all_their_copies(seed: int) -> None:
    rows = measurements()
    chosen = chosen_rows(rows, seed=seed)
    assert chosen == chosen_rows(rows, seed=seed)
    assert 0 < len(chosen) <= 0.2 * len(rows)
    pairs = {rows[place].ttft_s for place in chosen}
    assert all((row.ttft_s in pairs) == (place in chosen) for place, row in enumerate(rows))
    spread = {row.setting.concurrency for place in chosen if (row := rows[place]).setting}
    assert spread == {4.0, 16.0, 64.0}


def test_small_groups_give_no_rows() -> None:
    assert chosen_rows(measurements(4)) == []


def test_a_table_is_scored_and_nothing_is_fitted_on_it() -> None:
    settings = settings_of()
    rows = measured(settings, noise=0.0)
    seconds = np.exp(rows.logs)
    table = [
        Measurement(f"m{place}", ("vllm", "h100_sxm", "x"), setting, "", float(pair[0]), float(pair[1]) * 1.1)
        for place, (setting, pair) in enumerate(zip(settings, seconds, strict=True))
    ]
    table += [Measurement("odd", ("abacus", "h100_sxm", "x"), None, "engine unknown", 1.0, 1.0)] * 6
    document = {"schema": 1, "kind": "effects", "name": "n", "note": "", "effects": TRUTH.factors, "rows": [], "errors": {}}
    calibration = parsed(document, where="here")
    found = validate(table, calibration)  # type: ignore[arg-type]
    as_dict = found.as_dict()
    assert set(as_dict) == {"coverage", "tpot_mape", "ttft_mape", "groups"}
    assert as_dict["coverage"] == pytest.approx(24 / 30)
    assert as_dict["tpot_mape"] == pytest.approx(1 - 1 / 1.1)
    assert as_dict["ttft_mape"] == pytest.approx(0.0, abs=1e-9)
    assert [group["rows"] for group in as_dict["groups"]] == [6, 24]
    assert as_dict["groups"][0] == {
        "backend": "abacus", "system": "h100_sxm", "model": "x", "rows": 6, "coverage": 0.0, "tpot_mape": None,
        "ttft_mape": None, "source": "physics",
    }  # fmt: skip
    assert found.refused == {"engine unknown": 6}
    assert [each is None for each in predictions(table, TRUTH)].count(True) == 6
