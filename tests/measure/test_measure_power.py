"""Pages of power exporters, as they write them, and the energy that follows from a series of them."""

from __future__ import annotations

import pytest

from setpoint.measure.power import PowerReading, PowerSide, PowerSource, read_power

DCGM_PAGE = """\
# HELP DCGM_FI_DEV_SM_CLOCK SM clock frequency (in MHz).
# TYPE DCGM_FI_DEV_SM_CLOCK gauge
DCGM_FI_DEV_SM_CLOCK{gpu="0",UUID="GPU-a",device="nvidia0",modelName="NVIDIA L40S",Hostname="node-1"} 2520
# HELP DCGM_FI_DEV_POWER_USAGE Power draw (in W).
# TYPE DCGM_FI_DEV_POWER_USAGE gauge
DCGM_FI_DEV_POWER_USAGE{gpu="0",UUID="GPU-a",device="nvidia0",modelName="NVIDIA L40S",Hostname="node-1"} 310.500000
DCGM_FI_DEV_POWER_USAGE{gpu="1",UUID="GPU-b",device="nvidia1",modelName="NVIDIA L40S",Hostname="node-1"} 35.250000
# TYPE DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION counter
DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION{gpu="0",UUID="GPU-a",device="nvidia0",Hostname="node-1"} 5551899580
"""

# Slices of one GPU, and pods that share one, each tell the power of the whole GPU.
MIG_PAGE = """\
DCGM_FI_DEV_POWER_USAGE{gpu="0",UUID="GPU-a",GPU_I_PROFILE="2g.20gb",GPU_I_ID="3",Hostname="n",pod="x"} 250
DCGM_FI_DEV_POWER_USAGE{gpu="0",UUID="GPU-a",GPU_I_PROFILE="2g.20gb",GPU_I_ID="5",Hostname="n",pod="y"} 250
DCGM_FI_DEV_POWER_USAGE{gpu="1",UUID="GPU-b",Hostname="n"} 100
"""

AMD_PAGE = """\
# HELP amd_gpu_package_power Current Package Power in Watts
# TYPE amd_gpu_package_power gauge
amd_gpu_package_power{card_model="MI300X",gpu_id="0",gpu_partition_id="0",hostname="n",serial_number="1"} 540
amd_gpu_package_power{card_model="MI300X",gpu_id="1",gpu_partition_id="1",hostname="n",serial_number="1"} 0
amd_gpu_package_power{card_model="MI300X",gpu_id="8",gpu_partition_id="0",hostname="n",serial_number="2"} 160
amd_gpu_average_package_power{card_model="MI300X",gpu_id="0",gpu_partition_id="0",hostname="n",serial_number="1"} 0
"""

NVIDIA_SMI_PAGE = """\
nvidia_smi_power_default_limit_watts{uuid="u1"} 250
nvidia_smi_power_draw_watts{uuid="u1"} 65.25
nvidia_smi_power_draw_watts{uuid="u2"} NaN
"""

MILLIWATT_PAGE = """\
nvidia_gpu_power_usage_milliwatts{minor_number="0",name="Tesla T4",uuid="GPU-a"} 27500
"""


@pytest.mark.parametrize(
    ("page", "gpus", "reading"),
    [
        (DCGM_PAGE, (), PowerReading(345.75, 2, "NVIDIA DCGM exporter")),
        (DCGM_PAGE, ("1",), PowerReading(35.25, 1, "NVIDIA DCGM exporter")),
        (MIG_PAGE, (), PowerReading(350.0, 2, "NVIDIA DCGM exporter")),
        (AMD_PAGE, (), PowerReading(700.0, 2, "AMD device metrics exporter")),
        (AMD_PAGE.replace("amd_gpu", "gpu"), ("8",), PowerReading(160.0, 1, "AMD device metrics exporter")),
        (NVIDIA_SMI_PAGE, (), PowerReading(65.25, 1, "nvidia_gpu_exporter")),
        (MILLIWATT_PAGE, (), PowerReading(27.5, 1, "nvidia_gpu_prometheus_exporter")),
    ],
)
def test_pages_of_known_exporters(page: str, gpus: tuple[str, ...], reading: PowerReading) -> None:
    assert read_power(page, gpus) == reading


@pytest.mark.parametrize(("page", "gpus"), [("", ()), ("node_power_watts 5\n", ()), (DCGM_PAGE, ("7",))])
def test_page_without_a_power_figure(page: str, gpus: tuple[str, ...]) -> None:
    assert read_power(page, gpus) is None


def test_line_that_is_not_prometheus_text_is_an_error() -> None:
    with pytest.raises(ValueError, match=r".+"):
        read_power('DCGM_FI_DEV_POWER_USAGE{gpu="0" 3\n')


def test_gpus_are_chosen_behind_the_url() -> None:
    assert PowerSource.parse("http://host:9400") == PowerSource("http://host:9400")
    assert PowerSource.parse("host:9400/metrics#0, 3") == PowerSource("host:9400/metrics", ("0", "3"))


def side_of(watts: list[float]) -> PowerSide:
    side = PowerSide()
    for time_s, value in enumerate(watts):
        side.add(float(time_s), PowerReading(value, 1, "an exporter"))
    return side


def test_energy_is_the_area_under_the_power() -> None:
    figures = side_of([100.0, 100.0, 200.0, 300.0, 100.0]).phase(1.0, 4.0)
    assert figures["power_peak_w"] == 300.0
    assert figures["power_mean_w"] == pytest.approx((150 + 250) / 2)
    assert figures["energy_j"] == pytest.approx(150 + 250 + 200)


def test_exporter_that_stands_still_gives_no_energy() -> None:
    figures = side_of([100.0, 100.0, 100.0, 120.0, 120.0]).phase(0.0, 5.0)
    assert figures["energy_j"] is None
    assert figures["power_mean_w"] is not None


def test_phase_without_a_reading() -> None:
    assert side_of([1.0, 2.0]).phase(10.0, 20.0) == {"power_mean_w": None, "power_peak_w": None, "energy_j": None}
