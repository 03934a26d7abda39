"""What every export says: the model, the replica, the numbers of its scheduler, and the requirement's id."""

from __future__ import annotations

from dataclasses import dataclass

from setpoint.plan.topology import Scheduler, Topology
from setpoint.policy.configuration import BatchingMode, SpeculationMode

MEMORY_SHARE = 0.9
"""Share of the memory that an engine may use, as the plan assumed (vLLM's own default)."""

QUANTISED_ON_LOAD = {"fp8": "fp8"}
"""Weight precisions that vLLM and SGLang make from a 16-bit checkpoint by a flag; others need a checkpoint of that kind."""

WIDE = ("bf16", "fp16", "f32")
"""Precisions of a checkpoint that is not quantised."""

KV_TYPES = {"fp8": "fp8"}


@dataclass(frozen=True, slots=True)
class Deployable:
    """A topology with what an export needs besides.

    model: what a server is told to load. native_precision: that of the checkpoint. max_model_tokens: longest request that is
    taken, prompt and answer. requirement_id: carried by every export.
    """

    topology: Topology
    model: str
    served_name: str
    native_precision: str
    max_model_tokens: int
    requirement_id: str

    @property
    def quantises(self) -> bool:
        """Whether the engine is to quantise the weights as it loads them: only a checkpoint that is not quantised yet."""
        precision = self.topology.pool.shape.deployment.weight_precision
        return precision in QUANTISED_ON_LOAD and self.native_precision in WIDE

    def notes(self) -> list[str]:
        """What an export cannot do by itself, one sentence each."""
        pool = self.topology.pool
        deployment, config = pool.shape.deployment, pool.serving.config
        found: list[str] = []
        if pool.replicas > 1:
            found.append(f"Run {pool.replicas} of these behind a router that spreads requests evenly.")
        if pool.serving.scheduler is Scheduler.SETPOINT and config.mode is BatchingMode.SETPOINT:
            found.append(
                "The plan has setpoint's deadlines decide admission, order and chunk size; this command runs the engine's own "
                "scheduler with the same numbers, whose figures the plan lists as vllm-*."
            )
        elif pool.serving.scheduler is Scheduler.SETPOINT and config.mode is BatchingMode.STATIC:
            found.append("The plan fills whole batches (static); this engine lets requests join at every step.")
        if "/" not in self.model:
            found.append(
                f"{self.model} is a name of setpoint's catalogue: put the checkpoint's repository or folder in its place."
            )
        draft = config.draft_model
        if draft is not None and "/" not in draft:
            found.append(f"{draft} guesses, and is a name of setpoint's catalogue: put its repository or folder in its place.")
        if config.speculation is not SpeculationMode.OFF and config.draft_tokens is None:
            found.append("setpoint decides in every step how far to guess; this command always guesses as many tokens.")
        guessing = pool.serving.guesses.draft if pool.serving.guesses is not None else None
        if guessing is not None and guessing.tensor_parallel != deployment.tensor_parallel:
            found.append(
                f"{guessing.model.name} cannot be dealt out to {deployment.tensor_parallel} devices and is planned whole on "
                "each: an engine that cannot do that needs another draft model."
            )
        precision = deployment.weight_precision
        if precision != self.native_precision and not self.quantises:
            found.append(f"The weights are planned in {precision}: name a checkpoint in that precision.")
        if deployment.kv_precision not in (*KV_TYPES, *WIDE):
            found.append(f"The cache is planned in {deployment.kv_precision}, for which there is no flag here: set it by hand.")
        return found
