"""What is known of this machine: how long its steps take, where that comes from, and how far off it may be.

Three sources, the best last: physics or a kept calibration (``hardware/``), and measured runs (``simulate/calibrated.py``). An
error that all steps of a run share is what a forecast is unsure by: errors of single steps are in the noise. From runs it is
the deviation between the runs' speeds, and between parts of ``WINDOW_S`` of each (a neighbour that takes a core for
seconds), at least ``LEAST_ERROR``. Of several runs the steps of all say what a shape costs, and the last how fast it is now.

When it is wrong: a machine whose speed drifts over hours drifts further than its minutes did.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from setpoint.policy.configuration import BatchingMode, ServingConfig
from setpoint.policy.decisions import StepWork
from setpoint.policy.views import FloatColumn
from setpoint.requirement import Requirement
from setpoint.simulate.calibrated import calibrate, learned_model
from setpoint.simulate.drafter import Drafting
from setpoint.simulate.run import SimulatedSystem
from setpoint.simulate.timing import Noise, Overheads, StepTimer

if TYPE_CHECKING:
    import pyarrow as pa

Source = Literal["measured", "transferred", "physics"]

BLOCK_TOKENS = 32
LEAST_ERROR = 0.05
UNSEEN_ERROR = 0.15
"""Relative error of steps of more requests than any that was measured."""

ONE_RUN_ERROR = 0.08
"""How far another run may differ in speed where only one was measured."""

WINDOW_S = 8.0
LEAST_WINDOW_STEPS = 30
BETWEEN_RUNS_S = 60.0
UNSEEN_FROM = 1.25
MOST_LEARNED = 2000


@dataclass(frozen=True, slots=True)
class StretchedTimer:
    """A timer whose every step takes ``stretch`` times as long."""

    base: StepTimer
    stretch: float

    @property
    def source(self) -> str:
        """See ``StepTimer``."""
        return self.base.source

    @property
    def relative_error(self) -> float:
        """See ``StepTimer``."""
        return self.base.relative_error

    @property
    def guess(self) -> bool:
        """See ``StepTimer``."""
        return self.base.guess

    def affine(self, tokens: int, sequences: int) -> tuple[float, float, float]:
        """See ``StepTimer``."""
        base_s, read_s, product_s = self.base.affine(tokens, sequences)
        return self.stretch * base_s, self.stretch * read_s, self.stretch * product_s


@dataclass(frozen=True, slots=True, eq=False)
class KnownMachine:
    """What forecasts are made from.

    error: one standard deviation of ln(true / predicted) of a factor that all steps share. words: where it comes from, for
    people. coefficients: of the step time by name, seconds a unit, where it is a line. most_sequences: most requests in a
    measured step (``None``: nothing was measured). works, seconds: the last measured steps, from which a policy that decides by
    predicted steps has learned what an engine that made them has; without them it knows ``timer`` as it is.
    """

    timer: StepTimer
    source: Source
    error: float
    words: str
    overheads: Overheads = field(default_factory=Overheads)
    noise: Noise = field(default_factory=Noise)
    coefficients: dict[str, float] = field(default_factory=dict)
    most_sequences: int | None = None
    works: tuple[StepWork, ...] = ()
    seconds: FloatColumn = field(default_factory=lambda: np.zeros(0))

    def system(self, config: ServingConfig, stretch: float = 1.0, drafting: Drafting | None = None) -> SimulatedSystem:
        """The embedded engine under ``config``, all its time ``stretch`` times as long. drafting: what guesses, if anything."""
        changed = {name: getattr(self.overheads, name) * stretch for name in Overheads.__dataclass_fields__}
        learns = bool(self.works) and config.mode is BatchingMode.SETPOINT
        return SimulatedSystem(
            timer=StretchedTimer(self.timer, stretch) if stretch != 1.0 else self.timer,
            kv_blocks=max(1, config.kv_cache_tokens // BLOCK_TOKENS),
            block_tokens=BLOCK_TOKENS,
            configuration=config,
            overheads=Overheads(**changed),
            noise=self.noise,
            model=partial(learned_model, self.works, stretch * self.seconds) if learns else None,
            drafting=drafting,
        )

    def error_for(self, sequences: int) -> float:
        """The error where steps have up to ``sequences`` requests."""
        unseen = self.most_sequences is not None and sequences > UNSEEN_FROM * self.most_sequences
        return float(np.hypot(self.error, UNSEEN_ERROR)) if unseen else self.error

    def widened(self, error: float) -> KnownMachine:
        """The same with an error of at least ``error``."""
        return replace(self, error=max(self.error, error))

    def times(self, factor: float) -> KnownMachine:
        """The same with every coefficient and overhead times ``factor``: for tests of what a wrong start does."""
        scaled = self.system(ServingConfig(), factor)
        return replace(
            self,
            timer=scaled.timer,
            overheads=scaled.overheads,
            coefficients={name: value * factor for name, value in self.coefficients.items()},
            seconds=self.seconds * factor,
        )


@dataclass(frozen=True, slots=True)
class MeasuredTables:
    """One measured run of the embedded engine, as ``record.columns`` has its tables."""

    requests: pa.Table
    steps: pa.Table
    decisions: pa.Table | None = None


def machine_of_hardware(requirement: Requirement) -> KnownMachine:
    """From the catalogue's view of this machine: a kept calibration of the model, else physics. No overheads, no noise.

    Raises ``HardwareError`` if the model is unknown or a kept calibration cannot be read.
    """
    from setpoint.hardware.accelerator import THIS_MACHINE, accelerator
    from setpoint.hardware.deployment import Deployment
    from setpoint.hardware.model_facts import model_facts
    from setpoint.hardware.step_time import step_timer

    model = model_facts(requirement.model.source)
    timer = step_timer(Deployment(model, accelerator(THIS_MACHINE), 1, "setpoint", model.native_precision))
    source = _source(timer.source)
    words = {
        "measured": "a calibration of this model on this machine that was kept",
        "transferred": "a calibration of another model on this machine",
        "physics": "physics: bytes and operations over this machine's bandwidth and speed",
    }[source]
    return machine_of_timer(timer, words, timer.relative_error)


def machine_of_timer(timer: StepTimer, words: str, error: float) -> KnownMachine:
    """From a timer alone. ``error`` is at least ``LEAST_ERROR``."""
    return KnownMachine(timer, _source(timer.source), max(error, LEAST_ERROR), words, coefficients=_line_of(timer))


def machine_of_runs(runs: Sequence[MeasuredTables]) -> KnownMachine:
    """The machine that ``runs``, in order of time, were measured on, as fast as it was in the last of them.

    Raises ``TooFewSteps``, and ``ValueError`` without a run.
    """
    if not runs:
        raise ValueError("a machine cannot be learned from no run")
    joined = runs[0] if len(runs) == 1 else _end_to_end(runs)
    found = calibrate(joined.steps, joined.requests, joined.decisions)
    names = ("base_s", "token_s", "sequence_s", "kv_token_s", "product_s")
    speeds, error = _speeds(runs, found.timer, found.overheads.change_s)
    known = KnownMachine(
        timer=found.timer,
        source="measured",
        error=error,
        words=f"{joined.steps.num_rows} steps of {len(runs)} measured run{'s' if len(runs) > 1 else ''}",
        overheads=found.overheads,
        noise=found.noise,
        coefficients=dict(zip(names, found.timer.coefficients, strict=True)),
        most_sequences=int(np.asarray(joined.steps["sequences"]).max()),
        works=found.works[-MOST_LEARNED:],
        seconds=found.seconds[-MOST_LEARNED:],
    )
    return known if len(runs) == 1 else known.times(float(np.exp(speeds[-1] - np.mean(speeds))))


def step_ratios(steps: pa.Table, timer: StepTimer, change_s: float = 0.0) -> Any:
    """Measured over predicted seconds of each step, float64 of shape (steps,)."""
    names = ("prefill_tokens", "decode_tokens", "sequences", "kv_tokens_read", "attention_products", "start_s", "end_s")
    prefill, decode, sequences, read, products, start_s, end_s = (np.asarray(steps[name], dtype=np.float64) for name in names)
    tokens = prefill + decode
    shapes, place = np.unique(np.stack((tokens, sequences), axis=1), axis=0, return_inverse=True)
    lines = np.array([timer.affine(int(count), int(several)) for count, several in shapes])[place.ravel()]
    changed = np.concatenate(([True], tokens[1:] != tokens[:-1]))
    predicted_s = lines[:, 0] + lines[:, 1] * read + lines[:, 2] * products + change_s * changed
    return (end_s - start_s) / np.maximum(predicted_s, 1e-9)


def _speeds(runs: Sequence[MeasuredTables], timer: StepTimer, change_s: float) -> tuple[list[float], float]:
    """Logarithm of how slow each run was against ``timer``, and the error that follows (see the module).

    Steps count by their time: a slow second has fewer of them.
    """
    windows: list[float] = []
    speeds: list[float] = []
    for run in runs:
        ratios = step_ratios(run.steps, timer, change_s)
        start_s, end_s = (np.asarray(run.steps[name], dtype=np.float64) for name in ("start_s", "end_s"))
        took_s = end_s - start_s
        predicted_s = took_s / ratios
        places = ((start_s - start_s[0]) / WINDOW_S).astype(np.int64)
        speeds.append(float(np.log(took_s.sum() / predicted_s.sum())))
        windows += [
            float(np.log(took_s[here].sum() / predicted_s[here].sum())) - speeds[-1]
            for place in np.unique(places)
            if (here := places == place).sum() >= LEAST_WINDOW_STEPS
        ]
    between = float(np.std(speeds, ddof=1)) if len(speeds) > 1 else ONE_RUN_ERROR
    within = float(np.std(windows)) if windows else 0.0
    return speeds, max(LEAST_ERROR, float(np.hypot(between, within)))


def _end_to_end(runs: Sequence[MeasuredTables]) -> MeasuredTables:
    """Several runs as one after the other on one axis of time, a while apart."""
    import pyarrow as pa
    import pyarrow.compute as pc

    offset_s, parts = 0.0, []
    moments = ("intended_s", "first_token_s", "ended_s")
    for number, run in enumerate(runs):
        shift = pa.scalar(offset_s, pa.float64())
        prefix = pa.scalar(f"{number}:")
        steps = _shifted(run.steps, ("start_s", "end_s"), shift)
        requests = _named(_shifted(run.requests, moments, shift), prefix)
        decisions = None if run.decisions is None else _named(_shifted(run.decisions, ("time_s",), shift), prefix)
        parts.append((requests, steps, decisions))
        offset_s += float(pc.max(run.steps["end_s"]).as_py()) + BETWEEN_RUNS_S
    requests, steps, decisions = zip(*parts, strict=True)
    known = [each for each in decisions if each is not None]
    return MeasuredTables(
        pa.concat_tables(requests), pa.concat_tables(steps), pa.concat_tables(known) if len(known) == len(runs) else None
    )


def _shifted(table: pa.Table, names: tuple[str, ...], shift: pa.Scalar) -> pa.Table:
    import pyarrow.compute as pc

    for name in names:
        table = table.set_column(table.column_names.index(name), name, pc.add(table[name], shift))
    return table


def _named(table: pa.Table, prefix: pa.Scalar) -> pa.Table:
    import pyarrow.compute as pc

    names = pc.binary_join_element_wise(prefix, table["request_id"], "")
    return table.set_column(table.column_names.index("request_id"), "request_id", names)


def _line_of(timer: StepTimer) -> dict[str, float]:
    """The timer as a line about a step of 8 decodes: exact where it is one."""
    base_s, read_s, product_s = timer.affine(1, 1)
    token_s = (timer.affine(256, 1)[0] - base_s) / 255
    sequence_s = (timer.affine(8, 8)[0] - timer.affine(8, 1)[0]) / 7
    return {
        "base_s": base_s - token_s - sequence_s,
        "token_s": token_s,
        "sequence_s": sequence_s,
        "kv_token_s": read_s,
        "product_s": product_s,
    }


def _source(name: str) -> Source:
    found: dict[str, Source] = {"measured": "measured", "transferred": "transferred"}
    return found.get(name, "physics")
