"""Pages of every known kind of server, written as those servers write them, read under one set of names."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from setpoint.measure.metrics_text import read_metrics, read_page
from setpoint.measure.server_kinds import COUNTERS, GAUGES, KINDS, ServerKind, spoken

SETPOINT_PAGE = """\
# HELP setpoint_num_requests_running Requests in the running batch.
# TYPE setpoint_num_requests_running gauge
setpoint_num_requests_running{model_name="m"} 3.0
setpoint_num_requests_waiting{model_name="m"} 1.0
setpoint_kv_cache_usage_perc{model_name="m"} 0.5
# TYPE setpoint_requests_rejected_total counter
setpoint_requests_rejected_total{model_name="m"} 4.0
setpoint_requests_rejected_created{model_name="m"} 1.76e+09
setpoint_requests_shed_total{model_name="m"} 2.0
setpoint_request_success_total{finished_reason="stop",model_name="m"} 5.0
setpoint_request_success_total{finished_reason="length",model_name="m"} 6.0
setpoint_request_cut_total{finished_reason="cancelled",model_name="m"} 1.0
setpoint_request_queue_time_seconds_bucket{le="0.001",model_name="m"} 1.0
setpoint_request_queue_time_seconds_sum{model_name="m"} 2.5
setpoint_request_queue_time_seconds_count{model_name="m"} 12.0
setpoint_prefix_cache_queries_total{model_name="m"} 1000.0
setpoint_prefix_cache_hits_total{model_name="m"} 250.0
setpoint_prompt_tokens_total{model_name="m"} 900.0
setpoint_generation_tokens_total{model_name="m"} 480.0
setpoint_num_preemptions_total{model_name="m"} 7.0
"""

VLLM_PAGE = """\
# HELP python_gc_objects_collected_total Objects collected during gc
python_gc_objects_collected_total{generation="0"} 21000.0
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="m"} 3.0
vllm:num_requests_running{engine="1",model_name="m"} 4.0
vllm:num_requests_waiting{engine="0",model_name="m"} 9.0
vllm:num_requests_waiting{engine="1",model_name="m"} 0.0
vllm:num_requests_waiting_by_reason{engine="0",model_name="m",reason="capacity"} 9.0
# TYPE vllm:kv_cache_usage_perc gauge
vllm:kv_cache_usage_perc{engine="0",model_name="m"} 0.25
vllm:kv_cache_usage_perc{engine="1",model_name="m"} 0.75
# TYPE vllm:prefix_cache_hits counter
vllm:prefix_cache_queries_total{engine="0",model_name="m"} 300.0
vllm:prefix_cache_hits_total{engine="0",model_name="m"} 12.0
vllm:external_prefix_cache_hits_total{engine="0",model_name="m"} 99.0
vllm:prompt_tokens_total{engine="0",model_name="m"} 200.0
vllm:prompt_tokens_by_source_total{engine="0",model_name="m",source="local_compute"} 190.0
vllm:prompt_tokens_cached_total{engine="0",model_name="m"} 10.0
vllm:generation_tokens_total{engine="0",model_name="m"} 70.0
vllm:generation_tokens_total{engine="1",model_name="m"} 30.0
vllm:generation_tokens_created{engine="0",model_name="m"} 1.76e+09
vllm:request_success_total{engine="0",finished_reason="stop",model_name="m"} 5.0
vllm:request_success_total{engine="0",finished_reason="abort",model_name="m"} 1.0
vllm:num_preemptions_total{engine="0",model_name="m"} 2.0
vllm:spec_decode_num_drafts_total{engine="0",model_name="m"} 40.0
vllm:spec_decode_num_draft_tokens_total{engine="0",model_name="m"} 160.0
vllm:spec_decode_num_accepted_tokens_total{engine="0",model_name="m"} 60.0
vllm:spec_decode_num_accepted_tokens_per_pos_total{engine="0",model_name="m",position="0"} 35.0
vllm:request_queue_time_seconds_bucket{engine="0",le="0.3",model_name="m"} 5.0
vllm:request_queue_time_seconds_sum{engine="0",model_name="m"} 0.6
vllm:request_queue_time_seconds_count{engine="0",model_name="m"} 6.0
vllm:admission_rejections_total{model_name="m",reason="max_num_queued_reqs"} 2.0
vllm:admission_rejections_total{model_name="m",reason="max_num_queued_tokens"} 1.0
"""

SGLANG_PAGE = """\
sglang:num_running_reqs{engine_type="unified",model_name="m",moe_ep_rank="0",pp_rank="0",tp_rank="0"} 8.0
sglang:num_running_reqs{engine_type="unified",model_name="m",moe_ep_rank="1",pp_rank="0",tp_rank="1"} 8.0
sglang:num_queue_reqs{engine_type="unified",model_name="m",pp_rank="0",tp_rank="0"} 2.0
sglang:num_grammar_queue_reqs{model_name="m"} 1.0
sglang:token_usage{model_name="m",tp_rank="0"} 0.31
sglang:num_used_tokens{model_name="m",tp_rank="0"} 3100.0
sglang:spec_accept_length{model_name="m",tp_rank="0"} 2.4
sglang:num_retracted_reqs{model_name="m",pid="7"} 1.0
sglang:num_retracted_requests_total{model_name="m",tp_rank="0"} 5.0
sglang:prompt_tokens_total{is_streaming="true",model_name="m"} 1000.0
sglang:prompt_tokens_total{is_streaming="false",model_name="m"} 200.0
sglang:generation_tokens_total{is_streaming="true",model_name="m"} 500.0
sglang:cached_tokens_total{cache_source="device",model_name="m"} 300.0
sglang:cached_tokens_total{cache_source="host",model_name="m"} 60.0
sglang:num_requests_total{is_streaming="true",model_name="m"} 25.0
sglang:spec_verify_calls_total{model_name="m"} 200.0
sglang:queue_time_seconds_sum{model_name="m",tp_rank="0"} 5.0
sglang:queue_time_seconds_count{model_name="m",tp_rank="0"} 25.0
sglang:http_responses_total{endpoint="/v1/completions",method="POST",status_code="200"} 25.0
sglang:http_responses_total{endpoint="/v1/completions",method="POST",status_code="503"} 4.0
"""

LLAMACPP_PAGE = """\
# HELP llamacpp:prompt_tokens_total Number of prompt tokens processed, excluding cached tokens
# TYPE llamacpp:prompt_tokens_total counter
llamacpp:prompt_tokens_total 120
llamacpp:prompt_tokens_cached_total 40
llamacpp:prompt_seconds_total 0.5
llamacpp:tokens_predicted_total 64
llamacpp:n_decode_total 70
llamacpp:spec_decode_num_draft_tokens_total 0
llamacpp:spec_decode_num_accepted_tokens_total 0
llamacpp:spec_decode_num_drafts_total 0
llamacpp:prompt_tokens_seconds 240
llamacpp:requests_processing 1
llamacpp:requests_deferred 2
"""

DYNAMO_FRONTEND_PAGE = """\
dynamo_frontend_inflight_requests{model="org/model-x"} 12
dynamo_frontend_queued_requests{model="org/model-x"} 5
dynamo_frontend_requests_total{endpoint="completions",model="org/model-x",request_type="stream",status="success"} 30
dynamo_frontend_requests_total{endpoint="completions",model="org/model-x",request_type="stream",status="error"} 2
dynamo_frontend_model_rejection_total{endpoint="completions",model="org/model-x"} 2
dynamo_frontend_input_sequence_tokens_sum{model="org/model-x"} 4000
dynamo_frontend_input_sequence_tokens_count{model="org/model-x"} 30
dynamo_frontend_cached_tokens_sum{model="org/model-x"} 1000
dynamo_frontend_output_tokens_total{model="org/model-x"} 900
dynamo_frontend_output_tokens_total{model="org/other"} 70000
dynamo_frontend_model_total_kv_blocks{model="org/model-x"} 5000
"""

DYNAMO_WORKER_PAGE = """\
dynamo_component_inflight_requests{dynamo_component="backend",dynamo_endpoint="generate"} 4
dynamo_component_inflight_requests{dynamo_component="backend",dynamo_endpoint="clear_kv_blocks"} 1
dynamo_component_requests_total{dynamo_component="backend",dynamo_endpoint="generate"} 33
dynamo_component_gpu_cache_usage_percent{dynamo_component="backend"} 0.4
"""

TGI_PAGE = """\
tgi_batch_current_size 6
tgi_queue_size 3
tgi_request_count 41
tgi_request_success 30
tgi_request_failure{err="overloaded"} 7
tgi_request_failure{err="validation"} 1
tgi_request_generated_tokens_sum 1500
tgi_request_input_length_sum 6000
tgi_request_queue_duration_sum 1.5
tgi_request_queue_duration_count 30
"""


def test_setpoint() -> None:
    assert read_metrics(SETPOINT_PAGE) == {
        "running": 3,
        "waiting": 1,
        "kv_usage": 0.5,
        "rejected": 4,
        "shed": 2,
        "requests_ended": 12,
        "queue_wait_sum_s": 2.5,
        "queue_waits": 12,
        "prefix_queries": 1000,
        "prefix_hits": 250,
        "prompt_tokens": 900,
        "output_tokens": 480,
        "preemptions": 7,
    }


def test_vllm_adds_up_over_engines_and_takes_the_fullest_cache() -> None:
    page = read_page(VLLM_PAGE)
    assert page.kinds == (ServerKind.VLLM,)
    assert page.values == {
        "running": 7,
        "waiting": 9,
        "kv_usage": 0.75,
        "prefix_queries": 300,
        "prefix_hits": 12,
        "prompt_tokens": 200,
        "cached_prompt_tokens": 10,
        "output_tokens": 100,
        "requests_ended": 6,
        "preemptions": 2,
        "drafts": 40,
        "draft_tokens": 160,
        "accepted_tokens": 60,
        "queue_wait_sum_s": 0.6,
        "queue_waits": 6,
        "rejected": 3,
    }


def test_vllm_under_ray_serve_and_older_names() -> None:
    assert read_metrics('ray_vllm_num_requests_running{WorkerId="a"} 2\nray_vllm_num_requests_running{WorkerId="b"} 3\n') == {
        "running": 5
    }
    assert read_metrics("vllm:gpu_cache_usage_perc 0.5\nvllm:gpu_prefix_cache_hits_total 3\n") == {
        "kv_usage": 0.5,
        "prefix_hits": 3,
    }
    # Versions that write both: the new name counts, not their sum.
    assert read_metrics("vllm:gpu_cache_usage_perc 0.5\nvllm:kv_cache_usage_perc 0.5\n") == {"kv_usage": 0.5}


def test_sglang_ranks_of_one_engine_count_once() -> None:
    assert read_metrics(SGLANG_PAGE) == {
        "running": 8,
        "waiting": 2,
        "kv_usage": 0.31,
        "kv_tokens": 3100,
        "acceptance_length": 2.4,
        "preemptions": 5,
        "prompt_tokens": 1200,
        "output_tokens": 500,
        "cached_prompt_tokens": 360,
        "requests_ended": 25,
        "drafts": 200,
        "queue_wait_sum_s": 5,
        "queue_waits": 25,
        "rejected": 4,
    }


def test_sglang_data_parallel_ranks_add_up() -> None:
    page = 'sglang:num_running_reqs{dp_rank="0",tp_rank="0"} 3\nsglang:num_running_reqs{dp_rank="1",tp_rank="4"} 5\n'
    assert read_metrics(page) == {"running": 8}


def test_llamacpp_prompt_tokens_hold_those_from_the_cache() -> None:
    assert read_metrics(LLAMACPP_PAGE) == {
        "running": 1,
        "waiting": 2,
        "prompt_tokens": 160,
        "cached_prompt_tokens": 40,
        "output_tokens": 64,
        "drafts": 0,
        "draft_tokens": 0,
        "accepted_tokens": 0,
    }
    assert read_metrics("llamacpp:prompt_tokens_total 120\nllamacpp:kv_cache_usage_ratio 0.2\n") == {
        "prompt_tokens": 120,
        "kv_usage": 0.2,
    }


def test_dynamo_frontend_of_the_model_asked_for() -> None:
    page = read_page(DYNAMO_FRONTEND_PAGE, "Org/Model-X")
    assert spoken(page.kinds) == "dynamo"
    assert page.values == {
        "running": 7,
        "waiting": 5,
        "requests_ended": 32,
        "rejected": 2,
        "prompt_tokens": 4000,
        "cached_prompt_tokens": 1000,
        "output_tokens": 900,
    }
    # A name that is not on the page leaves nothing out.
    assert read_metrics(DYNAMO_FRONTEND_PAGE, "adapter")["output_tokens"] == 70900


def test_dynamo_worker_and_the_engine_in_it() -> None:
    assert read_metrics(DYNAMO_WORKER_PAGE) == {"running": 4, "requests_ended": 33, "kv_usage": 0.4}
    page = read_page(DYNAMO_WORKER_PAGE + VLLM_PAGE)
    assert spoken(page.kinds) == "dynamo (vllm)"
    assert (page.values["running"], page.values["kv_usage"]) == (7, 0.75)


def test_tgi() -> None:
    assert read_metrics(TGI_PAGE) == {
        "running": 6,
        "waiting": 3,
        "requests_ended": 30,
        "rejected": 7,
        "prompt_tokens": 6000,
        "output_tokens": 1500,
        "queue_wait_sum_s": 1.5,
        "queue_waits": 30,
    }


def test_page_of_nobody_known_says_nothing() -> None:
    assert read_page("some_other_server 1\nvllm:something_new 2\n").kinds == ()
    assert read_metrics("") == {}


def test_not_a_number_is_not_a_figure() -> None:
    assert read_metrics("vllm:kv_cache_usage_perc NaN\nvllm:num_requests_running 1\n") == {"running": 1}


def test_page_that_is_not_prometheus_text_is_an_error() -> None:
    with pytest.raises(ValueError, match=r".+"):
        read_metrics('vllm:num_requests_running{model="m" 3.0\n')


def test_every_quantity_of_the_table_is_a_gauge_or_a_counter() -> None:
    assert {name for meanings in KINDS.values() for name in meanings} <= {*GAUGES, *COUNTERS}


known_lines = st.builds(
    "{}{}".format,
    st.sampled_from(["vllm:num_requests_running", "sglang:token_usage", "llamacpp:requests_deferred ", "tgi_queue_size{"]),
    st.text(max_size=20),
)


@given(st.lists(st.one_of(st.text(max_size=40), known_lines), max_size=6).map("\n".join))
def test_any_text_is_read_or_refused_in_one_way(text: str) -> None:
    with contextlib.suppress(ValueError):
        read_page(text)
