"""What a policy knows of a simulated machine: a step-time model that was taught the machine's own times, and learns no more."""

from __future__ import annotations

from setpoint.policy.configuration import ServingConfig
from setpoint.policy.decisions import Policy, StepWork
from setpoint.policy.fifo import FirstComePolicy
from setpoint.policy.step_time import StepTimeModel
from setpoint.simulate.timing import Overheads, StepTimer

CONTEXTS = (64, 512, 2048, 8192)
LEAST_STEPS = 8


class TaughtModel(StepTimeModel):
    """Learns while it is taught. Then ``observe`` only notes the shape of the last step: the machine is as it was told."""

    def __init__(self, prior_s: tuple[float, ...]) -> None:
        super().__init__(prior_s)
        self.taught = False

    def observe(self, work: StepWork, seconds: float) -> None:
        """See ``StepTimeModel``."""
        if self.taught:
            self._last_tokens = work.tokens
        else:
            super().observe(work, seconds)


def learns_nothing(policy: Policy) -> bool:
    """Whether ``policy`` does not change by what it is told of steps: only the last of some has to be told."""
    return isinstance(policy, FirstComePolicy) and isinstance(policy.model, TaughtModel) and policy.model.taught


def taught_model(timer: StepTimer, configuration: ServingConfig, overheads: Overheads) -> TaughtModel:
    """Steps of decodes, of prompts and of both over the range of ``configuration``, each as long as ``timer`` says."""
    base_s, per_read_s, per_product_s = timer.affine(1, 1)
    base_more_s = timer.affine(configuration.token_budget, 1)[0]
    token_s = max(0.0, base_more_s - base_s) / max(1, configuration.token_budget - 1)
    model = TaughtModel((base_s, token_s, token_s, per_read_s, per_product_s))
    last = -1
    for work in _works(configuration):
        line = timer.affine(work.tokens, work.sequences)
        seconds = line[0] + line[1] * work.kv_tokens_read + line[2] * work.attention_products
        for repeated in (False, True):
            changed = not repeated and work.tokens != last
            model.observe(work, seconds + (overheads.change_s if changed else 0.0))
            last = work.tokens
    model.taught = True
    return model


def _works(configuration: ServingConfig) -> list[StepWork]:
    found = []
    counts = sorted({max(1, configuration.max_running >> shift) for shift in range(6)})
    chunks = sorted({max(2, configuration.token_budget >> shift) for shift in range(0, 8, 2)})
    for context in CONTEXTS:
        found += [StepWork(decodes, decodes, decodes * context, decodes * context) for decodes in counts]
        for chunk in chunks:
            for decodes in (0, *counts[::2]):
                read = decodes * context + chunk + context // 2
                products = decodes * context + chunk * (chunk + context // 2)
                found.append(StepWork(chunk + decodes, 1 + decodes, read, products))
    return found
