"""A requirement file is loaded, or refused with one message that names file, line, field, found and allowed."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from setpoint.requirement import (
    Arrival,
    ArrivalProcess,
    Burst,
    ChoiceTokens,
    ConstantTokens,
    LatencyMetric,
    LatencySlo,
    LognormalTokens,
    ModelSource,
    Objective,
    Price,
    Requirement,
    RequirementError,
    Slos,
    SpreadSlo,
    TokenDistribution,
    UniformTokens,
    example_names,
    example_text,
    load_requirement,
    parse_requirement,
)

COMPLETE = """\
name: coding-assistant
description: a test
model: {source: model.gguf, revision: main, served_name: tiny}
profile:
  prompt_tokens: {median: 120, p95: 400, max: 800}
  output_tokens: 64
  shared_prefix_tokens: 0
  streaming: true
  arrival: {process: poisson, rate: 2.5/s}
  burst: {rate: 3x, duration: 10s}
slo:
  ttft: {p95: 300ms}
  itl: {p99: 60ms}
  e2e: {p50: 1s, p99.9: 2s}
  queue_wait: {p95: 100ms}
  spread: {e2e: 3}
  goodput_fraction: 95%
  shed_fraction: 5%
slo_burst:
  ttft: {p95: 1s}
objective: min_latency
price: {usd_per_hour: 0.10}
"""

SHORT = """\
name: x
profile:
  prompt_tokens: 128
  output_tokens: 64
  arrival: {rate: 2/s}
"""


def message_of(text: str) -> str:
    with pytest.raises(RequirementError) as caught:
        parse_requirement(text, "req.yaml")
    return str(caught.value)


def test_every_field() -> None:
    requirement = parse_requirement(COMPLETE, "req.yaml")
    assert requirement.name == "coding-assistant"
    assert requirement.description == "a test"
    assert requirement.model == ModelSource(source="model.gguf", revision="main", served_name="tiny")
    profile = requirement.profile
    assert profile.prompt_tokens == LognormalTokens(median=120, p95=400, max=800)
    assert profile.output_tokens == ConstantTokens(value=64)
    assert profile.arrival == Arrival(process=ArrivalProcess.POISSON, rate_rps=2.5)
    assert profile.burst == Burst(rate_rps=7.5, duration_s=10.0)
    assert requirement.slo == Slos(
        latency=(
            LatencySlo(metric=LatencyMetric.TTFT, percentile=95, limit_s=0.3),
            LatencySlo(metric=LatencyMetric.ITL, percentile=99, limit_s=0.06),
            LatencySlo(metric=LatencyMetric.E2E, percentile=50, limit_s=1.0),
            LatencySlo(metric=LatencyMetric.E2E, percentile=99.9, limit_s=2.0),
            LatencySlo(metric=LatencyMetric.QUEUE_WAIT, percentile=95, limit_s=0.1),
        ),
        spread=(SpreadSlo(metric=LatencyMetric.E2E, limit=3),),
        goodput_fraction_min=0.95,
        shed_fraction_max=0.05,
    )
    assert requirement.slo_burst.limit_s(LatencyMetric.TTFT) == 1.0
    assert requirement.objective is Objective.MIN_LATENCY
    assert requirement.price == Price(usd_per_hour=0.1)
    assert Requirement.model_validate(requirement.model_dump(mode="json")) == requirement


def test_the_shortest_requirement() -> None:
    requirement = parse_requirement(SHORT, "req.yaml")
    assert requirement.model == ModelSource()
    assert requirement.slo == Slos()
    assert requirement.profile.burst is None


def test_a_key_without_a_value_counts_as_not_written() -> None:
    text = SHORT + "slo:\n  # ttft: {p95: 300ms}\nprice:\ndescription:\n"
    assert parse_requirement(text, "req.yaml") == parse_requirement(SHORT, "req.yaml")
    assert "req.yaml:1: name: found nothing; allowed: this key is required" in message_of(SHORT.replace("name: x", "name:"))


@pytest.mark.parametrize(
    ("text", "distribution"),
    [
        ("17", ConstantTokens(value=17)),
        ("{value: 17}", ConstantTokens(value=17)),
        ("{min: 10, max: 50}", UniformTokens(min=10, max=50)),
        ("{kind: uniform, min: 10, max: 50}", UniformTokens(min=10, max=50)),
        ("{median: 12.5, p95: 40, min: 2, max: 50}", LognormalTokens(median=12.5, p95=40, min=2, max=50)),
        ("{values: [1, 2, 4]}", ChoiceTokens(values=(1, 2, 4))),
        ("{values: [1, 2], weights: [3, 0.5]}", ChoiceTokens(values=(1, 2), weights=(3.0, 0.5))),
    ],
)
def test_kind_of_a_distribution_follows_from_its_keys(text: str, distribution: TokenDistribution) -> None:
    requirement = parse_requirement(SHORT.replace("output_tokens: 64", f"output_tokens: {text}"), "req.yaml")
    assert requirement.profile.output_tokens == distribution


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("name: coding-assistant", "nam: x", "req.yaml:1: nam: found this key; allowed: name, description, model"),
        ("name: coding-assistant", "nam: x", "did you mean name?"),
        ("name: coding-assistant", "name: ''", 'req.yaml:1: name: found ""; allowed: at least 1 character'),
        ("name: coding-assistant", "name: [a]", "req.yaml:1: name: found a list; allowed: a short name"),
        ("{median: 120,", "{medain: 120,", "req.yaml:5: profile.prompt_tokens.medain: found this key"),
        ("p95: 400,", "", "req.yaml:5: profile.prompt_tokens.p95: found nothing; allowed: this key is required"),
        ("max: 800", "max: 80", 'req.yaml:5: profile.prompt_tokens.max: found "80"; allowed: at least p95 (400)'),
        ("{median: 120, p95: 400, max: 800}", "{mediann: 3}", "did you mean median?"),
        ("{median: 120, p95: 400, max: 800}", "{}", "found a mapping with the keys (none)"),
        ("{median: 120, p95: 400, max: 800}", "[1, 2]", "found a list; allowed: a number of tokens such as 128"),
        ("{median: 120, p95: 400, max: 800}", "{kind: normal}", "allowed: lognormal, choice, constant, uniform"),
        ("{median: 120, p95: 400, max: 800}", "{values: []}", "a list with at least one entry"),
        ("{median: 120, p95: 400, max: 800}", "{values: [1, x]}", 'prompt_tokens.values.1: found "x"'),
        ("{median: 120, p95: 400, max: 800}", "{values: [1, 0]}", 'values.1: found "0"; allowed: at least 1'),
        ("{median: 120, p95: 400, max: 800}", "{values: [8, 9], weights: [1]}", "one weight for each of the 2 values"),
        ("output_tokens: 64", "output_tokens: 0", 'profile.output_tokens: found "0"; allowed: at least 1'),
        ("output_tokens: 64", "output_tokens: 6.5", 'profile.output_tokens: found "6.5"; allowed: a number of tokens'),
        ("shared_prefix_tokens: 0", "shared_prefix_tokens: 1", "less than the shortest possible prompt (1)"),
        ("streaming: true", "streaming: maybe", 'streaming: found "maybe"; allowed: true or false'),
        ("streaming: true", "streaming: false", "slo.ttft: found a mapping; allowed: e2e or queue_wait"),
        ("poisson", "posson", "did you mean poisson?"),
        ("rate: 2.5/s", "rate: 2.5", "2.5 has no unit: write 2.5/s"),
        ("rate: 2.5/s", "rate: -2/s", 'profile.arrival.rate: found "-2/s"; allowed: more than 0/s'),
        ("rate: 2.5/s", "rate: 2.5/s, cv: 2", "profile.arrival.cv"),
        ("rate: 3x", "rate: 0.5x", 'profile.burst.rate: found "0.5x"; allowed: above the sustained rate (2.5/s)'),
        ("duration: 10s", "duration: 10", 'profile.burst.duration: found "10"; allowed: a duration with its unit'),
        ("ttft: {p95: 300ms}", "ttft: 300ms", 'req.yaml:12: slo.ttft: found "300ms"; allowed: percentiles with limits'),
        ("ttft: {p95: 300ms}", "ttft: {}", "slo.ttft: found a mapping; allowed: percentiles with limits"),
        ("ttft: {p95: 300ms}", "ttft: {p95: 300}", 'slo.ttft.p95: found "300"'),
        ("ttft: {p95: 300ms}", "ttft: {95: 300ms}", "slo.ttft.95: found this key; allowed: a percentile"),
        ("ttft: {p95: 300ms}", "ttft: {p0: 300ms}", "above 0 and below 100"),
        ("ttft: {p95: 300ms}", "ttft: {p100: 300ms}", "above 0 and below 100"),
        ("ttft: {p95: 300ms}", "ttft: {p95: 0s}", 'slo.ttft.p95: found "0s"; allowed: more than 0 s'),
        ("p99.9: 2s", "p99.9: 0.5s", "slo.e2e.p99.9"),
        ("spread: {e2e: 3}", "spread: {e2e: 0.5}", 'slo.spread.e2e: found "0.5"; allowed: at least 1'),
        ("goodput_fraction: 95%", "goodput_fraction: 95", "for per cent write 95%"),
        ("goodput_fraction: 95%", "goodput_fraction: 101%", 'slo.goodput_fraction: found "101%"; allowed: at most 1'),
        ("shed_fraction: 5%", "shed_fraction: 1", 'slo.shed_fraction: found "1"; allowed: less than 1'),
        ("objective: min_latency", "objective: min_latancy", "did you mean min_latency?"),
        ("price: {usd_per_hour: 0.10}", "price: 3 EUR", 'price: found "3 EUR"'),
        ("price: {usd_per_hour: 0.10}", "price: {usd_per_hour: 0}", 'found "0"; allowed: more than 0'),
        ("{source: model.gguf,", "{", "req.yaml:3: model.source: found nothing; allowed: this key is required"),
        ("slo:", "slo: 3", "YAML error"),
        ("description: a test", "name: again", "name: found the key a second time (first on line 1)"),
        ("description: a test", "? [a]\n: b", "found a list as a key"),
    ],
)
def test_message_names_line_field_found_and_allowed(old: str, new: str, expected: str) -> None:
    assert old in COMPLETE
    assert expected in message_of(COMPLETE.replace(old, new))


def test_all_problems_at_once_in_file_order() -> None:
    text = COMPLETE.replace("64", "none").replace("60ms", "60").replace("min_latency", "fast").replace("2.5/s", "2")
    with pytest.raises(RequirementError) as caught:
        parse_requirement(text, "req.yaml")
    assert [problem.field for problem in caught.value.problems] == [
        "profile.output_tokens",
        "profile.arrival.rate",
        "slo.itl.p99",
        "objective",
    ]
    assert [line.split(": ")[0] for line in str(caught.value).splitlines()] == [
        "req.yaml:6",
        "req.yaml:9",
        "req.yaml:13",
        "req.yaml:21",
    ]


def test_a_misspelt_required_key_is_one_problem() -> None:
    with pytest.raises(RequirementError) as caught:
        parse_requirement(SHORT.replace("arrival:", "arival:"), "req.yaml")
    assert [problem.field for problem in caught.value.problems] == ["profile.arival"]


def test_very_many_problems_are_cut() -> None:
    text = SHORT + "".join(f"key{number}: 1\n" for number in range(100))
    assert len(message_of(text).splitlines()) == 21
    assert message_of(text).endswith("and 80 more problems")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "req.yaml:1: found an empty file; allowed: a mapping"),
        ("# only a comment\n", "an empty file"),
        ("just words", 'found "just words"; allowed: a mapping'),
        ("- a\n- b\n", "found a list; allowed: a mapping"),
        ("name: x\n  profile: y\n", "req.yaml:2: found a YAML error"),
        ("name: x\n\tprofile: y\n", "this line has a tab"),
        ("name: 'x\n", "a YAML error"),
        ("name: \x00", "req.yaml:1: found the character '\\x00'; allowed: printable text"),
        ('name: "\\U7fffffff"', "a YAML error"),
        ("a: &a [x]\nb: *a\n", "req.yaml:1: found an anchor or alias"),
        ("name: !!python/object:os.system x", "found the tag"),
        ("name: x\n---\nname: y\n", "req.yaml:2: found a second document"),
        ("[" * 5000, "nesting deeper than"),
        ("x" * 100_000, "found 100000 characters"),
    ],
)
def test_what_is_no_requirement_at_all(text: str, expected: str) -> None:
    message = message_of(text)
    assert expected in message
    assert len(message.splitlines()) == 1


def test_a_bomb_of_aliases_is_refused_before_it_is_built() -> None:
    lines = ["a0: &a0 [x, x]", *(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, 60))]
    assert "anchor or alias" in message_of("\n".join(lines))


def test_file_that_cannot_be_used(tmp_path: Path) -> None:
    missing = tmp_path / "no.yaml"
    latin = tmp_path / "latin.yaml"
    latin.write_bytes(b"name: x\ndescription: caf\xe9\n")
    large = tmp_path / "large.yaml"
    large.write_bytes(b"\xff" * 1_000_000)
    for path, expected in [
        (missing, "found no such file; allowed: a YAML file; setpoint init writes one, and the shipped examples are"),
        (tmp_path, "found a directory; allowed: a YAML file"),
        (latin, "latin.yaml:2: found a byte that is not UTF-8 (0xe9); allowed: a text file saved as UTF-8"),
        (large, "found a very large file"),
        (Path("nul\0byte"), "found"),
        (tmp_path / ("x" * 5000), "found"),
    ]:
        with pytest.raises(RequirementError) as caught:
            load_requirement(path)
        assert expected in str(caught.value)
        assert len(str(caught.value).splitlines()) == 1


def test_file_with_a_byte_order_mark_is_loaded(tmp_path: Path) -> None:
    path = tmp_path / "bom.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + SHORT.encode())
    assert load_requirement(path) == parse_requirement(SHORT, "req.yaml")


def parses_or_explains(text: str) -> None:
    lines: list[str] = []
    try:
        parse_requirement(text, "req.yaml")
    except RequirementError as error:
        lines = str(error).splitlines() or ["a message without words"]
    assert all(line.startswith("req.yaml") and line.isprintable() for line in lines)


@given(st.text(max_size=200))
@example("? ")
@example("%YAML 9999999999999999999999.1\n---\na: b")
@example("'")
@example("a: \ud800")
def test_any_text_is_a_requirement_or_a_requirement_error(text: str) -> None:
    parses_or_explains(text)


@given(st.text(alphabet="ab: \n-{}[],'\"#&*!|>%?@`\t0123.~<=", max_size=120))
def test_any_punctuation_is_a_requirement_or_a_requirement_error(text: str) -> None:
    parses_or_explains(text)


KEYS = ["name", "profile", "slo", "price", "prompt_tokens", "output_tokens", "arrival", "rate", "burst", "ttft", "p95"]
KEYS += ["kind", "values", "weights", "median", "min", "max", "spread", "e2e", "model", "source", "duration", "itl"]
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=10),
    st.sampled_from(["2/s", "3x", "300ms", "95%", "poisson", "uniform", "1", "64", ".inf", "-1s", "1e400s"]),
)
TREES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.sampled_from(KEYS), inner, max_size=6)),
    max_leaves=20,
)


@given(st.dictionaries(st.sampled_from(KEYS), TREES, max_size=6))
def test_any_tree_is_a_requirement_or_a_requirement_error(tree: object) -> None:
    parses_or_explains(yaml.safe_dump(tree, allow_unicode=True))


@given(
    name=st.sampled_from(example_names()),
    place=st.floats(min_value=0, max_value=1),
    cut=st.integers(min_value=0, max_value=30),
    insert=st.text(max_size=5),
)
def test_any_damage_to_an_example_is_a_requirement_or_a_requirement_error(
    name: str, place: float, cut: int, insert: str
) -> None:
    text = example_text(name)
    position = int(place * len(text))
    parses_or_explains(text[:position] + insert + text[position + cut :])
