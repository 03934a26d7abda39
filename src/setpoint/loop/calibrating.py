"""``setpoint hardware calibrate``: what was measured, from where, into a calibration of the user's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from math import exp, log
from pathlib import Path
from statistics import median
from typing import Any

from setpoint.hardware.accelerator import THIS_MACHINE, accelerator
from setpoint.hardware.calibrations import MEASURED, SCHEMA, effects_calibration, errors_of, save
from setpoint.hardware.deployment import Deployment
from setpoint.hardware.errors import HardwareError
from setpoint.hardware.model_facts import model_facts
from setpoint.hardware.provenance import Provenance, here, installed_engine
from setpoint.hardware.step_fit import fit_steps
from setpoint.hardware.step_time import physical_timer, step_s
from setpoint.policy.decisions import StepWork
from setpoint.report.files import Run, read_run

DEMO_MODEL = "smollm2-135m"
MOST_STEPS = 20_000
LEAST_ROWS = 8


@dataclass(frozen=True, slots=True)
class Calibrated:
    """The calibration, and what to say of it."""

    document: dict[str, Any]
    words: str


def calibrated(source: Path | None, *, model: str | None, hardware: str, cuda: bool) -> Calibrated:
    """Measure or read, fit, and keep. Raises ``HardwareError``, ``RunFolderError``, ``EngineFailed`` and ``OSError``."""
    if cuda:
        from setpoint.hardware.calibrate_cuda import calibrate_cuda

        document = calibrate_cuda()
        return _kept(f"{document['name']}", document, "measured with PyTorch")
    if source is None:
        return _from_machine(model or DEMO_MODEL)
    if source.suffix.lower() == ".csv":
        return _from_table(source)
    return _from_run(source, model, hardware)


def _from_run(folder: Path, model: str | None, hardware: str) -> Calibrated:
    run = read_run(folder)
    if run.steps is None or run.steps.num_rows == 0:
        raise HardwareError(f"{folder}: has no steps.parquet; only runs of setpoint's own engine do, see 'setpoint tune'")
    requirement = run.report.requirement
    named = model or (requirement or {}).get("model", {}).get("source")
    if not named:
        raise HardwareError(f"{folder}: does not say which model ran; name it with --model")
    from setpoint.loop.store.calibration import keep_evidence, provenance_of, threads_words

    bound = threads_words(run)
    if bound is not None:
        raise HardwareError(f"{folder}: {bound}; measure once without threads, see 'setpoint hardware calibrate'")
    origin = provenance_of(folder, run, str(named))
    if hardware == THIS_MACHINE and origin.machine != here():
        raise HardwareError(f"{folder}: was measured on another machine ({origin.machine}); name that one with --hardware")
    document = steps_document(run, str(named), hardware, origin)
    if hardware == THIS_MACHINE:
        keep_evidence(str(document["name"]), run)
    return _kept_steps(document)


def steps_document(run: Run, model: str, hardware: str, origin: Provenance) -> dict[str, Any]:
    """The calibration that the steps of ``run`` make, not yet kept. Raises ``HardwareError``."""
    assert run.steps is not None
    columns = run.steps.select(
        ["prefill_tokens", "decode_tokens", "sequences", "kv_tokens_read", "attention_products", "start_s", "end_s"]
    ).to_pydict()
    works, seconds = [], []
    for prefill, decode, sequences, kv, products, start_s, end_s in zip(*columns.values(), strict=True):
        works.append(StepWork(prefill + decode, sequences, kv, products))
        seconds.append(end_s - start_s)
    note = f"{len(works)} steps of the run {Path(origin.folder).name}"
    return _document(works, seconds, model, hardware, note) | {"provenance": origin.as_dict()}


def _from_machine(model: str) -> Calibrated:
    from setpoint.loop.machine_steps import machine_steps

    works, seconds = machine_steps(model)
    return _from_steps(works, seconds, model, THIS_MACHINE, f"{len(works)} steps measured on purpose")


def _from_steps(works: Sequence[StepWork], seconds: Sequence[float], model: str, hardware: str, note: str) -> Calibrated:
    from setpoint.loop.store.calibration import model_hash

    document = _document(works, seconds, model, hardware, note)
    if hardware == THIS_MACHINE:
        measured = datetime.now(UTC).isoformat(timespec="seconds")
        origin = Provenance("", "", measured, here(), installed_engine(), model, model_hash(model), len(works))
        document["provenance"] = origin.as_dict()
    return _kept_steps(document)


def _document(works: Sequence[StepWork], seconds: Sequence[float], model: str, hardware: str, note: str) -> dict[str, Any]:
    facts, device = model_facts(model), accelerator(hardware)
    # Of a run of several configurations, all in proportion.
    every = -(-len(works) // MOST_STEPS)
    works, seconds = works[::every], seconds[::every]
    fit, error = fit_steps(works, seconds)
    deployment = Deployment(facts, device, 1, "setpoint", facts.native_precision)
    physical = physical_timer(deployment)
    ratios = [log(fit.seconds(work) / step_s(physical, work)) for work in works if work.tokens > 0]
    return {
        "schema": SCHEMA,
        "kind": "steps",
        "name": f"{device.name}-setpoint-{facts.shape}-{facts.native_precision}",
        "note": f"{note}, {date.today().isoformat()}",
        "accelerator": device.name,
        "engine": "setpoint",
        "model": facts.shape,
        "weight_precision": facts.native_precision,
        "fit": {**fit.as_dict(), "over_physics": exp(median(ratios))},
        "relative_error": error,
    }


def _kept_steps(document: dict[str, Any]) -> Calibrated:
    error = float(document["relative_error"])
    note = str(document["note"]).rpartition(",")[0]
    return _kept(str(document["name"]), document, f"{note}; error of steps kept aside {error:.1%} (one standard deviation)")


def _from_table(file: Path) -> Calibrated:
    from setpoint.hardware.fit_effects import MOST_ROWS, fit_effects, rows_of
    from setpoint.hardware.measurements import read_measurements

    measured = [
        (row.name, row.setting, row.ttft_s, row.tpot_s)
        for row in read_measurements(file)
        if row.setting is not None and row.ttft_s and row.tpot_s
    ]
    if not LEAST_ROWS <= len(measured) <= MOST_ROWS:
        raise HardwareError(f"{file}: {len(measured)} usable rows; a calibration takes from {LEAST_ROWS} to {MOST_ROWS}")
    names, settings, ttft_s, tpot_s = zip(*measured, strict=True)
    effects = fit_effects(rows_of(settings, ttft_s, tpot_s))
    document = {
        "schema": SCHEMA,
        "kind": "effects",
        "name": f"table-{file.stem.lower()}",
        "note": f"{len(measured)} rows of {file.name}, {date.today().isoformat()}; none kept aside: errors of the one before",
        **effects.as_document(),
        "rows": list(names),
        **errors_of(effects_calibration()),
    }
    return _kept(str(document["name"]), document, f"{len(measured)} rows; in place of the bundled calibration")


def _kept(name: str, document: dict[str, Any], what: str) -> Calibrated:
    file = save(name, document)
    return Calibrated(document, f"{MEASURED}: {what}\nwritten to {file}")
