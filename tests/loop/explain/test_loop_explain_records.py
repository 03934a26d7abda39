"""What runs with gaps in their records are explained with: nothing is counted, blamed or compared that was not seen."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from explain_world import STREAMED, Load, Made, config, make_run

from setpoint.loop.explain.explain import explain_run
from setpoint.loop.explain.explanation import Explanation, PolicyFinding, Status
from setpoint.loop.explain.run import read_explained
from setpoint.loop.explain.without import _arrivals
from setpoint.policy.configuration import BatchingMode
from setpoint.policy.views import BATCH, INTERACTIVE, RequestLimits
from setpoint.record.columns import REQUEST_COLUMNS

CONTINUOUS = config(BatchingMode.CONTINUOUS)


@pytest.fixture
def overload(tmp_path: Path) -> Made:
    return make_run(tmp_path / "overload", config(), Load(tenants=3))


def policy(found: Explanation, name: str) -> PolicyFinding:
    return next(each for each in found.policies if each.name == name)


def causes_of(found: Explanation) -> dict[str, int]:
    return {cause.code: cause.count for cause in found.causes}


def explained(made: Made) -> Explanation:
    return explain_run(made.folder, None, replays=False)


def recoded(made: Made, old: str, new: str) -> None:
    """Write the decisions again with another code."""
    file = made.folder / "decisions.parquet"
    table = pq.read_table(file)
    codes = pc.if_else(pc.equal(table["code"], old), pa.scalar(new), table["code"])
    pq.write_table(table.set_column(table.schema.get_field_index("code"), "code", codes), file)


def test_slow_tokens_are_not_blamed_on_a_client_that_sent_late(tmp_path: Path) -> None:
    text = STREAMED.replace("  ttft: {p95: 500ms}\n  itl: {p95: 60ms}", "  tpot: {p95: 5ms}")
    found = explained(make_run(tmp_path / "run", CONTINUOUS, Load(rate_rps=2.0, client_lag_s=0.6), text))
    assert causes_of(found)
    assert causes_of(found).keys() <= {"crowded_steps", "wide_steps", "slow_steps"}


def test_more_gaps_than_are_looked_at_are_said(tmp_path: Path) -> None:
    text = STREAMED.replace("itl: {p95: 60ms}", "itl: {p95: 5ms}")
    found = explained(make_run(tmp_path / "run", CONTINUOUS, Load(rate_rps=1.0, outputs=(100, 101)), text))
    late = [cause for cause in found.causes if "gaps_over" in cause.typical]
    assert {cause.typical["gaps_over"] for cause in late} == {99.0}
    assert all("99 gaps over it, of the 64 longest: " in each.words for cause in late for each in cause.examples)


def test_every_row_of_the_table_is_of_the_same_requests(overload: Made) -> None:
    file = overload.folder / "requests.parquet"
    rows = pq.read_table(file).to_pylist()
    for row in rows[:10]:
        row.update(sent_s=None, first_token_s=None, last_token_s=None, ended_s=None, token_times_s=[], request_class="dropped")
    pq.write_table(pa.Table.from_pylist(rows, schema=REQUEST_COLUMNS), file)
    without = explain_run(overload.folder, None).without
    assert without is not None
    assert {each.offered for each in (without.measured, *without.replays)} == {len(rows) - 10}
    assert "10 requests that the client never sent are in no row." in without.assumptions


def test_a_run_that_guessed_ahead_says_that_replays_do_not(overload: Made) -> None:
    without = explain_run(overload.folder, None).without
    assert without is not None
    assert not any("speculation" in words for words in without.assumptions)
    file = overload.folder / "steps.parquet"
    table = pq.read_table(file)
    drafts = pa.array([1] * table.num_rows, pa.int32())
    pq.write_table(table.set_column(table.schema.get_field_index("drafts"), "drafts", drafts), file)
    without = explain_run(overload.folder, None).without
    assert without is not None
    assert any("speculation" in words for words in without.assumptions)


def test_batch_requests_are_replayed_without_limits(tmp_path: Path) -> None:
    made = make_run(tmp_path / "run", config(), Load(rate_rps=6.0, batch=True))
    arrivals, _ = _arrivals(read_explained(made.folder, None))
    unlimited = {each.request_class: each.limits == RequestLimits() for each in arrivals}
    assert unlimited == {BATCH: True, INTERACTIVE: False}


def test_what_came_after_the_last_decision_that_was_read_is_not_told(overload: Made) -> None:
    """Seen: where the last decisions were never read, requests were "refused before the engine was asked"."""
    file = overload.folder / "decisions.parquet"
    table = pq.read_table(file)
    pq.write_table(table.slice(0, table.num_rows // 2), file)
    found = causes_of(explained(overload))
    assert found["not_told"] > 0
    assert "before_engine" not in found


def test_counts_of_decisions_of_which_some_are_missing_are_the_least(overload: Made) -> None:
    file = overload.folder / "decisions.parquet"
    table = pq.read_table(file)
    half = table.num_rows // 2
    pq.write_table(pa.concat_tables([table.slice(0, half), table.slice(half + 20)]), file)
    found = explained(overload)
    fired = policy(found, "admission by TTFT forecast")
    assert fired.words.endswith(f"at least {fired.fired}, as 20 decisions are missing")
    assert "missing" not in policy(found, "slack-sized prefill").words
    pq.write_table(pa.concat_tables([table, table.slice(0, 5)]), file)
    assert explained(overload).cannot == []


def test_without_decisions_the_bound_is_unknown_and_preemption_is_read_off_the_steps(tmp_path: Path) -> None:
    made = make_run(tmp_path / "run", CONTINUOUS, Load(rate_rps=12.0, blocks=20, outputs=(60, 120)), with_decisions=False)
    found = explained(made)
    preemption = policy(found, "preemption")
    assert preemption.status is Status.FIRED
    assert 0 < preemption.fired <= made.kinds["preempt"]
    assert policy(found, "bound of the queue").status is Status.UNKNOWN


def test_refusals_of_a_tenant_over_its_share_and_of_the_too_early_are_counted(overload: Made) -> None:
    joined = policy(explained(overload), "fairness between tenants").fired
    refused = policy(explained(overload), "admission by TTFT forecast").fired
    assert refused > 0
    recoded(overload, "ttft_would_be", "others_would_wait")
    assert policy(explained(overload), "fairness between tenants").fired == joined + refused
    recoded(overload, "others_would_wait", "too_early")
    early = policy(explained(overload), "time to come back")
    assert early.status is Status.FIRED
    assert early.fired >= refused


def test_what_another_servers_cache_keeps_is_unknown(tmp_path: Path) -> None:
    made = make_run(tmp_path / "run", config(), Load(rate_rps=4.0), with_config=False, with_steps=False, with_decisions=False)
    assert policy(explained(made), "prefix cache").status is Status.UNKNOWN
