"""Sessions, shared prefixes and mixes: read from YAML, with what a part of a mix leaves out taken from the profile."""

from __future__ import annotations

from pathlib import Path

import pytest

from setpoint.requirement import (
    ConstantSeconds,
    ConstantTokens,
    LatencyMetric,
    LognormalSeconds,
    Requirement,
    RequirementError,
    Sessions,
    UniformSeconds,
    UniformTokens,
    example_text,
    parse_requirement,
    render_requirement,
)

BASE = "name: x\nprofile:\n  prompt_tokens: 100\n  output_tokens: 50\n  arrival: {rate: 2/s}\n"


def read(more: str, base: str = BASE) -> Requirement:
    requirement = parse_requirement(base + more, "req.yaml")
    assert Requirement.model_validate_json(requirement.model_dump_json()) == requirement
    return requirement


def message_of(more: str, base: str = BASE) -> str:
    with pytest.raises(RequirementError) as caught:
        parse_requirement(base + more, "req.yaml")
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "think_time"),
    [
        ("5s", ConstantSeconds(value_s=5.0)),
        ("{min: 500ms, max: 2s}", UniformSeconds(min_s=0.5, max_s=2.0)),
        ("{median: 5s, p95: 30s, max: 2min}", LognormalSeconds(median_s=5.0, p95_s=30.0, max_s=120.0)),
    ],
)
def test_sessions_are_read(text: str, think_time: object) -> None:
    found = read(f"  sessions: {{turns: {{min: 2, max: 6}}, think_time: {text}, added_tokens: 30}}\n").profile.sessions
    assert found == Sessions(
        turns=UniformTokens(min=2, max=6),
        think_time=think_time,
        added_tokens=ConstantTokens(value=30),
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{think_time: 5s}", "profile.sessions.turns: found nothing; allowed: this key is required"),
        ("{turns: 5000}", 'profile.sessions.turns: found "5000"; allowed: at most 1000 turns'),
        ("{turns: 2, think_time: 5}", 'profile.sessions.think_time: found "5"; allowed: a duration such as 5s, or {min'),
        ("{turns: 2, think_time: [5s]}", "profile.sessions.think_time: found a list"),
        ("{turns: 2, think_time: {min: 5s, max: 1s}}", 'think_time.min: found "5s"; allowed: at most max (1 s)'),
        ("{turns: 2, think_time: {median: 5s, max: 9s}}", "think_time.p95: found nothing"),
        ("{turns: 2, think_time: {median: 5s, p95: 4s, max: 9s}}", "at least the median (5 s)"),
        ("3", 'profile.sessions: found "3"; allowed: a mapping with keys from turns, think_time, added_tokens'),
    ],
)
def test_mistakes_in_sessions_are_named(text: str, message: str) -> None:
    assert message in message_of(f"  sessions: {text}\n")


def test_a_prefix_is_said_in_one_way() -> None:
    assert read("  prefix_hit_rate: 60%\n  prefix_groups: 8\n").profile.prefix_hit_rate == pytest.approx(0.6)
    assert read("  shared_prefix_tokens: 20\n  prefix_groups: 8\n").profile.prefix_groups == 8
    assert "either prefix_hit_rate or shared_prefix_tokens" in message_of("  prefix_hit_rate: 6%\n  shared_prefix_tokens: 2\n")
    assert "1 without a prefix" in message_of("  prefix_groups: 8\n")
    assert 'found "100%"; allowed: less than 1' in message_of("  prefix_hit_rate: 100%\n")


def test_a_profile_without_a_mix_is_one_shape() -> None:
    shapes = read("  shared_prefix_tokens: 20\n").profile.shapes
    assert [(shape.name, shape.weight, shape.shared_prefix_tokens) for shape in shapes] == [("", 1.0, 20)]


def test_a_part_of_a_mix_takes_over_what_it_leaves_out() -> None:
    profile = read(
        "  shared_prefix_tokens: 20\n"
        "  mix:\n"
        "    - {name: chat, weight: 3, sessions: {turns: 4}}\n"
        "    - {name: search, prompt_tokens: {min: 1000, max: 2000}, prefix_hit_rate: 80%}\n"
    ).profile
    chat, search = profile.shapes
    assert (chat.name, chat.weight, chat.prompt_tokens, chat.shared_prefix_tokens) == (
        "chat",
        3.0,
        ConstantTokens(value=100),
        20,
    )
    assert chat.sessions is not None
    assert (search.weight, search.output_tokens, search.shared_prefix_tokens) == (1.0, ConstantTokens(value=50), 0)
    assert search.prefix_hit_rate == pytest.approx(0.8)


def test_a_mix_may_say_everything() -> None:
    base = "name: x\nprofile:\n  arrival: {rate: 2/s}\n"
    parts = (
        "  mix:\n"
        "    - {name: a, prompt_tokens: 5, output_tokens: 1}\n"
        "    - {name: b, weight: 2, prompt_tokens: 7, output_tokens: 9}\n"
    )
    requirement = read(parts + "slo: {itl: {p99: 60ms}}\n", base)
    assert requirement.profile.prompt_tokens == ConstantTokens(value=7)
    assert requirement.profile.most_output_tokens == 9
    assert requirement.slo.limit_s(LatencyMetric.ITL) == pytest.approx(0.06)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ("[]", "profile.mix: found a list; allowed: a list with at least one entry, each a kind of request"),
        ("3", 'profile.mix: found "3"; allowed: a list with at least one entry'),
        ("[{weight: 2}]", "profile.mix.0.name: found nothing; allowed: this key is required"),
        ("[{name: a, weight: 0}]", 'profile.mix.0.weight: found "0"; allowed: more than 0'),
        ("[{name: a}, {name: a}]", 'profile.mix.1.name: found "a"; allowed: a name of its own'),
        ("[{name: a, shared_prefix_tokens: 100}]", 'profile.mix.0.shared_prefix_tokens: found "100"; allowed: less than'),
        ("[{name: a, wight: 2}]", "did you mean weight?"),
    ],
)
def test_mistakes_in_a_mix_are_named(parts: str, message: str) -> None:
    assert message in message_of(f"  mix: {parts}\n")


def test_a_mix_without_lengths_names_what_is_missing() -> None:
    message = message_of("  mix: [{name: a, prompt_tokens: 5}]\n", "name: x\nprofile:\n  arrival: {rate: 2/s}\n")
    assert "profile.mix.0.output_tokens: found nothing" in message


def test_rendered_profiles_load_again() -> None:
    text = render_requirement(
        name="x",
        prompt_tokens={"values": [10, 20], "weights": [1, 2]},
        prefix_hit_rate="40%",
        sessions={"turns": 3, "think_time": "5s"},
        mix=[{"name": "a", "weight": 2}, {"name": "b", "output_tokens": 7}],
        remarks={"": ["From somewhere.\nIn two lines \x07."], "prompt_tokens": ["Seen: many. " * 20], "slo": ["Not there."]},
    )
    profile = parse_requirement(text, "x").profile
    assert profile.prefix_hit_rate == pytest.approx(0.4)
    assert [part.name for part in profile.mix] == ["a", "b"]
    assert profile.sessions is not None
    assert "# From somewhere. In two lines \\x07." in text
    before = text[: text.index("  prompt_tokens:")]
    assert "  # Seen: many." in before
    assert max(len(line) for line in text.splitlines() if line.lstrip().startswith("#")) <= 120


def test_the_mix_that_the_documentation_shows() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs/requirement.md").read_text(encoding="utf-8")
    shown = page.partition("```yml\n")[2].partition("```")[0]
    assert [part.name for part in parse_requirement(f"name: x\n{shown}", "req.yaml").profile.mix] == ["chat", "search"]


def test_at_another_rate_a_burst_is_as_much_above_it_as_it_was() -> None:
    profile = parse_requirement(example_text("coding-assistant"), "example").profile
    lighter = profile.at_rate(profile.arrival.mean_rps / 4)
    assert lighter.arrival.mean_rps == pytest.approx(profile.arrival.mean_rps / 4)
    assert lighter.burst is not None
    assert profile.burst is not None
    assert lighter.burst.rate_rps == pytest.approx(profile.burst.rate_rps / 4)
    assert lighter.burst.duration_s == profile.burst.duration_s


@pytest.mark.parametrize(
    ("profile", "message"),
    [
        ("{mix: , arrival: {rate: 1/s}}", "profile.prompt_tokens"),
        ("{prompt_tokens: 1, output_tokens: 1, arrival: {{ arrival }}}", "profile.arrival"),
        ("{prompt_tokens: 1, output_tokens: 1, arrival: {rate: 1/s}, sessions: {turns: 2, think_time: {{ t }}}}", "think_time"),
    ],
)
def test_templates_that_were_not_filled_in_and_empty_keys_are_problems_and_no_failures(profile: str, message: str) -> None:
    with pytest.raises(RequirementError, match=message):
        parse_requirement(f"name: x\nprofile: {profile}\n", "req.yaml")


def test_what_a_profile_says_for_its_parts_needs_to_fit_those_that_take_it_over_alone() -> None:
    base = "name: x\nprofile:\n  arrival: {rate: 2/s}\n  output_tokens: 5\n  shared_prefix_tokens: 500\n  prefix_groups: 8\n"
    parts = "  mix:\n    - {name: a, weight: 3, prompt_tokens: 100, shared_prefix_tokens: 0}\n"
    parts += "    - {name: b, prompt_tokens: 1000}\n    - {name: c, prompt_tokens: 1000, shared_prefix_tokens: 300}\n"
    first, second, third = read(parts, base).profile.mix
    assert (first.shared_prefix_tokens, first.prefix_groups) == (0, 1)
    assert (second.shared_prefix_tokens, second.prefix_groups) == (500, 8)
    assert (third.shared_prefix_tokens, third.prefix_groups) == (300, 8)
