"""What ``setpoint hardware`` shows on a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from rich.table import Table

from setpoint.hardware.accelerator import Accelerator
from setpoint.hardware.validate import Score, Validation

UNITS = {"flops_per_s": (1e12, "T/s"), "bytes_per_s": (1e9, "GB/s"), "bytes": (1e9, "GB"), "kv_bytes_per_token": (1e3, "kB")}


def accelerators_table(devices: Iterable[Accelerator]) -> Table:
    """One line a device."""
    table = Table(title="Accelerators (dense TFLOPS; one direction of the link; prices are defaults, --price replaces them)")
    table.add_column("name")
    for column in ("bf16", "fp8", "fp4", "GB", "TB/s", "link GB/s", "W", "USD/h", "of"):
        table.add_column(column, justify="right")
    for each in devices:
        flops = [_number(each.flops_per_s.get(precision), 1e12) for precision in ("bf16", "fp8", "fp4")]
        sizes = [each.memory_bytes / 1e9, each.memory_bytes_per_s / 1e12, each.link_bytes_per_s / 1e9, each.power_w]
        price = "" if each.price_usd_per_h is None else f"{each.price_usd_per_h:.2f}"
        table.add_row(each.name, *flops, *(f"{size:.4g}" for size in sizes), price, each.price_date)
    return table


def _number(value: float | None, unit: float) -> str:
    return "" if value is None else f"{value / unit:.4g}"


def facts_table(title: str, facts: Mapping[str, Any]) -> Table:
    """One line a field."""
    table = Table(title=title, show_header=False)
    for name, value in facts.items():
        table.add_row(name, _words(name, value))
    return table


def _words(name: str, value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_words(name, each)}" for key, each in value.items())
    unit = next((each for ending, each in UNITS.items() if name.endswith(ending)), None)
    if isinstance(value, float) and unit is not None:
        return f"{value / unit[0]:,.4g} {unit[1]}"
    return f"{value:,.6g}" if isinstance(value, float) else str(value)


def deployment_table(found: Mapping[str, Any]) -> Table:
    """Steps, their time, what bounds them."""
    error = "error, a guess:" if found["relative_error_is_guess"] else "one standard deviation"
    sure = f"{found['source']}, {error} {found['relative_error']:.0%}"
    room = found["kv_capacity_tokens"]
    fits = f"room for {room:,} tokens of cache" if room > 0 else "does not fit"
    table = Table(
        title=f"{found['model']} {found['weight_precision']} on {found['devices']} x {found['accelerator']}, {found['engine']}:"
        f" {fits} ({sure})"
    )
    table.add_column("step")
    table.add_column("ms", justify="right")
    table.add_column("bound by")
    table.add_column("of which, ms")
    for step in found["steps"]:
        parts = sorted(step["parts_s"].items(), key=lambda each: -each[1])
        largest = ", ".join(f"{name} {seconds * 1e3:.2f}" for name, seconds in parts[:4] if seconds > 0)
        table.add_row(step["step"], f"{step['seconds'] * 1e3:.2f}", step["bound_by"], largest)
    return table


def validation_table(found: Validation) -> Table:
    """One line a group, the whole last, refused rows with their reasons below."""
    table = Table(title="Predictions against measurements: mean absolute relative error")
    for column in ("engine", "system", "model", "source"):
        table.add_column(column)
    for column in ("rows", "covered", "TPOT", "TTFT"):
        table.add_column(column, justify="right")
    for group, (score, source) in found.groups.items():
        table.add_row(*group, source, *_scored(score))
    table.add_section()
    table.add_row("all", "", "", "", *_scored(found.total))
    if found.refused:
        table.caption = "refused: " + "; ".join(f"{count} x {why}" for why, count in sorted(found.refused.items()))
    return table


def _scored(score: Score) -> list[str]:
    errors = ["" if error is None else f"{error:.1%}" for error in (score.tpot_mape, score.ttft_mape)]
    return [str(score.rows), f"{score.coverage:.1%}", *errors]
