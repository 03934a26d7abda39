"""The weight of a body: structure is bounded, text is not, and no body makes the look at it slow."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from serving import serving

from setpoint.server.errors import ApiError
from setpoint.server.json_bounds import MAX_WEIGHT, require_bounded
from setpoint.server.messages import MAX_MESSAGES

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=30,
)


def objects_in(value: object) -> int:
    """What parsing makes of it: every value, key and container."""
    if isinstance(value, dict):
        return 1 + sum(1 + objects_in(inner) for inner in value.values())
    return 1 + (sum(map(objects_in, value)) if isinstance(value, list) else 0)


@given(json_values)
def test_what_passes_has_no_more_objects_than_its_weight(value: object) -> None:
    objects = objects_in(value)
    try:
        require_bounded(json.dumps(value).encode(), most=40)
    except ApiError:
        return
    assert objects <= 42


@given(st.text())
def test_text_is_never_refused_for_what_is_in_it(text: str) -> None:
    require_bounded(json.dumps({"prompt": text}).encode(), most=20)
    require_bounded(json.dumps({"prompt": text + ',[{"' * 50}).encode(), most=20)


@given(st.binary())
def test_any_bytes_are_looked_at_without_an_error_of_ours(raw: bytes) -> None:
    require_bounded(raw, most=10**6)


@pytest.mark.parametrize("body", [{"prompt": [1] * 131_072}, {"messages": [{"role": "user", "content": ""}] * MAX_MESSAGES}])
def test_the_largest_honest_bodies_pass(body: object) -> None:
    require_bounded(json.dumps(body).encode())


@pytest.mark.parametrize("item", ["1", "[]", '""', '{"a":1}', '"\\\\"'])
def test_a_flood_of_values_is_a_400(item: str) -> None:
    raw = ('{"prompt":"a","x":[' + f"{item}," * MAX_WEIGHT + f"{item}]}}").encode()
    with serving() as served:
        reply = served.ask("POST", "/v1/completions", raw=raw)
        assert (reply.status, reply.error["code"]) == (400, "body_too_complex")
