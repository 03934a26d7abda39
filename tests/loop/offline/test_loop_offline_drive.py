"""A batch against a server that refuses, cuts, lies and goes away: every request ends once, and only for good."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest
from offline_world import (
    CUT,
    GARBAGE,
    HALF,
    NOT_JSON,
    FakeServer,
    Say,
    fake_server,
    refuse,
    result_for,
    results,
    write_input,
)

from setpoint.loop.errors import BadInput
from setpoint.loop.offline.concurrency import Fixed
from setpoint.loop.offline.drive import ROUNDS_MAX, TRIES_MAX, WAIT_MAX_S, Drive, GaveUp, Models
from setpoint.loop.offline.input_index import read_input
from setpoint.loop.offline.output_file import OutputFile, resume
from setpoint.loop.offline.sender import Sender
from setpoint.loop.offline.tally import Tally
from setpoint.loop.offline.work import Work
from setpoint.measure.event_loop import run
from setpoint.measure.target import Target


class VirtualTime:
    """Waits take no time, and are remembered."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.waits_s: list[float] = []

    def clock(self) -> float:
        return self.now_s

    async def sleep(self, seconds: float) -> None:
        self.waits_s.append(seconds)
        self.now_s += seconds
        await asyncio.sleep(0)


def drive(
    fake: FakeServer,
    folder: Path,
    time: VirtualTime | None = None,
    *,
    concurrency: int = 4,
    give_up_s: float = 3600.0,
    models: Models | None = None,
) -> Tally:
    """Do what ``folder/in`` has left into ``folder/out``."""
    time = time or VirtualTime()
    index = read_input(folder / "in")
    with OutputFile(folder / "out") as output:
        found = resume(folder / "out", index)
        output.keep(found)
        work = Work(index, output, Tally(len(index), found.answered - found.failed, found.failed, 0.0))

        async def main() -> None:
            sender = Sender(Target(fake.url, api_key="k"), connections=concurrency, timeout_s=20.0)
            one = Drive(
                work,
                sender,
                Fixed(concurrency),
                models or Models(),
                give_up_s=give_up_s,
                clock=time.clock,
                sleep=time.sleep,
            )
            try:
                work.begin()
                await one.run()
            finally:
                await sender.close()

        try:
            run(main())
        finally:
            work.end()
    return work.tally


TRANSIENT: list[Sequence[Say]] = [
    [refuse(503, retry_after="3")] * 20,
    [refuse(429)] * 20,
    [CUT],
    [HALF, CUT],
    [GARBAGE],
    [NOT_JSON, refuse(500), refuse(502), refuse(504), refuse(408)],
    [refuse(501), refuse(530), refuse(302)],
    [refuse(503), CUT, refuse(503), HALF, refuse(503), GARBAGE, refuse(429), refuse(500)],
]


def test_what_passes_is_tried_again_until_each_request_is_done_once(tmp_path: Path) -> None:
    names = [f"{number}" for number in range(40)]
    write_input(tmp_path / "in", names)
    with fake_server() as fake:
        fake.scripts = {name: TRANSIENT[place % len(TRANSIENT)] for place, name in enumerate(names[::3])}
        tally = drive(fake, tmp_path)
    assert sorted(entry["custom_id"] for entry in results(tmp_path / "out")) == sorted(names)
    assert all(entry["error"] is None and entry["response"]["status_code"] == 200 for entry in results(tmp_path / "out"))
    assert {name: fake.asked[name] for name in names} == {name: 1 + len(fake.scripts.get(name, ())) for name in names}
    assert (tally.done, tally.failed, tally.left) == (40, 0, 0)
    assert tally.retried == sum(map(len, fake.scripts.values()))
    assert (tally.prompt_tokens, tally.output_tokens) == (120, 80)
    assert fake.most_at_once <= 4


def test_requests_go_out_as_batch_class_with_their_name_and_body_as_it_was(tmp_path: Path) -> None:
    body = {"prompt": "é \ud800", "max_tokens": 3, "temperature": 0.5, "model": None}
    line = {"custom_id": "x", "method": "POST", "url": "/v1/completions", "body": body}
    (tmp_path / "in").write_text(json.dumps(line))
    with fake_server() as fake:
        drive(fake, tmp_path)
    (headers,) = fake.seen["é \ud800"]
    assert headers["x-setpoint-class"] == "batch"
    assert headers["authorization"] == "Bearer k"
    assert headers["x-request-id"] == results(tmp_path / "out")[0]["id"]
    assert fake.bodies["é \ud800"] == body


def test_lines_go_to_the_version_of_the_url() -> None:
    for base, path in (("", "/v1/completions"), ("/v3", "/v3/completions"), ("/v1beta/openai", "/v1beta/openai/completions")):
        sender = Sender(Target(f"http://host{base}"), connections=1, timeout_s=1.0)
        assert sender._payload("/v1/completions", {}, "x").startswith(f"POST {path} HTTP".encode())


@pytest.mark.parametrize(
    ("models", "asked"), [(Models(), ["a", None]), (Models(default="d"), ["a", "d"]), (Models("i", "d"), ["i", "i"])]
)
def test_model_names(models: Models, asked: list[str | None], tmp_path: Path) -> None:
    lines = [
        {"custom_id": name, "method": "POST", "url": "/v1/completions", "body": {"prompt": name} | more}
        for name, more in (("first", {"model": "a"}), ("second", {}))
    ]
    (tmp_path / "in").write_text("\n".join(map(json.dumps, lines)))
    with fake_server() as fake:
        drive(fake, tmp_path, models=models)
    assert [fake.bodies[name].get("model") for name in ("first", "second")] == asked


def test_a_wait_that_the_server_asks_for_is_kept_within_a_bound(tmp_path: Path) -> None:
    write_input(tmp_path / "in", ["a"])
    time = VirtualTime()
    with fake_server() as fake:
        fake.scripts["a"] = [
            refuse(503, retry_after="30"),
            refuse(503, retry_after="30", retry_after_ms="28500"),
            refuse(429, retry_after="86400"),
            refuse(503),
        ]
        drive(fake, tmp_path, time, give_up_s=1e9)
    assert time.waits_s[:3] == [30.0, 28.5, WAIT_MAX_S]
    assert 0 < time.waits_s[3] <= 8.0


def test_errors_for_good_are_written_once(tmp_path: Path) -> None:
    write_input(tmp_path / "in", ["a", "b", "c", "d"])
    with fake_server() as fake:
        fake.scripts = {
            "b": [refuse(400)] * 99,
            "c": [Say(413, b"<h1>too large</h1>")] * 99,
            "d": [Say(422, b"null")] * 99,
        }
        first = drive(fake, tmp_path)
        asked = dict(fake.asked)
        again = drive(fake, tmp_path)
    assert (first.done, first.failed) == (again.done, again.failed) == (1, 3)
    assert again.again == 0
    assert asked == dict(fake.asked) == {"a": 1, "b": 1, "c": 1, "d": 1}
    found = {entry["custom_id"]: entry for entry in results(tmp_path / "out")}
    assert len(results(tmp_path / "out")) == 4
    assert found["b"]["error"] == {"code": "code_400", "message": "HTTP 400: not now"}
    assert found["b"]["response"]["body"]["error"]["code"] == "code_400"
    assert found["c"]["response"] | {"request_id": ""} == {"status_code": 413, "request_id": "", "body": "<h1>too large</h1>"}
    assert found["d"]["response"]["status_code"] == 422


def test_what_fails_alone_among_good_ones_is_written_and_asked_again_by_the_next_run(tmp_path: Path) -> None:
    names = [f"{number}" for number in range(100)]
    write_input(tmp_path / "in", ["x", "y", *names])
    with fake_server() as fake:
        fake.scripts = {"x": [refuse(500)] * 999, "y": [HALF] * 999}
        first = drive(fake, tmp_path, concurrency=2)
        assert (first.done, first.failed, first.left) == (100, 2, 0)
        found = {entry["custom_id"]: entry for entry in results(tmp_path / "out")}
        assert len(results(tmp_path / "out")) == 102
        assert found["x"]["response"]["status_code"] == 500
        assert found["y"]["response"] is None
        assert found["y"]["error"]["code"] == "connection_cut"
        asked = dict(fake.asked)
        assert asked["x"] == asked["y"] == 2 * TRIES_MAX
        fake.scripts.clear()
        again = drive(fake, tmp_path)
    assert (again.again, again.done, again.failed) == (2, 102, 0)
    assert dict(fake.asked) == asked | {"x": asked["x"] + 1, "y": asked["y"] + 1}
    assert sorted(entry["custom_id"] for entry in results(tmp_path / "out")) == sorted(["x", "y", *names])
    assert all(entry["error"] is None for entry in results(tmp_path / "out"))


def test_one_at_a_time_what_fails_is_put_off_until_others_were_answered(tmp_path: Path) -> None:
    write_input(tmp_path / "in", "xabc")
    with fake_server() as fake:
        fake.scripts = {"x": [refuse(500)] * 999}
        tally = drive(fake, tmp_path, concurrency=1)
    assert fake.asked == {"x": 2 * TRIES_MAX, "a": 1, "b": 1, "c": 1}
    assert (tally.done, tally.failed, tally.left, tally.retried) == (3, 1, 0, 2 * TRIES_MAX - 1)
    assert [entry["custom_id"] for entry in results(tmp_path / "out")] == ["a", "b", "c", "x"]


OUTAGE = [refuse(500), CUT, refuse(503, retry_after="1"), refuse(501)]


@pytest.mark.parametrize("concurrency", [1, 4])
def test_an_outage_writes_no_failure_and_the_next_run_does_what_is_left(concurrency: int, tmp_path: Path) -> None:
    write_input(tmp_path / "in", "ab")
    with fake_server() as fake:
        assert drive(fake, tmp_path).done == 2
        write_input(tmp_path / "in", "abcdefgh")
        before = (tmp_path / "out").read_bytes()
        fake.scripts = dict.fromkeys("cdefgh", OUTAGE * 999)
        time = VirtualTime()
        with pytest.raises(GaveUp, match="no request was answered for 3600 s"):
            drive(fake, tmp_path, time, concurrency=concurrency)
        assert time.now_s >= 3600
        assert all(fake.asked[name] > TRIES_MAX for name in "cdefgh")
        assert (tmp_path / "out").read_bytes() == before
        fake.scripts.clear()
        tally = drive(fake, tmp_path, concurrency=concurrency)
    assert (tally.done, tally.failed, tally.left, tally.again) == (8, 0, 0, 0)
    assert sorted(entry["custom_id"] for entry in results(tmp_path / "out")) == list("abcdefgh")


def test_an_outage_that_passes_before_it_gives_up_costs_nothing(tmp_path: Path) -> None:
    write_input(tmp_path / "in", "abcdefgh")
    with fake_server() as fake:
        fake.scripts = {name: [refuse(500)] * 3 * TRIES_MAX for name in "abcdefgh"}
        tally = drive(fake, tmp_path, give_up_s=1e9)
    assert (tally.done, tally.failed, tally.left) == (8, 0, 0)


def test_only_failures_that_may_pass_are_asked_again(tmp_path: Path) -> None:
    lines = write_input(tmp_path / "in", "abcd")
    kept = [result_for(lines[0]), result_for(lines[1], failed=True, status=500), result_for(lines[2], failed=True)]
    (tmp_path / "out").write_bytes(b"".join(kept))
    with fake_server() as fake:
        tally = drive(fake, tmp_path)
    assert fake.asked == {"b": 1, "d": 1}
    assert (tally.again, tally.done, tally.failed, tally.left) == (1, 3, 1, 0)
    assert (tmp_path / "out").read_bytes().startswith(kept[0] + kept[2])
    assert sorted(entry["custom_id"] for entry in results(tmp_path / "out")) == list("abcd")


def test_what_was_asked_again_for_nothing_is_put_back_when_it_gives_up(tmp_path: Path) -> None:
    lines = write_input(tmp_path / "in", "abc")
    kept = [result_for(lines[0]), *(result_for(line, failed=True, status=500) for line in lines[1:])]
    (tmp_path / "out").write_bytes(b"".join(kept))
    with fake_server() as fake:
        fake.scripts = {"b": [refuse(500)] * 999}
        with pytest.raises(GaveUp):
            drive(fake, tmp_path, give_up_s=60.0)
        assert [entry["custom_id"] for entry in results(tmp_path / "out")] == ["a", "c", "b"]
        assert (tmp_path / "out").read_bytes().endswith(kept[1])
        fake.scripts.clear()
        tally = drive(fake, tmp_path)
    assert (tally.again, tally.done, tally.left) == (1, 3, 0)


def test_an_interrupt_while_a_line_is_written_leaves_no_second_answer_to_its_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen by reading: the older failure was put back beside the answer, and no later run would take the output."""
    lines = write_input(tmp_path / "in", "ab")
    (tmp_path / "out").write_bytes(b"".join(result_for(line, failed=True, status=500) for line in lines))
    append = OutputFile.append

    def interrupted(self: OutputFile, line: bytes) -> None:
        append(self, line)
        raise KeyboardInterrupt

    with fake_server() as fake:
        with monkeypatch.context() as patched:
            patched.setattr(OutputFile, "append", interrupted)
            with pytest.raises(KeyboardInterrupt):
                drive(fake, tmp_path, concurrency=1)
        assert len({entry["custom_id"] for entry in results(tmp_path / "out")}) == len(results(tmp_path / "out"))
        tally = drive(fake, tmp_path)
    assert (tally.done, tally.failed, tally.left) == (2, 0, 0)


def test_a_wrong_key_ends_the_run_and_fails_no_request(tmp_path: Path) -> None:
    write_input(tmp_path / "in", "abcdef")
    with fake_server() as fake:
        fake.scripts = {name: [refuse(401)] for name in "bcdef"}
        with pytest.raises(BadInput, match=r"^--api-key: the server does not take it \(HTTP 401: not now\)"):
            drive(fake, tmp_path, concurrency=1)
        assert [entry["custom_id"] for entry in results(tmp_path / "out")] == ["a"]
        fake.scripts.clear()
        assert drive(fake, tmp_path).left == 0


def test_it_gives_up_when_nothing_is_answered_and_leaves_the_rest_for_later(tmp_path: Path) -> None:
    write_input(tmp_path / "in", "abc")
    with fake_server() as fake:
        fake.scripts = {name: [refuse(503, retry_after="10")] * 1000 for name in "bc"}
        time = VirtualTime()
        with pytest.raises(GaveUp, match="no request was answered for 600 s: HTTP 503: not now"):
            drive(fake, tmp_path, time, give_up_s=600)
        assert 600 <= time.now_s <= 700
    with pytest.raises(GaveUp, match="refused the connection"):
        drive(fake, tmp_path, give_up_s=5)
    assert [entry["custom_id"] for entry in results(tmp_path / "out")] == ["a"]


def test_a_server_that_goes_away_and_comes_back_loses_nothing(tmp_path: Path) -> None:
    write_input(tmp_path / "in", "abcdef")
    with fake_server() as fake:
        port = int(fake.url.rsplit(":", 1)[1])
        fake.scripts = {name: [CUT] * 99 for name in "def"}

        class UntilItIsGone(VirtualTime):
            async def sleep(self, seconds: float) -> None:
                raise GaveUp("the server is gone")

        with pytest.raises(GaveUp, match="gone"):
            drive(fake, tmp_path, UntilItIsGone(), concurrency=1)
    assert len(results(tmp_path / "out")) == 3

    class ComesBack(VirtualTime):
        """The server is there again at the third wait."""

        async def sleep(self, seconds: float) -> None:
            await super().sleep(seconds)
            if len(self.waits_s) == 3:
                self.server = fake_server(port)
                self.back = self.server.__enter__()

    time = ComesBack()
    try:
        assert drive(fake, tmp_path, time).left == 0
    finally:
        time.server.__exit__(None, None, None)
    assert sorted(entry["custom_id"] for entry in results(tmp_path / "out")) == list("abcdef")
    assert sum(time.back.asked.values()) == 3


def test_one_that_fails_when_no_other_is_left_is_written_after_some_minutes(tmp_path: Path) -> None:
    write_input(tmp_path / "in", "b")
    with fake_server() as fake:
        fake.scripts = {"b": OUTAGE * 999}
        time = VirtualTime()
        found = drive(fake, tmp_path, time)
    assert (found.failed, found.left) == (1, 0)
    assert 60 < time.now_s < 3600


LASTING = "uvwxyz"


@pytest.mark.parametrize(("names", "rounds"), [(f"{LASTING}abc", 2), (f"abc{LASTING}", ROUNDS_MAX + 2)])
def test_one_at_a_time_many_that_last_are_written_whether_others_come_after_them_or_not(
    names: str, rounds: int, tmp_path: Path
) -> None:
    write_input(tmp_path / "in", names)
    with fake_server() as fake:
        fake.scripts = dict.fromkeys(LASTING, [refuse(500)] * 999)
        tally = drive(fake, tmp_path, concurrency=1)
    assert (tally.done, tally.failed, tally.left) == (3, 6, 0)
    assert fake.asked == dict.fromkeys(LASTING, rounds * TRIES_MAX) | dict.fromkeys("abc", 1)


def test_many_that_last_are_written_by_a_run_that_asks_only_them(tmp_path: Path) -> None:
    lines = write_input(tmp_path / "in", f"abc{LASTING}")
    kept = [result_for(line, failed=place >= 3, status=500) for place, line in enumerate(lines)]
    (tmp_path / "out").write_bytes(b"".join(kept))
    with fake_server() as fake:
        fake.scripts = dict.fromkeys(LASTING, [refuse(500)] * 999)
        tally = drive(fake, tmp_path)
    assert (tally.again, tally.done, tally.failed, tally.left) == (6, 3, 6, 0)
    assert fake.asked == dict.fromkeys(LASTING, (ROUNDS_MAX + 1) * TRIES_MAX)
    assert sorted(entry["custom_id"] for entry in results(tmp_path / "out")) == sorted(f"abc{LASTING}")


def test_an_outage_in_which_what_was_under_way_is_still_answered_writes_no_failure(tmp_path: Path) -> None:
    write_input(tmp_path / "in", "sxy")
    answered = threading.Event()

    class OneStraggles(VirtualTime):
        """The server ends what it had in the midst of the others' tries."""

        async def sleep(self, seconds: float) -> None:
            await super().sleep(seconds)
            if len(self.waits_s) >= TRIES_MAX and not answered.is_set():
                answered.set()
                while not (tmp_path / "out").stat().st_size:
                    await asyncio.sleep(0.001)

    with fake_server() as fake:
        fake.scripts = {"s": [Say(body=b"{}", held=answered)], **dict.fromkeys("xy", [refuse(502)] * 2 * TRIES_MAX)}
        tally = drive(fake, tmp_path, OneStraggles())
    assert (tally.done, tally.failed, tally.left) == (3, 0, 0)
    assert fake.asked == {"s": 1, "x": 2 * TRIES_MAX + 1, "y": 2 * TRIES_MAX + 1}
