"""What ``setpoint serve`` makes of its subject, and of a port that is taken."""

from __future__ import annotations

import re
import socket
from pathlib import Path

import pytest
from loop_world import requirement_file, setpoint

from setpoint.loop.adapt.making import open_log
from setpoint.loop.adapt.rails import Bounds
from setpoint.loop.errors import BadInput
from setpoint.loop.serve import check_held, objectives, read_chat_template, read_subject, request_limits
from setpoint.loop.serve_flags import AdaptFlags, SafetyFlags
from setpoint.loop.subject import is_requirement
from setpoint.policy.configuration import BatchingMode
from setpoint.requirement import LatencyMetric, LatencySlo, Slos, example_names, example_text, parse_requirement
from setpoint.server.limits import ServerLimits
from setpoint.server.live.book import BUCKETS_S


def test_a_file_is_a_requirement_by_its_name_or_because_it_is_no_model(tmp_path: Path) -> None:
    file = requirement_file(tmp_path)
    other = tmp_path / "requirement.conf"
    other.write_text(file.read_text())
    model = tmp_path / "model.gguf"
    model.touch()
    assert [is_requirement(str(path)) for path in (file, other, model, tmp_path)] == [True, True, False, False]
    assert not is_requirement("http://host/v1.yaml")
    assert not is_requirement("x" * 5000)
    for path in (file, other):
        source, requirement = read_subject(str(path))
        assert requirement is not None
        assert source.source == "smollm2-135m"
    assert read_subject("owner/name")[1] is None


def test_the_limits_of_a_request_are_the_tightest_of_the_requirement() -> None:
    slos = Slos(
        latency=(
            LatencySlo(metric=LatencyMetric.TTFT, percentile=50, limit_s=0.2),
            LatencySlo(metric=LatencyMetric.TTFT, percentile=95, limit_s=0.5),
        )
    )
    limits = request_limits(slos)
    assert limits.ttft_s == slos.limit_s(LatencyMetric.TTFT)
    assert (limits.itl_s, limits.tpot_s, limits.e2e_s) == (None, None, None)


@pytest.mark.parametrize("name", example_names())
def test_the_live_view_is_held_against_every_limit_of_the_requirement(name: str) -> None:
    requirement = parse_requirement(example_text(name), name)
    slos, wanted = requirement.slo, objectives(requirement)
    assert wanted.name == requirement.name
    assert [(each.percentile, each.limit_s) for each in wanted.latency] == [(s.percentile, s.limit_s) for s in slos.latency]
    assert [each.limit for each in wanted.spread] == [each.limit for each in slos.spread]
    assert (wanted.goodput_fraction_min, wanted.shed_fraction_max) == (slos.goodput_fraction_min, slos.shed_fraction_max)


def test_the_live_view_knows_every_metric_that_may_be_limited() -> None:
    assert {str(metric) for metric in LatencyMetric} == set(BUCKETS_S)


@pytest.mark.model
def test_a_port_in_use_is_told_before_the_model_is_loaded(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = setpoint("serve", "smollm2-135m", "--port", port, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith(f"setpoint: cannot serve on 127.0.0.1:{port}: Address already in use")
    assert done.stdout == ""


def test_a_chat_template_must_be_one_that_can_be_read(tmp_path: Path) -> None:
    good, empty, binary = tmp_path / "good.jinja", tmp_path / "empty.jinja", tmp_path / "binary.jinja"
    good.write_text("{{ messages }}")
    empty.touch()
    binary.write_bytes(b"\xff\xfe")
    assert read_chat_template(good) == "{{ messages }}"
    for file in (empty, binary, tmp_path, tmp_path / "absent"):
        with pytest.raises(BadInput, match="--chat-template"):
            read_chat_template(file)


def test_adapting_is_read_from_options_and_off_by_default() -> None:
    assert AdaptFlags().rails() is None
    rails = AdaptFlags(
        adapt=True, adapt_modes="static, setpoint", adapt_running="4-16", adapt_budget="64", adapt_dwell_s=9.0
    ).rails()
    assert rails is not None
    assert rails.bounds == Bounds((BatchingMode.STATIC, BatchingMode.SETPOINT), (4, 16), (64, 64))
    assert rails.dwell_s == 9.0
    assert AdaptFlags(adapt_dry_run=True).rails() is not None


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (AdaptFlags(adapt=True, adapt_modes="fast"), "--adapt-modes: found 'fast'; give some of immediate, static"),
        (AdaptFlags(adapt=True, adapt_running="0-4"), "--adapt-running: found '0-4'; give two whole numbers from 1 to 1024"),
        (AdaptFlags(adapt=True, adapt_budget="9-4"), "--adapt-budget: found '9-4'"),
        (AdaptFlags(adapt_log=Path("x")), "--adapt-log: found without --adapt"),
    ],
)
def test_what_is_wrong_with_the_options_of_adapting_is_told(flags: AdaptFlags, sentence: str) -> None:
    with pytest.raises(BadInput, match=re.escape(sentence)):
        flags.rails()


def test_adapting_needs_a_requirement_and_a_log_that_can_be_written(tmp_path: Path) -> None:
    done = setpoint("serve", "smollm2-135m", "--adapt", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("setpoint: --adapt: found the model smollm2-135m")
    with pytest.raises(BadInput, match=r"--adapt-log: .* cannot be written: Is a directory"):
        open_log(tmp_path)


def test_adapting_needs_a_limit_that_a_request_can_miss() -> None:
    for name in example_names():
        requirement = parse_requirement(example_text(name), name)
        if requirement.slo.latency:
            check_held(name, requirement)
    night = parse_requirement(example_text("night-batch"), "night-batch")
    shed = Slos(goodput_fraction_min=0.9, shed_fraction_max=0.1)
    for without in (night, night.model_copy(update={"slo": shed})):
        with pytest.raises(BadInput, match=r"slo of night-batch limits none of .* add a limit, .* for max_throughput"):
            check_held("night-batch.yaml", without)


def test_clients_are_bounded_by_default_as_the_server_bounds_them_and_else_as_asked() -> None:
    assert SafetyFlags().server_limits() == ServerLimits()
    assert SafetyFlags(max_held_body_bytes=1 << 24).server_limits().held_body_bytes == 1 << 24
    assert SafetyFlags(max_body_bytes=1 << 24, max_held_body_bytes=1).server_limits().held_body_bytes == 1 << 24
