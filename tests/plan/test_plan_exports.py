"""What a plan exports can be read back, says what the plan says, and carries the requirement's id."""

from __future__ import annotations

import json
import math
import shlex
from fnmatch import fnmatch

import pytest
import yaml
from plan_world import CHAT, requirement, serving, shape

from setpoint.plan.exports.commands import sglang_command, vllm_command
from setpoint.plan.exports.deployable import Deployable
from setpoint.plan.exports.files import EXPORTED, export_files
from setpoint.plan.exports.kubernetes import LABEL, manifest
from setpoint.plan.exports.ray_serve import BUILDER, ray_serve_config
from setpoint.plan.identity import requirement_id
from setpoint.plan.topology import Topology
from setpoint.plan.vllm_command import parse_vllm_command
from setpoint.policy.configuration import BatchingMode, ServingConfig

ID = requirement_id(requirement(CHAT))


def deployable(mode: BatchingMode = BatchingMode.CONTINUOUS, replicas: int = 3, **make: object) -> Deployable:
    found = Topology.single(shape(**make), serving(mode), replicas)  # type: ignore[arg-type]
    return Deployable(found, "meta-llama/Llama-3.1-8B-Instruct", "llama-3.1-8b", "bf16", 4096, ID)


def command_of(text: str) -> str:
    return next(line for line in text.splitlines() if line and not line.startswith("#"))


def test_the_vllm_command_is_what_the_planner_itself_reads() -> None:
    command = parse_vllm_command(command_of(vllm_command(deployable(parallel=2, weights="fp8", cache="fp8"))))
    assert (command.model, command.tensor_parallel) == ("meta-llama/Llama-3.1-8B-Instruct", 2)
    assert (command.max_running, command.token_budget, command.max_model_tokens) == (128, 2048, 4096)
    assert (command.weight_precision, command.kv_precision, command.memory_share) == ("fp8", "fp8", 0.9)


def test_the_id_is_a_name_of_the_served_model() -> None:
    words = shlex.split(command_of(vllm_command(deployable())))
    assert words[0] == f"SETPOINT_REQUIREMENT={ID}"
    place = words.index("--served-model-name")
    assert words[place + 1 : place + 3] == ["llama-3.1-8b", ID]


def test_a_checkpoint_in_its_own_precision_is_not_quantised() -> None:
    assert "--quantization" not in vllm_command(deployable())
    assert "--kv-cache-dtype" not in sglang_command(deployable())


def test_a_checkpoint_that_is_quantised_is_not_quantised_again_and_its_cache_is_named() -> None:
    native = Deployable(
        Topology.single(shape(weights="fp8", cache="fp8"), serving(), 1), "org/model-FP8", "model", "fp8", 4096, ID
    )
    assert parse_vllm_command(command_of(vllm_command(native))).kv_precision == "fp8"
    assert "--kv-cache-dtype fp8_e4m3" in sglang_command(native)
    narrower = Deployable(Topology.single(shape(weights="fp8"), serving(), 1), "org/model-W4", "model", "int4", 4096, ID)
    assert "--quantization" not in vllm_command(native) + vllm_command(narrower) + sglang_command(narrower)
    assert any("name a checkpoint in that precision" in note for note in narrower.notes())
    odd = Deployable(Topology.single(shape(cache="int8"), serving(), 1), "org/model", "model", "bf16", 4096, ID)
    assert any("The cache is planned in int8" in note for note in odd.notes())


def test_every_export_has_a_name_that_is_told() -> None:
    assert all(any(fnmatch(name, pattern) for pattern in EXPORTED) for name in export_files(deployable()))


def test_a_service_begins_with_a_letter() -> None:
    found = Topology.single(shape(), serving(), 1)
    named = Deployable(found, "01-ai/Yi-1.5-9B", "01-ai/Yi-1.5-9B", "bf16", 4096, ID)
    for document in yaml.safe_load_all(manifest(named)):
        assert document["metadata"]["name"][0].isalpha()


def test_the_sglang_command() -> None:
    words = shlex.split(command_of(sglang_command(deployable(parallel=2, weights="fp8"))))
    options = dict(zip(words[4::2], words[5::2], strict=True))
    assert words[1:4] == ["python", "-m", "sglang.launch_server"]
    assert options["--tp-size"] == "2"
    assert options["--max-running-requests"] == "128"
    assert options["--chunked-prefill-size"] == "2048"
    assert options["--quantization"] == "fp8"


@pytest.mark.parametrize("weights", ["bf16", "fp8"])
def test_sglang_is_given_the_memory_of_weights_and_cache_alone(weights: str) -> None:
    """It counts nothing else in that share; the plan has 3 GB of a device for all else, of 81,559 MiB in an H100."""
    words = shlex.split(command_of(sglang_command(deployable(weights=weights))))
    share = float(words[words.index("--mem-fraction-static") + 1])
    assert share == math.floor(100 * (0.9 - 3e9 / (81_559 * 2**20))) / 100 < 0.9


@pytest.mark.parametrize(("hardware", "resource"), [("h100-sxm", "nvidia.com/gpu"), ("mi300x", "amd.com/gpu")])
def test_the_manifest_parses_and_agrees_with_itself(hardware: str, resource: str) -> None:
    deployment, service = yaml.safe_load_all(manifest(deployable(hardware=hardware, parallel=2)))
    pod = deployment["spec"]["template"]
    container = pod["spec"]["containers"][0]
    assert deployment["spec"]["replicas"] == 3
    assert container["resources"]["limits"] == {resource: 2}
    assert deployment["spec"]["selector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
    assert service["spec"]["selector"] == deployment["spec"]["selector"]["matchLabels"]
    assert "&id" not in manifest(deployable())
    assert {each["metadata"]["labels"][LABEL] for each in (deployment, service, pod)} == {ID}
    assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["spec"]["volumes"]}
    served = parse_vllm_command("python -m vllm.entrypoints.openai.api_server " + shlex.join(container["args"]))
    assert (served.tensor_parallel, served.max_running) == (2, 128)
    assert len(deployment["metadata"]["name"]) <= 63


def test_the_ray_serve_configuration_parses() -> None:
    (application,) = yaml.safe_load(ray_serve_config(deployable(hardware="mi300x", parallel=2)))["applications"]
    (model,) = application["args"]["llm_configs"]
    assert (application["name"], application["import_path"]) == (ID, BUILDER)
    assert model["deployment_config"] == {"num_replicas": 3}
    assert model["accelerator_type"] == "AMD-Instinct-MI300X-OAM"
    assert model["engine_kwargs"] == {
        "tensor_parallel_size": 2,
        "max_num_seqs": 128,
        "max_num_batched_tokens": 2048,
        "max_model_len": 4096,
        "gpu_memory_utilization": 0.9,
        "enable_prefix_caching": True,
    }


def test_setpoints_own_configuration_is_read_back() -> None:
    plan = deployable()
    files = export_files(plan)
    config = ServingConfig.model_validate_json(files[f"serve-{ID}.json"])
    assert (config.max_running, config.token_budget) == (128, 2048)
    assert config.kv_cache_tokens == plan.topology.pool.shape.kv_tokens


def test_every_file_carries_the_id() -> None:
    for name, text in export_files(deployable()).items():
        assert ID in name + text, name
        assert json.loads(text) if name.endswith(".json") else text


def test_what_a_command_cannot_do_is_said() -> None:
    assert "setpoint's deadlines decide" in vllm_command(deployable(BatchingMode.SETPOINT))
    assert "Run 3 of these behind a router" in vllm_command(deployable())
    assert "name a checkpoint in that precision" in vllm_command(deployable(weights="int4"))
