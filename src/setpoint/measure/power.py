"""GPU power from an exporter's page (Prometheus text): watts over time, and the energy of a phase.

Energy is the area under the power that was seen (trapezoids). It is of the GPUs alone, not of the machine around them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from prometheus_client.parser import text_string_to_metric_families

from setpoint.measure.series import Series

# A phase in which the exporter renewed its figure less often than this has no energy worth the name.
RENEWALS_MIN = 3


@dataclass(frozen=True, slots=True)
class _Exporter:
    """name: as told to the user. gauges: names of the power figure, the best first; all in ``watts_per_unit`` W.

    device: labels that tell one GPU; a page may tell the same GPU's power several times (MIG slices, pods).
    """

    name: str
    gauges: tuple[str, ...]
    device: tuple[str, ...]
    index: tuple[str, ...]
    watts_per_unit: float = 1.0


EXPORTERS = (
    _Exporter("NVIDIA DCGM exporter", ("DCGM_FI_DEV_POWER_USAGE",), ("UUID", "Hostname", "gpu"), ("gpu",)),
    _Exporter(
        "nvidia_gpu_exporter",
        ("nvidia_smi_power_draw_watts", "nvidia_smi_power_draw_average_watts", "nvidia_smi_power_draw_instant_watts"),
        ("uuid",),
        ("index", "uuid"),
    ),
    # A GPU that is split tells its power on the first partition and 0 on the others, so partitions are added up.
    _Exporter(
        "AMD device metrics exporter",
        (
            "amd_gpu_package_power",
            "amd_gpu_average_package_power",
            "amd_gpu_power_usage",
            "gpu_package_power",
            "gpu_average_package_power",
            "gpu_power_usage",
        ),
        ("hostname", "serial_number", "gpu_id", "gpu_partition_id", "partition_id"),
        ("gpu_id",),
    ),
    _Exporter(
        "nvidia_gpu_prometheus_exporter",
        ("nvidia_gpu_power_usage_milliwatts",),
        ("uuid", "minor_number"),
        ("minor_number",),
        watts_per_unit=1e-3,
    ),
)
_GAUGES = frozenset(name for exporter in EXPORTERS for name in exporter.gauges)


@dataclass(frozen=True, slots=True)
class PowerSource:
    """Where power can be read. url: the exporter's page. gpus: only these, by index; empty means all it knows."""

    url: str
    gpus: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str) -> PowerSource:
        """From ``URL`` or ``URL#0,1``: the GPUs after the mark, by index."""
        url, _, gpus = text.partition("#")
        return cls(url, tuple(gpu.strip() for gpu in gpus.split(",") if gpu.strip()))


@dataclass(frozen=True, slots=True)
class PowerReading:
    """One page: watts of all the GPUs together, how many they are, and whose page it is."""

    watts: float
    gpus: int
    exporter: str


def read_power(text: str, gpus: Sequence[str] = ()) -> PowerReading | None:
    """The power on one page; ``None`` where it tells none (or none of ``gpus``).

    Raises ``ValueError`` if a line that tells power is not Prometheus text.
    """
    lines = [line for line in text.splitlines() if line.partition("{")[0].partition(" ")[0] in _GAUGES]
    found: dict[str, list[tuple[Mapping[str, str], float]]] = {}
    for family in text_string_to_metric_families("\n".join(lines) + "\n"):
        for sample in family.samples:
            if math.isfinite(sample.value) and sample.value >= 0:
                found.setdefault(sample.name, []).append((sample.labels, float(sample.value)))
    for exporter in EXPORTERS:
        for gauge in exporter.gauges:
            watts = _by_device(found.get(gauge, ()), exporter, gpus)
            if any(watts.values()):
                return PowerReading(sum(watts.values()), sum(value > 0 for value in watts.values()), exporter.name)
    return None


def _by_device(
    samples: Sequence[tuple[Mapping[str, str], float]], exporter: _Exporter, gpus: Sequence[str]
) -> dict[tuple[str, ...], float]:
    """Watts of each GPU; told several times, the largest counts."""
    watts: dict[tuple[str, ...], float] = {}
    for labels, value in samples:
        if gpus and not any(labels.get(name) in gpus for name in exporter.index):
            continue
        device = tuple(labels.get(name, "") for name in exporter.device)
        watts[device] = max(watts.get(device, 0.0), value * exporter.watts_per_unit)
    return watts


@dataclass(slots=True)
class PowerSide:
    """Power on the run's time axis. times_s, watts: one entry a reading. exporter, gpus: of the last reading."""

    times_s: list[float] = field(default_factory=list)
    watts: list[float | None] = field(default_factory=list)
    exporter: str = ""
    gpus: int = 0

    def add(self, time_s: float, reading: PowerReading) -> None:
        """Append one reading; times rise."""
        self.times_s.append(time_s)
        self.watts.append(reading.watts)
        self.exporter, self.gpus = reading.exporter, reading.gpus

    def phase(self, start_s: float, end_s: float) -> dict[str, float | None]:
        """``power_mean_w``, ``power_peak_w`` and ``energy_j`` between two instants.

        Energy is ``None`` where the exporter renewed its figure fewer than ``RENEWALS_MIN`` times: NVIDIA's renews
        every 30 s unless it is told otherwise, and one old figure says nothing of a short phase.
        """
        series = Series.of(self.times_s, self.watts)
        renewed = _renewals(series.within(start_s, end_s)) >= RENEWALS_MIN
        return {
            "power_mean_w": series.mean(start_s, end_s),
            "power_peak_w": series.peak(start_s, end_s),
            "energy_j": series.area(start_s, end_s) if renewed else None,
        }


def _renewals(series: Series) -> int:
    """How many different figures follow one another."""
    return int(np.count_nonzero(np.diff(series.values))) + 1 if series.values.size else 0
