"""``setpoint serve``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from setpoint.loop.errors import BadInput
from setpoint.loop.flags import CONFIG_KINDS, option
from setpoint.loop.lifeline import end_with_stdin
from setpoint.loop.serve_flags import ADAPTING, LIMITS, SPECULATION, AdaptFlags, SafetyFlags, SpeculationFlags
from setpoint.policy.configuration import BatchingMode

LISTEN, BATCHING = "Listening", "Batching"
PANELS = (LISTEN, BATCHING, SPECULATION, ADAPTING, LIMITS)
SERVE_EXAMPLES = """Examples:

- `setpoint serve my.yaml --config runs/my` : the configuration that `tune` chose

- `setpoint serve smollm2-135m --port 8080 --mode continuous --max-running 32`

- `setpoint serve my.yaml --adapt --adapt-log adapt.jsonl` : change the configuration as the traffic changes

- `setpoint serve ./model.gguf --served-model-name my-model --api-key secret`
"""


def serve(
    subject: Annotated[str, typer.Argument(metavar="REQUIREMENT.yaml|MODEL", help="A requirement, or a model source.")],
    host: Annotated[str, option("HOST", "Address to listen on.", LISTEN)] = "127.0.0.1",
    port: Annotated[int, option("N", "Port; 0 takes a free one.", LISTEN, min=0, max=65535)] = 8000,
    served_model_name: Annotated[str | None, option("NAME", "The name clients ask for.", LISTEN)] = None,
    max_model_len: Annotated[int | None, option("N", "Most tokens of prompt and answer.", LISTEN, min=1)] = None,
    api_key: Annotated[
        list[str] | None,
        option("KEY", "A key clients must send; may be repeated.", LISTEN, envvar="SETPOINT_API_KEY"),
    ] = None,
    trust_fairness_id: Annotated[
        bool,
        option(None, "With keys: a gateway's header names the tenant.", LISTEN, name="--trust-fairness-id"),
    ] = False,
    chat_template: Annotated[Path | None, option("FILE", "A Jinja chat template in place of the model's own.", LISTEN)] = None,
    config: Annotated[
        str | None,
        option(CONFIG_KINDS, "A run folder (what it chose), a JSON file, or JSON; the options below change it.", BATCHING),
    ] = None,
    mode: Annotated[BatchingMode | None, option("MODE", "immediate, static, continuous or setpoint.", BATCHING)] = None,
    max_running: Annotated[int | None, option("N", "Most requests in a step.", BATCHING, min=1)] = None,
    token_budget: Annotated[int | None, option("N", "Most new tokens in a step.", BATCHING, min=1)] = None,
    batch_wait_s: Annotated[float | None, option("S", "Seconds 'static' waits for a full batch.", BATCHING, min=0)] = None,
    max_waiting: Annotated[int | None, option("N", "Bound of the queue.", BATCHING, min=0)] = None,
    kv_cache_tokens: Annotated[int | None, option("N", "Size of the KV cache in tokens.", BATCHING, min=64)] = None,
    threads: Annotated[int | None, option("N", "Compute threads; default: every core.", BATCHING, min=1)] = None,
    guessing: SpeculationFlags = SpeculationFlags(),  # noqa: B008 (frozen; its fields are the options)
    adapting: AdaptFlags = AdaptFlags(),  # noqa: B008 (frozen; its fields are the options)
    until_stdin_closes: Annotated[bool, typer.Option(hidden=True)] = False,
    safety: SafetyFlags = SafetyFlags(),  # noqa: B008 (frozen; its fields are the options)
) -> int:
    """An OpenAI-compatible server held at the requirement."""
    if until_stdin_closes:
        end_with_stdin()
    if any(not key.strip() for key in api_key or ()):
        raise BadInput("--api-key: found an empty key; leave the option out to serve without keys")
    from setpoint.loop.configs import read_config
    from setpoint.loop.serve import serve as run_serve

    changes = {
        "mode": mode,
        "max_running": max_running,
        "token_budget": token_budget,
        "batch_wait_s": batch_wait_s,
        "max_waiting": max_waiting,
        "kv_cache_tokens": kv_cache_tokens,
        "threads": threads,
        **guessing.changes(),
    }
    return run_serve(
        subject,
        read_config(config) if config is not None else None,
        changes=changes,
        host=host,
        port=port,
        served_name=served_model_name,
        max_model_len=max_model_len,
        api_keys=api_key or (),
        trust_fairness_id=trust_fairness_id,
        chat_template=chat_template,
        server_limits=safety.server_limits(),
        step_limit_s=safety.step_limit_s,
        drain_s=safety.drain_s,
        adapting=adapting,
    )
