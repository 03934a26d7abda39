"""``setpoint serve``: a requirement or a model becomes a server."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from setpoint.engine.embedded import embedded_engine
from setpoint.engine.models import resolve_model
from setpoint.loop.console import say
from setpoint.policy.configuration import ServingConfig
from setpoint.policy.views import RequestLimits
from setpoint.requirement import LatencyMetric, ModelSource, Requirement, Slos, load_requirement
from setpoint.server.app import create_app
from setpoint.server.serve import DEFAULT_DRAIN_S, run_server

REQUIREMENT_SUFFIXES = (".yaml", ".yml")


def request_limits(slos: Slos) -> RequestLimits:
    """The SLO of one request that follows from the requirement: the tightest limit of each metric."""
    return RequestLimits(
        ttft_s=slos.limit_s(LatencyMetric.TTFT),
        itl_s=slos.limit_s(LatencyMetric.ITL),
        tpot_s=slos.limit_s(LatencyMetric.TPOT),
        e2e_s=slos.limit_s(LatencyMetric.E2E),
    )


def read_subject(subject: str) -> tuple[ModelSource, Requirement | None]:
    """What ``serve`` was given: a requirement file, or a model. Raises ``RequirementError``."""
    if subject.lower().endswith(REQUIREMENT_SUFFIXES):
        requirement = load_requirement(Path(subject))
        return requirement.model, requirement
    return ModelSource(source=subject), None


def serve(
    subject: str,
    config: ServingConfig,
    *,
    host: str,
    port: int,
    served_name: str | None = None,
    max_model_len: int | None = None,
    api_keys: Sequence[str] = (),
    drain_s: float = DEFAULT_DRAIN_S,
) -> int:
    """Serve until a signal; gives the exit code. Raises ``RequirementError`` or ``EngineFailed`` for a user's mistake."""
    source, requirement = read_subject(subject)
    model = resolve_model(source.source, revision=source.revision, say=say)
    name = served_name or source.served_name
    engine = embedded_engine(model, config, served_name=name, max_model_len=max_model_len)
    limits = None if requirement is None else request_limits(requirement.slo)
    app = create_app(engine, api_keys=api_keys, default_limits=limits)
    return run_server(app, host, port, drain_s=drain_s)
