"""Accelerators: one YAML file each, those bundled (``data/accelerators``) and the user's own (``<data folder>/accelerators``).

Figures are a vendor's datasheet: dense operations, not sparse; decimal units (1 GB = 1e9 bytes), as datasheets have them. A
price is a default with a date: sellers differ two- to fourfold, so it is always an input that a user may replace.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable
from types import MappingProxyType
from typing import Any

import yaml

from setpoint.hardware.errors import HardwareError
from setpoint.hardware.user_data import user_folder

THIS_MACHINE = "this-machine"
GPU, CPU = "gpu", "cpu"
MOST_FILES = 256
PRECISIONS = ("bf16", "fp8", "fp4", "int8")
HBM_GIGABYTE, LEAST_HBM_BYTES_PER_S = 1.069, 1.2e12
# What a multiplication runs in where the accelerator has no unit for the precision of the weights.
FALLBACKS = {"fp8": ("fp8", "bf16"), "fp4": ("fp4", "bf16"), "int8": ("int8", "bf16"), "int4": ("bf16",), "bf16": ("bf16",)}


class UnknownAccelerator(HardwareError):
    """No such accelerator; the message names the nearest."""


@dataclass(frozen=True, slots=True)
class Accelerator:
    """One device as its datasheet has it.

    flops_per_s: dense operations a second by precision (``bf16``, ``fp8``, ``fp4``, ``int8``; those it has). link_bytes_per_s:
    one direction to the other devices of its node, 0 if there is none. price_usd_per_h: of one device, ``None`` if unknown.
    aliases: other spellings of the name. kind: ``gpu`` or ``cpu``. vendor: ``nvidia``, ``amd``, ...; empty if it is not said.
    """

    name: str
    flops_per_s: Mapping[str, float]
    memory_bytes: float
    memory_bytes_per_s: float
    link_bytes_per_s: float
    power_w: float
    price_usd_per_h: float | None
    price_date: str
    price_source: str
    spec_source: str
    aliases: tuple[str, ...] = ()
    kind: str = GPU
    vendor: str = ""

    @property
    def installed_bytes(self) -> float:
        """Bytes of memory as its driver reports them: what a datasheet calls a gigabyte of HBM is more than 1e9 bytes (an H100
        of 80 GB has 81,559 MiB, an H200 of 141 GB 143,771); of GDDR the error correction takes the difference."""
        hbm = self.kind == GPU and self.memory_bytes_per_s >= LEAST_HBM_BYTES_PER_S
        return self.memory_bytes * (HBM_GIGABYTE if hbm else 1.0)

    def compute_flops_per_s(self, weight_precision: str) -> float:
        """Dense operations a second for weights of ``weight_precision``: where it has no such unit, those of bf16."""
        for precision in FALLBACKS.get(weight_precision, ("bf16",)):
            if precision in self.flops_per_s:
                return self.flops_per_s[precision]
        return next(iter(self.flops_per_s.values()))


def accelerator(name: str) -> Accelerator:
    """The accelerator called ``name`` (any case, ``-`` or ``_``, or an alias); ``this-machine`` is measured the first time.

    Raises ``UnknownAccelerator``, and ``HardwareError`` for a user's file that cannot be read.
    """
    wanted = plain(name)
    known = {plain(spelling): each for each in _listed() for spelling in (each.name, *each.aliases)}
    if wanted in known:
        return known[wanted]
    if wanted == plain(THIS_MACHINE):
        from setpoint.hardware.this_machine import this_machine

        return this_machine()
    names = [each.name for each in _listed()]
    close = get_close_matches(wanted, [plain(each) for each in names], n=3, cutoff=0.5)
    near = [each for each in names if plain(each) in close] or [*names, THIS_MACHINE]
    raise UnknownAccelerator(
        f"accelerator {name!r} is not known: {'did you mean' if close else 'choose from'} {', '.join(near)};"
        " or describe it with 'setpoint hardware add'"
    )


def accelerators() -> tuple[Accelerator, ...]:
    """All there are, by name: the bundled, the user's own (which win), and this machine once it was measured."""
    from setpoint.hardware.this_machine import remembered

    here = remembered()
    return _listed() if here is None else (*_listed(), here)


def vendors_of(names: Collection[str]) -> frozenset[str]:
    """The vendors of those of ``names`` that are in the catalogue or the user's own, and say whose they are."""
    return frozenset(each.vendor for each in _listed() if each.vendor and each.name in names)


def plain(name: str) -> str:
    """A name without what people spell differently."""
    return re.sub(r"[\s_]+", "-", name.strip().lower())


def _listed() -> tuple[Accelerator, ...]:
    found = {each.name: each for each in (*_bundled(), *_own())}
    return tuple(found[name] for name in sorted(found))


@cache
def _bundled() -> tuple[Accelerator, ...]:
    folder = resources.files("setpoint.hardware").joinpath("data", "accelerators")
    return tuple(_read(file) for file in sorted(folder.iterdir(), key=lambda each: each.name) if file.name.endswith(".yaml"))


def _own() -> Iterator[Accelerator]:
    folder = user_folder() / "accelerators"
    if folder.is_dir():
        for file in sorted(folder.glob("*.yaml"))[:MOST_FILES]:
            yield _read(file)


def _read(file: Traversable) -> Accelerator:
    try:
        document = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise HardwareError(f"{file}: cannot be read as YAML: {str(error).splitlines()[0]}") from error
    return accelerator_from(document, where=str(file))


def accelerator_from(document: object, *, where: str) -> Accelerator:
    """An accelerator from the fields of its file. Raises ``HardwareError`` that names ``where``, the field and the fix."""
    if not isinstance(document, dict):
        raise HardwareError(f"{where}: expected fields of an accelerator, found {type(document).__name__}")
    name = document.get("name")
    if not isinstance(name, str) or not re.fullmatch(r"[a-z0-9][a-z0-9.-]{0,62}", name):
        raise HardwareError(f"{where}: name must be lower case letters, digits, '.' and '-', found {name!r}")
    tflops = document.get("dense_tflops")
    if not isinstance(tflops, dict) or not tflops or not set(tflops) <= set(PRECISIONS):
        raise HardwareError(f"{where}: dense_tflops must give TFLOPS by precision ({', '.join(PRECISIONS)}), found {tflops!r}")
    price = document.get("price_usd_per_h")
    return Accelerator(
        name=name,
        flops_per_s=MappingProxyType({key: 1e12 * _number(tflops, key, where) for key in PRECISIONS if key in tflops}),
        memory_bytes=1e9 * _number(document, "memory_gb", where),
        memory_bytes_per_s=1e12 * _number(document, "memory_tb_per_s", where),
        link_bytes_per_s=1e9 * _number(document, "link_gb_per_s", where, least=0.0),
        power_w=_number(document, "power_w", where, least=0.0),
        price_usd_per_h=None if price is None else _number(document, "price_usd_per_h", where, least=0.0),
        price_date=str(document.get("price_date", "")),
        price_source=str(document.get("price_source", "")),
        spec_source=str(document.get("spec_source", "")),
        aliases=tuple(str(each) for each in document.get("aliases") or ()),
        kind=CPU if document.get("kind") == CPU else GPU,
        vendor=str(document.get("vendor") or "").strip().lower(),
    )


def _number(document: Mapping[str, Any], field: str, where: str, *, least: float | None = None) -> float:
    value = document.get(field)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1e9 or (value == 0 and least is None):
        wanted = "a number above 0" if least is None else "a number of at least 0"
        raise HardwareError(f"{where}: {field} must be {wanted}, found {value!r}")
    return float(value)
