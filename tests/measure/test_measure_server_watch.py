"""Watching pages that change, that are slow, that are too large, that are elsewhere, that are not there."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Sequence
from time import monotonic

import pytest
from page_server import Page, PageServer, page_server

from setpoint.measure import page_source, server_watch
from setpoint.measure.event_loop import run
from setpoint.measure.power import PowerSource
from setpoint.measure.server_side import ServerSide, ServerWatch
from setpoint.measure.target import Target, TargetError

RUNNING = "vllm:num_requests_running"


def watch(
    pages: dict[str, Page],
    *,
    looks: int = 2,
    path: str = "/metrics",
    metrics_at: Sequence[str] = (),
    power: str | None = None,
    gpus: tuple[str, ...] = (),
    held_s: float = 0.0,
) -> tuple[ServerSide, PageServer]:
    """Watch until ``path`` was asked for ``looks`` times, the last of them at the end."""

    async def main() -> tuple[ServerSide, PageServer]:
        async with page_server(pages, held_s) as served:
            source = PowerSource(served.url + power, gpus) if power is not None else None
            watching = ServerWatch(Target(served.url, "m"), metrics_urls=[served.url + one for one in metrics_at], power=source)
            start_s = monotonic()
            await watching.start()
            async with asyncio.timeout(20):
                while served.asked.count(path) < looks - 1:
                    await asyncio.sleep(0.01)
            await watching.stop()
            return watching.result(start_s), served

    return run(main())


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_watch, "METRICS_PERIOD_S", 0.01)


@pytest.mark.usefixtures("quick")
def test_looks_before_during_and_after() -> None:
    side, served = watch({"/metrics": lambda looks: f"{RUNNING} {looks}\n"}, looks=5)
    assert side.metrics["running"] == list(range(len(side.metrics_times_s)))
    assert len(side.metrics_times_s) >= 5
    assert side.metrics_times_s == sorted(side.metrics_times_s)
    assert (side.kind, side.notes) == ("vllm", [])
    # What is not there is asked for once.
    assert served.asked.count("/setpoint/steps") == 1


@pytest.mark.usefixtures("quick")
def test_restarted_server_is_noted_and_counts_on() -> None:
    counts = [100, 160, 5, 25]
    side, _ = watch({"/metrics": lambda looks: f"vllm:generation_tokens_total {counts[min(looks, 3)]}\n"}, looks=4)
    assert len(side.restarts_s) == 1
    assert "the server was restarted" in side.notes[0]
    assert side.rise("output_tokens", -1e9, 1e9) == 60 + 20


def test_slow_page_holds_nothing_up() -> None:
    async def main() -> tuple[list[str], ServerSide]:
        async with page_server({"/metrics": lambda _: f"{RUNNING} 1\n"}, held_s=1.2) as served:
            watching = ServerWatch(Target(served.url, "m"))
            await watching.start()
            answered = list(served.asked)
            await watching.stop()
            return answered, watching.result(0.0)

    answered, side = run(main())
    # The page came 1.2 s after it was asked for; the run could begin before.
    assert answered == []
    assert side.metrics["running"] == [1]
    assert side.scrape_s_max is not None
    assert side.scrape_s_max > 1.0


@pytest.mark.usefixtures("quick")
def test_page_that_costs_the_server_time_is_asked_for_less_often() -> None:
    held_s = 0.05
    begun_s = monotonic()
    _, served = watch({"/metrics": lambda _: f"{RUNNING} 1\n"}, looks=5, held_s=held_s)
    # Each look is followed by a rest of twice its length, but for the last.
    assert monotonic() - begun_s > 3 * (1 + server_watch.REST_FACTOR) * held_s
    assert served.asked.count("/metrics") >= 5


@pytest.mark.usefixtures("quick")
def test_long_run_is_thinned_and_keeps_its_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_source, "KEPT_LOOKS_MAX", 8)
    side, served = watch({"/metrics": lambda looks: f"{RUNNING} {looks}\n"}, looks=14)
    seen = [value for value in side.metrics["running"] if value is not None]
    assert len(seen) <= 9
    assert seen[0] == 0
    assert seen[-1] == served.asked.count("/metrics") - 1
    assert seen == sorted(seen)


def test_counter_that_appears_with_its_first_count_began_at_nought() -> None:
    page = "dynamo_frontend_queued_requests 0\n"
    side, _ = watch({"/metrics": lambda looks: page + f"dynamo_frontend_requests_total {looks * 3}\n" * bool(looks)})
    assert side.metrics["requests_ended"] == [0, 3]


def test_llamacpp_tells_its_cache_in_its_slots() -> None:
    slots = [
        {"id": 0, "n_ctx": 100, "is_processing": True, "n_prompt_tokens": 25},
        {"id": 1, "n_ctx": 100, "is_processing": True, "n_prompt_tokens": 50},
        {"id": 2, "n_ctx": 100, "is_processing": False, "n_prompt_tokens": 99},
    ]
    page = "llamacpp:requests_processing 3\nllamacpp:requests_deferred 4\n"
    side, _ = watch({"/metrics": lambda _: page, "/slots": lambda _: slots})
    assert (side.kind, side.notes) == ("llamacpp", [])
    # The first look finds out whose page it is, the next ones bring the slots; what both tell counts once.
    assert side.metrics["kv_usage"] == [None, 0.5]
    assert side.metrics["kv_tokens"] == [None, 75]
    assert side.metrics["running"] == [3, 3]


def test_llamacpp_without_metrics_says_how_to_have_them() -> None:
    refusal = (501, '{"error": {"message": "This server does not support metrics endpoint. Start it with `--metrics`"}}')
    slots = [{"id": 0, "n_ctx": 100, "is_processing": True, "n_past": 10}]
    side, _ = watch({"/metrics": lambda _: refusal, "/slots": lambda _: slots}, path="/slots")
    assert len(side.notes) == 1
    assert "start llama-server with --metrics" in side.notes[0]
    assert side.metrics["kv_usage"][-1] == 0.1


def test_metrics_elsewhere_are_added_up() -> None:
    pages: dict[str, Page] = {
        "/metrics": lambda _: f"{RUNNING} 50\n",
        "/one": lambda _: f"{RUNNING} 2\nvllm:kv_cache_usage_perc 0.25\n",
        "/two": lambda _: f"{RUNNING} 3\nvllm:kv_cache_usage_perc 0.75\n",
    }
    side, served = watch(pages, metrics_at=("/one", "/two"), path="/one")
    assert side.metrics == {"running": [5, 5], "kv_usage": [0.75, 0.75]}
    assert "/metrics" not in served.asked


def test_metrics_that_are_not_where_they_were_said_to_be_are_noted() -> None:
    side, _ = watch({}, metrics_at=("/nowhere",), path="/nowhere")
    assert len(side.notes) == 1
    assert side.notes[0].endswith("/nowhere: HTTP 404")


def test_what_is_asked_of_a_page_is_not_told() -> None:
    side, _ = watch({"/one": lambda _: f"{RUNNING} 2\n"}, metrics_at=("/one?key=secret", "/two?key=secret"), path="/one")
    assert side.metrics == {"running": [2, 2]}
    assert [note.partition("/two")[2] for note in side.notes] == [": HTTP 404"]


def test_url_of_the_server_stands_for_its_metrics() -> None:
    assert page_source.page_at("host:9400")[1] == "/metrics"
    assert page_source.page_at("https://host/gpu/metrics/")[1] == "/gpu/metrics/"
    assert page_source.page_at("host:9400/?module=gpu")[1] == "/metrics?module=gpu"
    with pytest.raises(TargetError, match=r"^url: "):
        page_source.page_at("ftp://host/metrics")
    with pytest.raises(TargetError, match=r"^url: .*has a fragment"):
        page_source.page_at("http://host/metrics#0")
    with pytest.raises(TargetError, match=r"^url: a user name or password stands before 'host'") as refused:
        page_source.page_at("http://user:secret@host/metrics")
    assert "secret" not in str(refused.value)


def test_power_is_read_beside_the_load() -> None:
    def page(looks: int) -> str:
        return "".join(f'DCGM_FI_DEV_POWER_USAGE{{gpu="{gpu}",UUID="{gpu}"}} {100 * gpu + looks}\n' for gpu in (1, 2))

    side, _ = watch({"/power": page}, power="/power", path="/power")
    assert side.power is not None
    assert (side.power.watts, side.power.gpus) == ([300, 302], 2)
    chosen, _ = watch({"/power": page}, power="/power", path="/power", gpus=("2",))
    assert chosen.power is not None
    assert chosen.power.watts == [200, 201]


def test_page_without_power_is_noted() -> None:
    side, _ = watch({"/power": lambda _: "node_load1 0.5\n"}, power="/power", path="/power", gpus=("3",))
    assert side.power is None
    assert "no power figure of a known exporter for GPU 3" in side.notes[0]


def test_page_too_large_to_keep_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_source, "PAGE_BYTES_MAX", 100)
    side, served = watch({"/metrics": lambda _: f"{RUNNING} 1\n" * 100})
    assert side.metrics == {}
    assert "is not read" in side.notes[0]
    assert served.asked.count("/metrics") == 1


def test_unreadable_page_is_noted_and_passed_over() -> None:
    side, _ = watch({"/metrics": lambda looks: f"{RUNNING} 1\n" if looks else f"{RUNNING}{{ 1\n"})
    assert side.metrics["running"] == [1]
    assert side.notes[0].startswith("/metrics: ")


def test_failing_page_is_noted_once_with_its_last_failure() -> None:
    side, _ = watch({"/metrics": lambda looks: f"{RUNNING} 1\n" if looks == 0 else (500, "")}, looks=3)
    assert side.metrics["running"] == [1]
    assert side.notes == ["/metrics: 2 of 3 looks failed, the last one with: HTTP 500"]


def test_page_that_is_packed_unasked_is_unpacked() -> None:
    side, _ = watch({"/metrics": lambda _: gzip.compress(f"{RUNNING} 4\n".encode())})
    assert side.metrics["running"] == [4, 4]


def test_a_page_whose_url_cannot_be_read_is_a_mistake_in_words() -> None:
    with pytest.raises(TargetError, match="cannot be read as a URL"):
        page_source.page_at("http://[::1")


def steps(looks: int) -> dict[str, object]:
    """setpoint's record of steps: one more with every look."""
    now_s = monotonic()
    return {"now_s": now_s, "next": looks + 1, "columns": {"step": [looks], "start_s": [now_s], "end_s": [now_s + 1.0]}}


@pytest.mark.parametrize("packed_from", [1 << 30, 0])
def test_no_record_is_let_go_whether_pages_are_packed_or_not(monkeypatch: pytest.MonkeyPatch, packed_from: int) -> None:
    monkeypatch.setattr(server_watch, "RECORDS_PERIOD_S", 0.01)
    monkeypatch.setattr(page_source, "PACKED_FROM_BYTES", packed_from)
    side, served = watch({"/setpoint/steps": steps}, looks=8, path="/setpoint/steps")
    assert side.steps is not None
    seen = side.steps["step"].to_pylist()
    # The first look only finds out where new begins; the one that is under way at the end is taken again.
    assert len(seen) >= 5
    assert seen == sorted(set(seen))
    assert seen[-1] == served.asked.count("/setpoint/steps") - 1
    assert side.notes == []


def test_more_records_than_there_is_room_for_are_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_source, "KEPT_BYTES_MAX", 0)
    side, _ = watch({"/setpoint/steps": steps}, path="/setpoint/steps")
    assert side.steps is None
    assert side.notes == ["/setpoint/steps: more records than are kept; those of the rest of the run are missing"]
