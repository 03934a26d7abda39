"""The record of a run: classes sum up, unknown fields are refused, exit codes follow the verdict."""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from setpoint.record import (
    EXIT_INCONCLUSIVE,
    EXIT_INVALID,
    EXIT_MET,
    EXIT_MISSED,
    PhaseMeasures,
    Report,
    RequestClass,
    Summary,
    Verdict,
)
from setpoint.record.columns import REQUEST_COLUMNS, STEP_COLUMNS


def measures(**classes: int) -> dict[str, Any]:
    counts = dict.fromkeys((str(each) for each in RequestClass), 0) | classes
    summaries = {name: Summary(n=0) for name in ("ttft_s", "itl_s", "max_gap_s", "tpot_s", "e2e_s")}
    rates = {"goodput_rps": 0.0, "goodput_fraction": None, "output_tokens_per_s": 0.0, "prompt_tokens_per_s": 0.0}
    return {"offered": sum(counts.values()), "duration_s": 1.0} | counts | summaries | rates


def report(*verdicts: Verdict, chosen: str | None = None, valid: bool = True) -> Report:
    candidates = [
        {"name": f"c{k}", "config": {}, "slo": {"verdict": verdict, "checks": []}} for k, verdict in enumerate(verdicts)
    ]
    return Report.model_validate(
        {
            "kind": "tune",
            "requirement": None,
            "machine": {},
            "candidates": candidates,
            "chosen": chosen,
            "why": "",
            "validity": {"valid": valid},
        }
    )


@given(st.dictionaries(st.sampled_from([str(each) for each in RequestClass]), st.integers(0, 1000)))
def test_every_request_is_in_exactly_one_class(classes: dict[str, int]) -> None:
    fields = measures(**classes)
    assert PhaseMeasures.model_validate(fields).offered == sum(classes.values())
    with pytest.raises(ValidationError, match="lost or counted twice"):
        PhaseMeasures.model_validate(fields | {"offered": fields["offered"] + 1})


def test_unknown_fields_are_refused() -> None:
    with pytest.raises(ValidationError, match="newer"):
        Summary.model_validate({"n": 1, "newer": 2})


def test_a_report_reads_back_from_its_json() -> None:
    written = report(Verdict.MET, Verdict.MISSED, chosen="c0")
    fields = json.loads(written.to_json())
    assert fields["schema"] == 1
    assert set(fields) == {
        *("schema", "kind", "requirement", "machine", "candidates", "chosen", "why", "validity"),
    }
    assert Report.model_validate(fields) == written
    with pytest.raises(ValidationError, match="schema"):
        Report.model_validate(fields | {"schema": 2})


@pytest.mark.parametrize(
    ("made", "code"),
    [
        (report(Verdict.MISSED, Verdict.MET, chosen="c1"), EXIT_MET),
        (report(Verdict.MISSED, chosen="c0"), EXIT_MISSED),
        (report(Verdict.MISSED, Verdict.MISSED), EXIT_MISSED),
        (report(Verdict.MISSED, Verdict.INCONCLUSIVE), EXIT_INCONCLUSIVE),
        (report(), EXIT_MISSED),
        (report(Verdict.MET, chosen="c0", valid=False), EXIT_INVALID),
    ],
)
def test_exit_codes_follow_the_verdict(made: Report, code: int) -> None:
    assert made.exit_code() == code


def test_columns_end_with_their_units_and_tables_can_be_empty() -> None:
    for schema in (REQUEST_COLUMNS, STEP_COLUMNS):
        assert len(set(schema.names)) == len(schema.names)
        assert pa.table(schema.empty_table()).num_rows == 0
        for field in schema:
            if pa.types.is_float64(field.type):
                assert field.name.endswith("_s"), f"{field.name} is a time without its unit"
