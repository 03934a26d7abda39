"""The ``plan`` section: hardware, prices, bounds, precisions."""

from __future__ import annotations

import pytest

from setpoint.requirement import HardwarePrice, PlanWishes, RequirementError, parse_requirement

SHORT = """\
name: chat
profile:
  prompt_tokens: 128
  output_tokens: 64
  arrival: {rate: 2/s}
"""


def test_without_the_section_there_are_no_wishes() -> None:
    assert parse_requirement(SHORT, "file").plan is None


def test_every_field_is_read() -> None:
    text = SHORT + (
        "plan:\n  hardware: [h100-sxm, mi300x]\n  max_gpus: 8\n  max_usd_per_hour: $20/h\n  prices: {h100-sxm: $2.50/h}\n"
        "  quantization: [bf16, fp8]\n  kv_cache: fp8\n  load_uncertainty: 15%\n"
    )
    assert parse_requirement(text, "file").plan == PlanWishes(
        hardware=("h100-sxm", "mi300x"),
        max_gpus=8,
        max_usd_per_hour=20.0,
        prices=(HardwarePrice(hardware="h100-sxm", usd_per_hour=2.5),),
        quantization=("bf16", "fp8"),
        kv_cache=("fp8",),
        load_uncertainty=0.15,
    )


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("hardware: [h100-sxm, h100-sxm]", "plan.hardware: found a list; allowed: every name once"),
        ("max_gpus: 0", 'plan.max_gpus: found "0"; allowed: at least 1'),
        ("max_gpus: many", 'plan.max_gpus: found "many"; allowed: a whole number'),
        ("prices: 2.5", "allowed: a price for each name"),
        ("prices: {h100-sxm: 0}", 'plan.prices.h100-sxm: found "0"; allowed: more than 0'),
        ("load_uncertainty: 150%", "plan.load_uncertainty"),
        ("gpus: 4", "plan.gpus: found this key"),
    ],
)
def test_a_wrong_field_is_named(line: str, said: str) -> None:
    with pytest.raises(RequirementError, match="file:") as caught:
        parse_requirement(f"{SHORT}plan:\n  {line}\n", "file")
    assert said in str(caught.value)
    assert len(caught.value.problems) == 1
