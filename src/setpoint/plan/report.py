"""A plan as data: ``plan.json``, which holds the ranked candidates as a report of schema 1 as well."""

from __future__ import annotations

import json
import math
from typing import Any

from pydantic_core import to_json

from setpoint.plan import answers
from setpoint.plan.binding import Binding
from setpoint.plan.context import ContextCurve
from setpoint.plan.exports.deployable import Deployable
from setpoint.plan.exports.files import export_files
from setpoint.plan.exports.serve_config import serve_config
from setpoint.plan.identity import requirement_id
from setpoint.plan.planner import Plan, Ranked, Standing
from setpoint.plan.pruning import Pruned
from setpoint.plan.shadow import ShadowPrice
from setpoint.plan.sketch import longest_request
from setpoint.plan.space import BLOCK_TOKENS
from setpoint.plan.speculation_words import outlook_document, speculation_answers
from setpoint.record import EXIT_INCONCLUSIVE, EXIT_MET, EXIT_MISSED, Candidate, Report, Validity
from setpoint.report.machine import machine_facts

PLAN_SCHEMA = 1
LENGTH_STEP = 1024
CACHE_SHARE = 0.95

EXIT_CODES = {Standing.SURE: EXIT_MET, Standing.WITHIN_ERROR: EXIT_INCONCLUSIVE, Standing.INFEASIBLE: EXIT_MISSED}


def plan_document(plan: Plan) -> dict[str, Any]:
    """``plan.json`` as a dictionary (docs/plan.md lists the fields)."""
    asked = plan.asked
    chosen = plan.chosen
    return {
        "schema": PLAN_SCHEMA,
        "kind": "plan",
        "requirement_id": requirement_id(asked.requirement),
        "model": asked.model.name,
        "objective": asked.goal.value,
        "load_rps": asked.load_rps,
        "load_error": asked.load_error,
        "confidence": asked.confidence,
        "bounds": {"max_gpus": asked.bounds.max_gpus, "max_usd_per_h": asked.bounds.max_usd_per_h},
        "prices_usd_per_gpu_h": dict(asked.choices.prices),
        "standing": plan.standing.value,
        "chosen": chosen.name if chosen else None,
        "answers": spoken(plan),
        "ranked": [ranked_document(plan, each) for each in plan.ranked],
        "pruned": [pruned_document(each) for each in plan.pruned],
        "shadow_prices": [shadow_document(each) for each in plan.shadow],
        "if_load_doubles": ranked_document(plan, plan.doubled) if plan.doubled else None,
        "nearest": ranked_document(plan, plan.nearest) if plan.nearest else None,
        "speculation": [outlook_document(each) for each in plan.outlooks],
        "context_curves": [context_document(each) for each in plan.contexts],
        "exports": exports_of(plan) if chosen else {},
        "simulations": plan.simulations,
        "report": json.loads(report_of(plan).to_json()),
    }


def plan_json(document: dict[str, Any]) -> str:
    """The document as JSON text; what is not finite is null."""
    return to_json(document, indent=2, inf_nan_mode="null").decode() + "\n"


def spoken(plan: Plan) -> dict[str, Any]:
    """The answers in sentences, ``None`` or empty where there is nothing to say."""
    return {
        "recommendation": answers.recommendation(plan),
        "cheaper_but_unsure": answers.cheaper_but_unsure(plan),
        "runs_as_it_is": answers.runs_as_it_is(plan),
        "why": answers.why_this(plan),
        "limits": answers.limit_costs(plan),
        "if_load_doubles": answers.if_doubled(plan),
        "measure_next": answers.measure_next(plan),
        "speculation": speculation_answers(plan),
    }


def ranked_document(plan: Plan, ranked: Ranked) -> dict[str, Any]:
    """One candidate."""
    pool = ranked.topology.pool
    deployment = pool.shape.deployment
    block = BLOCK_TOKENS[deployment.engine]
    headroom = ranked.headroom
    trial = ranked.trial
    return {
        "name": ranked.name,
        "hardware": pool.shape.hardware,
        "replicas": pool.replicas,
        "tensor_parallel": deployment.tensor_parallel,
        "gpus": ranked.topology.gpus,
        "scheduler": pool.serving.scheduler.value,
        "config": serve_config(deployable(plan, ranked)).model_dump(mode="json"),
        "weight_precision": deployment.weight_precision,
        "kv": {
            "blocks": pool.shape.kv_tokens // block,
            "block_tokens": block,
            "precision": deployment.kv_precision,
            "tokens": pool.shape.kv_tokens,
            "expected_usage": ranked.binding.kv_share,
            "expected_prefix_hit_rate": plan.load.hit_rate,
            "pressure_from_context_tokens": pool.shape.kv_tokens / max(ranked.binding.batch, 1.0),
        },
        "usd_per_h": ranked.topology.usd_per_h,
        "usd_per_good_request": ranked.usd_per_good_request,
        "usd_per_request_at_scale": ranked.at_scale_usd,
        "output_tokens_per_usd": ranked.tokens_per_usd,
        "power_w": ranked.topology.power_w,
        "latency_p95_s": _finite(ranked.latency_s),
        "holds": ranked.holds,
        "met_probability": headroom.met_probability,
        "within_error": headroom.within_error,
        "knee_rps": headroom.knee_rps * pool.replicas,
        "knee_distance": headroom.knee_distance,
        "step_error": ranked.option.step_error,
        "ttft_error": ranked.option.ttft_error,
        "step_error_is_guess": ranked.option.guess,
        "source": ranked.option.source,
        "binding": _binding(ranked.binding),
        "excess": {
            limit.key: ranked.option.curve.of_limit(index, plan.asked.load_rps / pool.replicas)
            for index, limit in enumerate(plan.limits)
        },
        "verdict": trial.slo.verdict.value if trial is not None and trial.slo is not None else None,
    }


def _binding(binding: Binding) -> dict[str, Any]:
    return {
        "bound": binding.bound,
        "decode_bound": binding.decode_bound,
        "batch": binding.batch,
        "step_s": binding.step_s,
        "kv_share": binding.kv_share,
        "utilisation": binding.utilisation,
    }


def pruned_document(pruned: Pruned) -> dict[str, Any]:
    """One shape that was not simulated."""
    return {"shape": pruned.shape.name, "hardware": pruned.shape.hardware, "bound": pruned.bound, "words": pruned.words}


def shadow_document(price: ShadowPrice) -> dict[str, Any]:
    """What moving one limit changes."""
    return {
        "limit": price.limit.key,
        "from": price.limit.limit,
        "to": price.moved_to,
        "usd_per_h": price.usd_per_h,
        "moved_usd_per_h": price.moved_usd_per_h,
        "change": price.change,
        "change_at_scale": price.at_scale,
        "with": price.moved_name,
    }


def context_document(curve: ContextCurve) -> dict[str, Any]:
    """Latency against context length for one hardware; null where one request does not fit."""
    return {
        "shape": curve.shape.name,
        "hardware": curve.shape.hardware,
        "under_way": curve.under_way,
        "bends_at_tokens": curve.bends_at_tokens,
        "context_tokens": curve.contexts.tolist(),
        "request_s": curve.request_s.tolist(),
        "gap_s": curve.gap_s.tolist(),
    }


def report_of(plan: Plan) -> Report:
    """The candidates that were looked at closely, as a report of schema 1 with their figures ``predicted``."""
    candidates = [
        Candidate(
            name=ranked.name,
            config=serve_config(deployable(plan, ranked)).model_dump(mode="json"),
            predicted=ranked.trial.predicted,
            slo=ranked.trial.slo,
        )
        for ranked in plan.ranked
        if ranked.trial is not None and ranked.trial.slo is not None
    ]
    named = {candidate.name for candidate in candidates}
    return Report(
        kind="simulate",
        requirement=plan.asked.requirement.model_dump(mode="json"),
        machine=machine_facts(),
        candidates=candidates,
        chosen=plan.chosen.name if plan.chosen and plan.chosen.name in named else None,
        why=answers.recommendation(plan),
        validity=Validity(valid=True),
    )


def deployable(plan: Plan, ranked: Ranked) -> Deployable:
    """A candidate with what an export needs.

    Its longest request is the profile's, within what the model takes and ``CACHE_SHARE`` of what the cache holds: an engine
    does not start with more than it finds room for.
    """
    requirement = plan.asked.requirement
    shape = ranked.topology.pool.shape
    block = BLOCK_TOKENS[shape.deployment.engine]
    longest = math.ceil(longest_request(requirement.profile) / LENGTH_STEP) * LENGTH_STEP
    return Deployable(
        topology=ranked.topology,
        model=requirement.model.source,
        served_name=requirement.model.served_name or plan.asked.model.name,
        native_precision=plan.asked.model.native_precision,
        max_model_tokens=min(
            longest, plan.asked.model.context_tokens, max(int(CACHE_SHARE * shape.kv_tokens) // block * block, block)
        ),
        requirement_id=requirement_id(requirement),
    )


def exports_of(plan: Plan) -> dict[str, str]:
    """Export files of what was chosen, by name."""
    return export_files(deployable(plan, plan.chosen)) if plan.chosen is not None else {}


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
