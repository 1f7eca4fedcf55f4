"""The manifests for Kubernetes: pods by Kubernetes' schema, applications by Serve's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

pytestmark = [pytest.mark.cluster, pytest.mark.filterwarnings("default")]

MANIFEST = Path(__file__).parents[2] / "docker" / "kuberay" / "rayservice.yaml"


@pytest.fixture
def service() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(MANIFEST.read_text())
    assert (found["apiVersion"], found["kind"]) == ("ray.io/v1", "RayService")
    return found["spec"] | {"metadata": found["metadata"]}


def groups(service: dict[str, Any]) -> list[dict[str, Any]]:
    cluster = service["rayClusterConfig"]
    return [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]


def test_pods_are_what_kubernetes_takes(service: dict[str, Any]) -> None:
    import kubernetes_validate

    for group in groups(service):
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "any"}}
        kubernetes_validate.validate(pod | group["template"], "1.30", strict=True)
        assert {type(value) for value in group["rayStartParams"].values()} == {str}
        pod["spec"] = {"containers": [{"image": "no name"}]}
        with pytest.raises(kubernetes_validate.ValidationError):
            kubernetes_validate.validate(pod, "1.30", strict=True)


def test_applications_are_what_serve_takes(service: dict[str, Any]) -> None:
    from closeby.service.cluster import serving
    from closeby.service.cluster.options import ClusterOptions
    from ray.serve.schema import ServeDeploySchema

    wanted = ServeDeploySchema.model_validate(yaml.safe_load(service["serveConfigV2"]))
    by_name = {application.name: application for application in wanted.applications}
    shards = by_name.keys() - {serving.INGRESS}
    arguments = {name: dict(application.args) for name, application in by_name.items()}
    for name in shards:
        assert arguments[name].pop("name") == name
        assert by_name[name].route_prefix is None
    assert all(given == arguments[serving.INGRESS] for given in arguments.values())
    options = ClusterOptions.model_validate(arguments[serving.INGRESS])
    assert shards == set(serving.shard_names(options.shards))
    for application in wanted.applications:
        module, _, builder = application.import_path.partition(":")
        assert module == serving.__name__
        assert callable(getattr(serving, builder))


def test_there_is_room_for_every_process(service: dict[str, Any]) -> None:
    from closeby.service.cluster.options import ClusterOptions

    applications = yaml.safe_load(service["serveConfigV2"])["applications"]
    options = ClusterOptions.model_validate(applications[0]["args"])
    needed = options.ingress_cpus * options.ingresses + options.shard_cpus * options.shards
    head, workers = groups(service)
    assert head["rayStartParams"]["num-cpus"] == "0"
    assert int(workers["rayStartParams"]["num-cpus"]) * workers["replicas"] >= needed
