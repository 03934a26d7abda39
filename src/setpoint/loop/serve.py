"""``setpoint serve``: a requirement or a model becomes a server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from setpoint.engine.embedded import embedded_engine
from setpoint.engine.models import resolve_model
from setpoint.engine.threaded import STEP_LIMIT_S
from setpoint.loop.adapt.rails import largest_shapes
from setpoint.loop.configs import changed, default_config
from setpoint.loop.console import say
from setpoint.loop.errors import BadInput
from setpoint.loop.open_files import with_room_for_files
from setpoint.loop.serve_flags import AdaptFlags
from setpoint.loop.subject import is_requirement
from setpoint.policy.configuration import ServingConfig
from setpoint.policy.views import RequestLimits
from setpoint.requirement import LatencyMetric, ModelSource, Requirement, Slos, load_requirement
from setpoint.server.app import create_app
from setpoint.server.limits import ServerLimits
from setpoint.server.live.checks import LatencyCheck, Objectives, SpreadCheck
from setpoint.server.serve import DEFAULT_DRAIN_S, run_server

MAX_TEMPLATE_BYTES: Final = 1 << 20
NOT_ADAPTING: Final = AdaptFlags()


def request_limits(slos: Slos) -> RequestLimits:
    """The SLO of one request that follows from the requirement: the tightest limit of each metric."""
    return RequestLimits(
        ttft_s=slos.limit_s(LatencyMetric.TTFT),
        itl_s=slos.limit_s(LatencyMetric.ITL),
        tpot_s=slos.limit_s(LatencyMetric.TPOT),
        e2e_s=slos.limit_s(LatencyMetric.E2E),
    )


def objectives(requirement: Requirement) -> Objectives:
    """What the server's live view is held against: the limits under the load that lasts."""
    slos = requirement.slo
    return Objectives(
        name=requirement.name,
        latency=tuple(LatencyCheck(str(each.metric), each.percentile, each.limit_s) for each in slos.latency),
        spread=tuple(SpreadCheck(str(each.metric), each.limit) for each in slos.spread),
        goodput_fraction_min=slos.goodput_fraction_min,
        shed_fraction_max=slos.shed_fraction_max,
    )


def check_held(subject: str, requirement: Requirement | None) -> None:
    """Raise ``BadInput`` where no request can miss a limit: adapting goes by the share of those that meet theirs."""
    if requirement is None:
        raise BadInput(f"--adapt: found the model {subject}, which says nothing of limits; give a requirement file")
    if request_limits(requirement.slo) == RequestLimits():
        raise BadInput(
            f"--adapt: slo of {requirement.name} limits none of ttft, itl, tpot and e2e, so no request could be late; add a"
            " limit, such as slo: {e2e: {p95: 60s}}, or leave --adapt out and let setpoint tune choose for"
            f" {requirement.objective}"
        )


def read_subject(subject: str) -> tuple[ModelSource, Requirement | None]:
    """What ``serve`` was given: a requirement file, or a model. Raises ``RequirementError``."""
    if is_requirement(subject):
        requirement = load_requirement(Path(subject))
        return requirement.model, requirement
    if not subject:
        raise BadInput("found no model: give a requirement file, a GGUF file, an OpenVINO folder or owner/name on the hub")
    return ModelSource(source=subject), None


def read_chat_template(file: Path) -> str:
    """The text of a chat template. Raises ``BadInput``."""
    try:
        with file.open("rb") as stream:
            raw = stream.read(MAX_TEMPLATE_BYTES + 1)
        text = raw.decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"--chat-template: {file} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if len(raw) > MAX_TEMPLATE_BYTES or not text.strip():
        raise BadInput(f"--chat-template: {file} is empty or too large, give a template of 1 to {MAX_TEMPLATE_BYTES} bytes")
    return text


def serve(
    subject: str,
    config: ServingConfig | None,
    *,
    changes: Mapping[str, Any] | None = None,
    host: str,
    port: int,
    served_name: str | None = None,
    max_model_len: int | None = None,
    api_keys: Sequence[str] = (),
    trust_fairness_id: bool = False,
    chat_template: Path | None = None,
    server_limits: ServerLimits | None = None,
    step_limit_s: float = STEP_LIMIT_S,
    drain_s: float = DEFAULT_DRAIN_S,
    adapting: AdaptFlags = NOT_ADAPTING,
) -> int:
    """Serve until a signal; gives the exit code.

    config: ``None`` takes the default for the requirement, or for a model alone; ``changes`` are put into it.
    trust_fairness_id: as for ``create_app``. chat_template: a file with a Jinja template to use in place of the model's own.
    adapting: whether the server changes its own configuration.

    Raises ``BadInput``, ``RequirementError`` or ``EngineFailed`` for a user's mistake.
    """
    source, requirement = read_subject(subject)
    if config is None:
        config = ServingConfig() if requirement is None else default_config(requirement)
    config = changed(config, changes or {})
    rails = adapting.rails()
    if rails is not None:
        check_held(subject, requirement)
    template = None if chat_template is None else read_chat_template(chat_template)
    model = resolve_model(source.source, revision=source.revision, say=say)
    if max_model_len is not None and max_model_len > model.context_tokens:
        say(f"--max-model-len {max_model_len}: this model takes at most {model.context_tokens} tokens")
    say(f"loading {model.name}")
    name = served_name or source.served_name
    engine = embedded_engine(
        model,
        config,
        served_name=name,
        max_model_len=max_model_len,
        chat_template=template,
        step_limit_s=step_limit_s,
        warm_for=None if rails is None else largest_shapes(config, rails),
    )
    companion = None
    if rails is not None and requirement is not None:
        from setpoint.loop.adapt.making import make_adapter  # simulates: much to load for a server that does not

        companion = make_adapter(engine, requirement, rails, log=adapting.adapt_log, dry_run=adapting.adapt_dry_run)
    limits = None if requirement is None else request_limits(requirement.slo)
    app = create_app(
        engine,
        api_keys=api_keys,
        trust_fairness_id=trust_fairness_id,
        default_limits=limits,
        server_limits=with_room_for_files(server_limits or ServerLimits()),
        objectives=None if requirement is None else objectives(requirement),
        about={"model": model.name, "max_model_len": engine.max_model_len, **config.model_dump(mode="json")},
        companion=companion,
    )
    return run_server(app, host, port, drain_s=drain_s)
