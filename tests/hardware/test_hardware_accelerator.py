"""Accelerators: every bundled file, names as people spell them, a user's own files, prices."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from setpoint.hardware.accelerator import UnknownAccelerator, accelerator, accelerator_from, accelerators, vendors_of
from setpoint.hardware.errors import HardwareError
from setpoint.hardware.prices import parse_prices, priced
from setpoint.hardware.this_machine import fingerprint, remembered, remembered_file
from setpoint.record import processor

WANTED = (
    "a100-40", "a100-80", "h100-sxm", "h100-pcie", "h100-nvl", "h200", "b200", "b300", "gb200", "mi300x", "mi325x",
    "mi355x", "l4", "l40s", "a10g",
)  # fmt: skip


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SETPOINT_DATA", str(tmp_path / "data"))


@pytest.mark.parametrize("name", WANTED)
def test_bundled_ones_have_facts_with_sources(name: str) -> None:
    device = accelerator(name)
    assert device.name == name
    assert 1e13 < device.flops_per_s["bf16"] < 1e16
    assert 2e11 < device.memory_bytes_per_s < 2e13
    assert 1e10 < device.memory_bytes < 1e12
    assert device.price_usd_per_h is not None
    assert device.price_date
    assert device.price_source
    assert device.spec_source
    assert device.vendor == ("amd" if name.startswith("mi") else "nvidia")


def test_datasheet_figures_are_in_base_units() -> None:
    h100 = accelerator("h100-sxm")
    assert (h100.memory_bytes, h100.memory_bytes_per_s, h100.link_bytes_per_s) == (80e9, 3.35e12, 450e9)
    assert h100.flops_per_s == {"bf16": 989e12, "fp8": 1979e12, "int8": 1979e12}


@pytest.mark.parametrize(
    ("spelling", "name"),
    [("H100_SXM", "h100-sxm"), ("b200_sxm", "b200"), ("gb200", "gb200"), ("A100", "a100-80"), (" l4 ", "l4")],
)
def test_names_as_people_spell_them(spelling: str, name: str) -> None:
    assert accelerator(spelling).name == name


def test_an_unknown_name_gets_the_nearest() -> None:
    with pytest.raises(UnknownAccelerator, match=r"did you mean.*h100-sxm"):
        accelerator("h100-sxn")


def test_precisions_it_has_no_unit_for_run_in_bf16() -> None:
    a100, h100, b200 = accelerator("a100-80"), accelerator("h100-sxm"), accelerator("b200")
    assert a100.compute_flops_per_s("fp8") == a100.flops_per_s["bf16"]
    assert h100.compute_flops_per_s("fp4") == h100.flops_per_s["bf16"]
    assert b200.compute_flops_per_s("fp4") == 9000e12


def test_a_file_of_the_users_own_is_found_and_wins(tmp_path: Path) -> None:
    folder = tmp_path / "data" / "accelerators"
    folder.mkdir(parents=True)
    mine = {
        "name": "h100-sxm",
        "dense_tflops": {"bf16": 1},
        "memory_gb": 2,
        "memory_tb_per_s": 3,
        "link_gb_per_s": 0,
        "power_w": 4,
    }
    (folder / "mine.yaml").write_text(yaml.safe_dump(mine))
    assert accelerator("h100-sxm").power_w == 4
    assert len(accelerators()) == len(WANTED)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"name": "H 100"}, "name must be lower case"),
        ({"dense_tflops": {"fp64": 1}}, "dense_tflops"),
        ({"memory_gb": 0}, "memory_gb must be a number above 0, found 0"),
        ({"link_gb_per_s": "fast"}, "link_gb_per_s must be a number of at least 0, found 'fast'"),
    ],
)
def test_a_wrong_file_is_one_sentence(change: dict[str, object], says: str) -> None:
    good = {"name": "x1", "dense_tflops": {"bf16": 1}, "memory_gb": 1, "memory_tb_per_s": 1, "link_gb_per_s": 1, "power_w": 1}
    with pytest.raises(HardwareError, match=says):
        accelerator_from({**good, **change}, where="x1.yaml")


def test_a_vendor_is_said_or_unknown() -> None:
    mine = {"name": "x1", "dense_tflops": {"bf16": 1}, "memory_gb": 1, "memory_tb_per_s": 1, "link_gb_per_s": 1, "power_w": 1}
    assert accelerator_from(mine, where="x1.yaml").vendor == ""
    assert accelerator_from({**mine, "vendor": " Intel "}, where="x1.yaml").vendor == "intel"
    assert vendors_of({"l4", "mi300x", "no-such-card"}) == {"nvidia", "amd"}


def test_this_machine_is_measured_once_and_listed_from_then_on() -> None:
    assert "this-machine" not in [each.name for each in accelerators()]
    first = accelerator("this-machine")
    assert first.kind == "cpu"
    assert first.flops_per_s["bf16"] > 1e8
    assert first.memory_bytes_per_s > 1e8
    assert accelerator("this_machine") == first
    assert first in accelerators()


def test_what_was_measured_without_these_instructions_is_not_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processor, "cpu_info", lambda *_: {"model name": "AMD EPYC", "flags": "avx2"})
    facts = {"dense_tflops": {"bf16": 1}, "memory_gb": 1, "memory_tb_per_s": 1, "link_gb_per_s": 0, "power_w": 0}
    document = {"name": "this-machine", "kind": "cpu", "machine": fingerprint(), **facts}
    remembered_file().parent.mkdir(parents=True)
    remembered_file().write_text(yaml.safe_dump(document), encoding="utf-8")
    assert remembered() in accelerators()
    document["machine"] = fingerprint().removesuffix(" with avx2")
    remembered_file().write_text(yaml.safe_dump(document), encoding="utf-8")
    assert remembered() is None
    assert "this-machine" not in [each.name for each in accelerators()]


def test_prices_are_an_input() -> None:
    prices = parse_prices(["h100_sxm=2.5,l4=0.5", "mi300x=3"])
    assert prices == {"h100-sxm": 2.5, "l4": 0.5, "mi300x": 3.0}
    assert priced(accelerator("l4"), prices).price_usd_per_h == 0.5
    assert priced(accelerator("b200"), prices) == accelerator("b200")


@pytest.mark.parametrize("option", ["h100-sxm", "h100-sxm=cheap", "h100-sxm=-1", "h100-sxm=nan"])
def test_a_wrong_price_is_one_sentence(option: str) -> None:
    with pytest.raises(HardwareError, match="expected NAME=USD an hour"):
        parse_prices([option])
