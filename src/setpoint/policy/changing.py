"""One engine under changing configurations: who decides may change between two steps, what was learned may not be lost.

The step-time model is shared by all. A ``setpoint`` policy is resized, not replaced, and put aside while another mode decides,
so its lengths, margins, promises and tenants' counters are there when it comes back; the same holds for the controller of
drafts. When it is wrong: while another mode decides, a policy that was put aside learns nothing but the machine's step times.
"""

from __future__ import annotations

from setpoint.policy.configuration import BatchingMode, ServingConfig, SpeculationMode
from setpoint.policy.decisions import Policy
from setpoint.policy.modes import build_policy
from setpoint.policy.setpoint import SetpointPolicy
from setpoint.policy.speculating import DraftChooser, FixedDrafts, SpeculatingPolicy
from setpoint.policy.step_time import StepTimeModel

LIVE_FIELDS = frozenset(
    {
        "mode",
        "max_running",
        "token_budget",
        "batch_wait_s",
        "max_waiting",
        "prefill_floor_tokens",
        "speculation",
        "max_draft_tokens",
        "draft_tokens",
    }
)
"""What may change between two steps; the others are fixed when model and cache are loaded."""


def needs_restart(started: ServingConfig, wanted: ServingConfig) -> tuple[str, ...]:
    """Fields of ``wanted`` that a server started with ``started`` cannot take on, in the order of the configuration.

    A drafter is loaded at the start or not at all, for drafts up to a length: drafting can be turned off and on again.
    """
    fixed = [
        name
        for name in ServingConfig.model_fields
        if name not in LIVE_FIELDS and getattr(started, name) != getattr(wanted, name)
    ]
    if wanted.speculation not in (SpeculationMode.OFF, started.speculation):
        fixed.append("speculation")
    if wanted.speculation is not SpeculationMode.OFF and wanted.longest_draft_tokens > started.longest_draft_tokens:
        fixed.append("max_draft_tokens")
    return tuple(fixed)


class ChangingPolicy:
    """Makes the policy of the present configuration, and that of the next one out of it. ``config``: the present one."""

    def __init__(self, config: ServingConfig, model: StepTimeModel) -> None:
        self.config = config
        self._model = model
        self._chooser: DraftChooser | None = None
        self._setpoint: SetpointPolicy | None = None
        self.policy = self._keep(build_policy(config, model))

    @property
    def drafting_s(self) -> tuple[float, ...] | None:
        """Seconds that a round of drafting takes, a token drafted and a token read; ``None`` while that cannot be told."""
        chooser = self.policy.chooser if isinstance(self.policy, SpeculatingPolicy) else self._chooser
        return None if chooser is None else chooser.drafting.told_s

    def change(self, config: ServingConfig) -> Policy:
        """The policy for ``config``, to decide from now on. Only ``LIVE_FIELDS`` may differ (``needs_restart``)."""
        batching = self._setpoint if config.mode is BatchingMode.SETPOINT else None
        if batching is not None:
            batching.resize(
                max_running=config.max_running,
                token_budget=config.token_budget,
                prefill_floor_tokens=config.prefill_floor_tokens,
                max_waiting=config.max_waiting,
            )
        inner: Policy = batching or build_policy(config.model_copy(update={"speculation": SpeculationMode.OFF}), self._model)
        self.config = config
        self.policy = self._keep(self._with_drafts(inner, config))
        return self.policy

    def _with_drafts(self, inner: Policy, config: ServingConfig) -> Policy:
        if config.speculation is SpeculationMode.OFF:
            return inner
        if config.draft_tokens is not None:
            return SpeculatingPolicy(inner, FixedDrafts(config.draft_tokens), token_budget=config.token_budget)
        if self._chooser is None:
            fresh = build_policy(config, self._model)
            assert isinstance(fresh, SpeculatingPolicy)
            self._chooser = fresh.chooser
        return SpeculatingPolicy(inner, self._chooser, token_budget=config.token_budget)

    def _keep(self, policy: Policy) -> Policy:
        """Remember the parts that learn."""
        inner = policy
        if isinstance(policy, SpeculatingPolicy):
            inner = policy.inner
            if not isinstance(policy.chooser, FixedDrafts):
                self._chooser = policy.chooser
        if isinstance(inner, SetpointPolicy):
            self._setpoint = inner
        return policy
