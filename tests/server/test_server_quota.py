"""A key's own quota, and whose request it is: by key, or by the header of a gateway that owns the keys."""

from __future__ import annotations

from contextlib import ExitStack

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripted_engine import ScriptedEngine
from serving import CHAT, serving

from setpoint.server.errors import ApiError
from setpoint.server.headers import FAIRNESS_HEADER
from setpoint.server.limits import ServerLimits
from setpoint.server.quota import KeyQuotas

KEYS = ("first-secret", "second-secret")
BODY = {"prompt": "hello", "max_tokens": 3}


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


class Clock:
    """Moved by hand."""

    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def test_a_key_has_so_many_streams_at_a_time_and_others_are_not_touched() -> None:
    quotas = KeyQuotas(ServerLimits(max_streams_per_key=2))
    with ExitStack() as held:
        held.enter_context(quotas.one("key:1"))
        held.enter_context(quotas.one("key:1"))
        with pytest.raises(ApiError) as refused, quotas.one("key:1"):
            pass
        assert (refused.value.status, refused.value.code) == (429, "rate_limit_exceeded")
        assert set(refused.value.headers) == {"retry-after", "retry-after-ms"}
        with quotas.one("key:2"), quotas.one(""), quotas.one(""), quotas.one(""):
            pass
    with quotas.one("key:1"):
        pass


def test_a_stream_that_fails_gives_its_place_back() -> None:
    quotas = KeyQuotas(ServerLimits(max_streams_per_key=1))
    for _ in range(3):
        with pytest.raises(ValueError, match="broken"), quotas.one("key:1"):
            raise ValueError("broken")


@given(st.integers(1, 50), st.lists(st.floats(0, 30), min_size=1, max_size=60))
def test_never_more_than_the_rate_and_a_caller_that_waits_as_told_gets_in(per_minute: int, gaps_s: list[float]) -> None:
    clock = Clock()
    quotas = KeyQuotas(ServerLimits(max_requests_per_minute_per_key=per_minute), clock=clock)
    served_s: list[float] = []
    for gap_s in gaps_s:
        clock.now_s += gap_s
        try:
            with quotas.one("key:1"):
                served_s.append(clock.now_s)
        except ApiError as refused:
            clock.now_s += int(refused.headers["retry-after-ms"]) / 1000
            with quotas.one("key:1"):
                served_s.append(clock.now_s)
    for first in served_s:
        assert sum(first <= moment <= first + 60 for moment in served_s) <= 2 * per_minute


def test_over_http_the_quota_is_a_429_and_only_generation_counts() -> None:
    engine = ScriptedEngine(auto=False)
    with serving(engine, api_keys=KEYS, server_limits=ServerLimits(max_streams_per_key=1)) as served:
        header = f"authorization: Bearer {KEYS[0]}\r\n"
        with served.open("/v1/completions", {**BODY, "stream": True}, header):
            engine.wait_until(lambda: len(engine.streams) == 1)
            refused = served.ask("POST", "/v1/completions", BODY, bearer(KEYS[0]))
            assert (refused.status, refused.error["code"]) == (429, "rate_limit_exceeded")
            assert int(refused.headers["retry-after"]) >= 1
            assert served.ask("GET", "/v1/models", headers=bearer(KEYS[0])).status == 200
            with served.open("/v1/completions", BODY, f"authorization: Bearer {KEYS[1]}\r\n"):
                engine.wait_until(lambda: len(engine.streams) == 2)
        engine.wait_until(lambda: not engine.streams)
        engine.auto = True
    assert all(KEYS[0] not in repr(request) for request in engine.submitted)


@pytest.mark.parametrize("named", ["team a", "key:1", "", "x" * 257])
def test_a_key_is_the_tenant_whatever_its_holder_calls_itself(named: str) -> None:
    """Seen: a key that sent a fresh name with each request was a new tenant each time and never over its share."""
    with serving(api_keys=KEYS) as served:
        assert served.ask("POST", "/v1/completions", BODY, {**bearer(KEYS[1]), FAIRNESS_HEADER: named}).status == 200
        assert served.ask("POST", "/v1/chat/completions", CHAT, {**bearer(KEYS[0]), FAIRNESS_HEADER: named}).status == 200
        assert [request.tenant for request in served.engine.submitted] == ["key:2", "key:1"]


@pytest.mark.parametrize(
    ("headers", "tenant"),
    [
        (bearer(KEYS[0]), "key:1"),
        (bearer(KEYS[1]), "key:2"),
        ({**bearer(KEYS[1]), FAIRNESS_HEADER: " team a "}, "id:team a"),
        ({**bearer(KEYS[1]), FAIRNESS_HEADER: "key:1"}, "id:key:1"),
        ({**bearer(KEYS[1]), FAIRNESS_HEADER: ""}, "key:2"),
    ],
)
def test_a_gateway_that_owns_the_keys_says_whose_request_it_is(headers: dict[str, str], tenant: str) -> None:
    with serving(api_keys=KEYS, trust_fairness_id=True) as served:
        assert served.ask("POST", "/v1/completions", BODY, headers).status == 200
        assert [request.tenant for request in served.engine.submitted] == [tenant]
        refused = served.ask("POST", "/v1/completions", BODY, {**headers, FAIRNESS_HEADER: "x" * 257})
        assert (refused.status, refused.error["param"]) == (400, FAIRNESS_HEADER)


def test_without_keys_all_are_one_tenant_unless_a_gateway_says_otherwise() -> None:
    with serving() as served:
        served.ask("POST", "/v1/completions", BODY)
        served.ask("POST", "/v1/completions", BODY, {FAIRNESS_HEADER: "b"})
        assert [request.tenant for request in served.engine.submitted] == ["", "id:b"]
        refused = served.ask("POST", "/v1/completions", BODY, {FAIRNESS_HEADER: "x" * 257})
        assert (refused.status, refused.error["param"]) == (400, FAIRNESS_HEADER)


def test_who_is_over_its_quota_is_counted_as_turned_away() -> None:
    with serving(api_keys=KEYS, server_limits=ServerLimits(max_requests_per_minute_per_key=1)) as served:
        answers = [served.ask("POST", "/v1/completions", BODY, headers=bearer(KEYS[0])).status for _ in range(3)]
        assert answers == [200, 429, 429]
        text = served.ask("GET", "/metrics", headers=bearer(KEYS[0])).raw.decode()
        assert 'reason="rate_limit_exceeded"' in text
        shed = next(line for line in text.splitlines() if "requests_ended" in line and 'class="shed"' in line)
        assert shed.endswith(" 2.0")
