"""Puts the embedded engine together: model, tokenizer, executor, policy, step loop, thread."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

from setpoint.engine.models import ResolvedModel
from setpoint.engine.openvino.executor import ExecutorOptions, OpenVinoExecutor
from setpoint.engine.reconfiguring import Built, ReconfigurableEngine
from setpoint.engine.restarts import RestartLimits
from setpoint.engine.speculation.building import WithDrafter, build_speculator
from setpoint.engine.speculation.draft_model import DraftModel
from setpoint.engine.speculation.draft_source import draft_source
from setpoint.engine.step_loop import StepLoop
from setpoint.engine.threaded import STEP_LIMIT_S
from setpoint.engine.tokenizer import ModelTokenizer
from setpoint.engine.warm_up import warm_up, warm_up_drafter, warm_up_drafts
from setpoint.policy.changing import ChangingPolicy
from setpoint.policy.configuration import ServingConfig
from setpoint.policy.speculating import SpeculatingPolicy
from setpoint.policy.step_time import StepTimeModel


def embedded_engine(
    model: ResolvedModel,
    config: ServingConfig,
    *,
    served_name: str | None = None,
    max_model_len: int | None = None,
    options: ExecutorOptions | None = None,
    chat_template: str | None = None,
    clock: Callable[[], float] = time.monotonic,
    restarts: RestartLimits = RestartLimits(),  # noqa: B008 (frozen)
    step_limit_s: float = STEP_LIMIT_S,
    warm_for: ServingConfig | None = None,
) -> ReconfigurableEngine:
    """An engine for ``model`` under ``config``, not started yet.

    Raises ``EngineFailed`` if its tokenizer is unreadable, or its draft model is not fit for it (``draft_source``).

    chat_template: a template to use in place of the model's own. warm_for: a configuration whose shapes of steps are warmed up
    in place of those of ``config``, where it may be changed to larger ones.
    """
    tokenizer = ModelTokenizer(model.folder, chat_template=chat_template, off_lock=True)
    options = options or ExecutorOptions(threads=config.threads, kv_cache_tokens=config.kv_cache_tokens)
    draft = draft_source(config, model, tokenizer)
    length = min(max_model_len or model.context_tokens, model.context_tokens, options.kv_cache_tokens)

    def build(config: ServingConfig) -> Built:
        executor = OpenVinoExecutor(model.folder, options, clock)
        tokenizer.cover(executor.vocabulary)
        step_time = StepTimeModel()
        warm_up(executor, step_time, warm_for or config)
        changing = ChangingPolicy(config, step_time)
        policy = changing.policy
        speculator = build_speculator(config, clock, draft_model=partial(_draft_model, draft, executor, config, options, clock))
        if isinstance(policy, SpeculatingPolicy) and speculator is not None:
            warm_up_drafts(executor, config, policy.chooser.learn)
            warm_up_drafter(speculator.drafter, config, policy.chooser.learn_drafting)
        loop = StepLoop(
            policy,
            executor,
            clock,
            max_model_len=length,
            stop_token_ids=tokenizer.eos_ids,
            model=step_time,
            speculator=speculator,
        )
        return loop, executor if draft is None or speculator is None else WithDrafter(executor, speculator), changing

    return ReconfigurableEngine(
        model_name=served_name or model.name,
        tokenizer=tokenizer,
        config=config,
        build=build,
        max_model_len=length,
        clock=clock,
        restarts=restarts,
        step_limit_s=step_limit_s,
    )


def _draft_model(
    source: ResolvedModel | None,
    target: OpenVinoExecutor,
    config: ServingConfig,
    options: ExecutorOptions,
    clock: Callable[[], float],
) -> DraftModel:
    """The draft model, compiled like ``target`` and with as many tokens of KV cache."""
    assert source is not None
    executor = OpenVinoExecutor(source.folder, options, clock)
    return DraftModel(executor, vocabulary=target.vocabulary, most_tokens=config.longest_draft_tokens)
