"""The deployment files say what their readers understand, and ask for no more rights than they need."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from accelerate.commands.config.config_args import ClusterConfig, load_config_from_file
from accelerate.utils import DistributedType

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
SECRETS = {
    "DAGSTER_POSTGRES_PASSWORD": "p",
    "S3_ACCESS_KEY": "a",
    "S3_SECRET_KEY": "s",
    "CTINTERP_PROJECT": "/srv/project",
}


def load(name: str) -> Any:
    return yaml.safe_load((DEPLOY / name).read_text())


def cluster(name: str) -> ClusterConfig:
    return load_config_from_file(str(DEPLOY / "accelerate" / name))


def test_the_compose_file_follows_the_specification() -> None:
    command = ["-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(DEPLOY / "compose.yaml")]
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.skipif(not shutil.which("docker-compose"), reason="needs docker-compose")
def test_compose_resolves_the_file_and_refuses_to_start_without_secrets() -> None:
    command = ["docker-compose", "-f", str(DEPLOY / "compose.yaml"), "config"]
    given = subprocess.run(command, env=os.environ | SECRETS, capture_output=True, text=True, check=False)
    assert given.returncode == 0, given.stderr
    assert set(yaml.safe_load(given.stdout)["services"]) == {"code", "webserver", "daemon", "postgres", "minio"}
    bare = {k: v for k, v in os.environ.items() if k not in SECRETS}
    refused = subprocess.run(command, env=bare, capture_output=True, text=True, check=False)
    assert refused.returncode != 0
    assert "set it in the environment" in refused.stderr


def test_only_the_web_server_is_published_and_only_on_this_machine() -> None:
    services = load("compose.yaml")["services"]
    assert {name: service["ports"] for name, service in services.items() if "ports" in service} == {
        "webserver": ["127.0.0.1:3000:3000"]
    }
    assert load("compose.yaml")["networks"]["inside"] == {"internal": True}
    assert load("kubernetes/values.yaml")["dagsterWebserver"]["service"]["type"] == "ClusterIP"


def test_no_secret_stands_in_a_file() -> None:
    key = r"^\s*\w*(password|secret_?(access)?_?key|access_key(_id)?)\s*:\s*(?P<value>\S+)"
    named = re.compile(key, re.IGNORECASE | re.MULTILINE)
    values = [found["value"] for path in DEPLOY.rglob("*.yaml") for found in named.finditer(path.read_text())]
    assert len(values) >= 6
    assert [value for value in values if not value.startswith(("${", "{env:"))] == []


def test_the_training_job_is_valid_asks_for_a_gpu_and_is_not_root() -> None:
    job = load("kubernetes/train-job.yaml")
    for version in ("1.31", kubernetes_validate.latest_version()):
        kubernetes_validate.validate(job, version, strict=True)
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert container["securityContext"]["allowPrivilegeEscalation"] is False
    mounted = {mount["name"] for mount in container["volumeMounts"]}
    assert mounted == {volume["name"] for volume in pod["volumes"]}


def test_the_job_and_the_chart_train_what_dvc_yaml_names() -> None:
    (arguments,) = load("kubernetes/train-job.yaml")["spec"]["template"]["spec"]["containers"][0]["args"]
    word = re.search(r"--single-item (\w+)", arguments)
    assert word
    assert word[1] in yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]


def test_the_pod_of_a_run_that_the_chart_describes_is_valid() -> None:
    launcher = load("kubernetes/values.yaml")["runLauncher"]["config"]["k8sRunLauncher"]
    container = {
        "name": "run",
        "image": "ctinterp:0.1.0",
        "resources": launcher["resources"],
        "volumeMounts": launcher["volumeMounts"],
        "envFrom": [{"secretRef": secret} for secret in launcher["envSecrets"]],
    }
    spec = {
        **launcher["runK8sConfig"]["podSpecConfig"],
        "volumes": launcher["volumes"],
        "containers": [container],
    }
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "run"}, "spec": spec}
    kubernetes_validate.validate(pod, "1.31", strict=True)


def test_the_image_is_pinned_built_in_two_steps_and_not_root() -> None:
    lines = (DEPLOY / "Dockerfile").read_text().splitlines()
    bases = [line.split()[1] for line in lines if line.startswith("FROM ")]
    assert len(bases) == 2
    assert all(re.fullmatch(r"python:3\.\d+\.\d+-slim-\w+", base) for base in bases)
    users = [line for line in lines if line.startswith("USER ")]
    assert users == ["USER 10001:10001"]
    installs = [line for line in lines if "pip install" in line and not line.startswith("#")]
    assert installs
    assert all("-c constraints.txt" in line for line in installs)
    copied = [w for line in lines if line.startswith("COPY ") and "--from" not in line for w in line.split()[1:-1]]
    assert all((ROOT / path).exists() for path in copied if not path.startswith("--"))
    images = [service["image"] for service in load("compose.yaml")["services"].values() if "image" in service]
    assert all(":" in image and not image.endswith(":latest") for image in images)


@pytest.mark.parametrize(
    ("name", "kind", "machines", "processes"),
    [
        ("one_gpu.yaml", DistributedType.NO, 1, 1),
        ("eight_gpus.yaml", DistributedType.MULTI_GPU, 1, 8),
        ("two_nodes.yaml", DistributedType.MULTI_GPU, 2, 16),
        ("fsdp.yaml", DistributedType.FSDP, 1, 8),
    ],
)
def test_accelerate_loads_its_configurations(name: str, kind: DistributedType, machines: int, processes: int) -> None:
    config = cluster(name)
    assert isinstance(config, ClusterConfig)
    assert (config.distributed_type, config.num_machines, config.num_processes) == (kind, machines, processes)
    assert config.mixed_precision == "bf16"
    assert config.use_cpu is False


def test_every_accelerate_configuration_is_tested() -> None:
    names = {path.name for path in (DEPLOY / "accelerate").glob("*")}
    assert names == {"one_gpu.yaml", "eight_gpus.yaml", "two_nodes.yaml", "fsdp.yaml"}
    assert cluster("fsdp.yaml").fsdp_config["fsdp_version"] == 2
