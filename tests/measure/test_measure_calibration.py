"""Self-calibration: the search for the capacity, where it is kept."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from setpoint.measure import calibration
from setpoint.measure.calibration import RATES_MAX, STEP, Found, Probe, client_capacity, find_highest
from setpoint.measure.capacity import ASSUMED_CAPACITY, Capacity, cache_file, cached_capacity, keep_capacity

CAPACITY = Capacity(tokens_per_s=31_234.0, requests_per_s=2_111.0, measured_unix_s=1.0)


def probe_of(
    asked_per_s: float, *, limit_per_s: float, server_per_s: float = 1e9, cpu_per_s: float = 1e-5, off_s: float = 0.02
) -> Probe:
    """A client that is good up to a limit, before a server that delivers up to another."""
    delivered_per_s = min(asked_per_s, server_per_s)
    distortion_s = 0.001 if delivered_per_s <= limit_per_s else off_s
    return Probe(asked_per_s, delivered_per_s, distortion_s, 0.0, delivered_per_s * cpu_per_s, 1 / cpu_per_s, True)


@given(st.floats(5_000.0, 150_000.0), st.floats(0.2, 2.0))
def test_search_ends_within_a_step_of_the_limit(limit_per_s: float, guess: float) -> None:
    """The cost of the first probe predicts the limit within a factor of two or so; a step is a quarter."""
    tried: list[Probe] = []
    found = find_highest(
        lambda rate: probe_of(rate, limit_per_s=limit_per_s, cpu_per_s=0.75 / (limit_per_s * guess), off_s=1.0),
        4_000.0,
        tried.append,
    )
    assert len(tried) <= RATES_MAX
    assert found.probe.good
    assert found.probe.asked_per_s <= limit_per_s
    assert found.bound in ("", "at least")
    if not found.bound:
        assert found.probe.asked_per_s * STEP * 1.02 >= limit_per_s
    if 0.6 <= guess <= 1.6:
        assert not found.bound


def test_search_says_when_the_mock_was_the_limit_or_the_client_never_good() -> None:
    by_mock = find_highest(lambda rate: probe_of(rate, limit_per_s=1e9, server_per_s=9_000.0), 4_000.0)
    assert (by_mock.bound, by_mock.probe.delivered_per_s) == ("at least", 9_000.0)
    never = find_highest(lambda rate: probe_of(rate, limit_per_s=0.0), 4_000.0)
    assert never.bound == "less than"
    assert never.probe.asked_per_s == 4_000.0 / 2 ** (RATES_MAX - 1)


def test_one_bad_try_is_the_machines_but_a_hopeless_one_is_not_repeated() -> None:
    tries: list[float] = []

    def stumbling(rate: float) -> Probe:
        tries.append(rate)
        stumbles = tries.count(rate) == 1
        return probe_of(rate, limit_per_s=0.0 if stumbles else 20_000.0, cpu_per_s=0.75 / 20_000.0)

    assert find_highest(stumbling, 4_000.0).probe.asked_per_s > 4_000.0 * 2
    assert all(tries.count(rate) == 2 for rate in tries)
    hopeless: list[Probe] = []
    find_highest(lambda rate: probe_of(rate, limit_per_s=5_000.0, off_s=1.0), 4_000.0, hopeless.append)
    assert len({probe.asked_per_s for probe in hopeless}) == len(hopeless)


def test_what_fills_a_core_with_everything_included_is_the_end() -> None:
    probe = Probe(80_000.0, 80_000.0, 0.001, 0.0, 0.4, 50_000.0, True)
    assert Found(probe, "at least").sustained() == (45_000.0, "")
    assert Found(replace(probe, per_cpu_s=100_000.0), "at least").sustained() == (80_000.0, "at least")
    assert Found(probe, "less than").sustained() == (80_000.0, "less than")


def test_words() -> None:
    assert CAPACITY.words() == "this machine's client is good to 31,000 tokens/s and 2,100 requests/s per worker"
    bounded = Capacity(
        tokens_per_s=9_050.0, requests_per_s=123.0, measured_unix_s=1.0, tokens_bound="at least", requests_bound="less than"
    )
    assert bounded.words().endswith("good to at least 9,000 tokens/s and less than 120 requests/s per worker")
    assert ASSUMED_CAPACITY.words().startswith("not calibrated on this machine, a client is taken to be good to 15,000")


def test_share_of_a_load() -> None:
    capacity = Capacity(tokens_per_s=1000.0, requests_per_s=100.0)
    assert capacity.share(tokens_per_s=500.0, requests_per_s=25.0) == 0.75
    assert json.loads(json.dumps(capacity.as_dict()))["ttft_distortion_max_s"] == 0.005


def test_capacity_is_kept_for_this_machine_and_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_file() == tmp_path / "setpoint" / "client-capacity.json"
    assert cached_capacity() is None
    keep_capacity(CAPACITY)
    assert cached_capacity() == CAPACITY
    assert client_capacity() == CAPACITY
    kept = json.loads(cache_file().read_text())
    (machine,) = kept
    cache_file().write_text(json.dumps({"another machine": kept[machine]}))
    assert cached_capacity() is None
    keep_capacity(CAPACITY)
    assert set(json.loads(cache_file().read_text())) == {"another machine", machine}
    assert [path.name for path in cache_file().parent.iterdir()] == ["client-capacity.json"]


@pytest.mark.parametrize("text", ["", "[]", "{", '{"tokens_per_s": 1}'])
def test_a_spoilt_cache_is_no_cache(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    cache_file().parent.mkdir()
    cache_file().write_text(text)
    assert cached_capacity() is None
    keep_capacity(CAPACITY)
    assert cached_capacity() == CAPACITY


def test_a_cache_that_cannot_be_written_is_done_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    in_the_way = tmp_path / "file"
    in_the_way.touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(in_the_way))
    keep_capacity(CAPACITY)
    assert cached_capacity() is None
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert cache_file().parts[-3:] == (".cache", "setpoint", "client-capacity.json")


def test_recalibrating_measures_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(calibration, "calibrate", lambda say: CAPACITY)
    assert client_capacity() == CAPACITY
    newer = Capacity(tokens_per_s=1.0, requests_per_s=1.0, measured_unix_s=2.0)
    monkeypatch.setattr(calibration, "calibrate", lambda say: newer)
    assert client_capacity() == CAPACITY
    assert client_capacity(recalibrate=True) == newer == cached_capacity()
