"""The Helm chart renders the plain manifests of Kubernetes, and its one-process shape fits the program.

Helm is not needed: the templates use a few directives only, which `render` knows, and any other one fails.
"""

import json
import re
from typing import Any

import pytest
import yaml

from shared.addresses import Address
from tests.test_deploy import DEPLOY, check_command
from tests.test_deploy_roles import settings_from

CHART = DEPLOY / "helm"
VALUES: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
TEMPLATES = {path.name: path.read_text(encoding="utf-8") for path in sorted((CHART / "templates").iterdir())}
PLAIN = {"all": "vedette-all.yaml", "roles": "vedette.yaml"}
FILTERS = {"quote": json.dumps, "toJson": json.dumps}
CONDITION = re.compile(r'\{\{- if eq \.Values\.(\w+) "(\w+)" \}\}\n(.*)\n\{\{- end \}\}\n', re.DOTALL)
KEEP = {"helm.sh/resource-policy": "keep"}


def manifests(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((DEPLOY / "kubernetes" / name).read_text(encoding="utf-8")))


def changed(changes: dict[str, Any], values: dict[str, Any] = VALUES) -> dict[str, Any]:
    """The values with changes, which are merged as Helm merges them."""
    merged = {
        key: changed(change, values[key]) if isinstance(change, dict) else change for key, change in changes.items()
    }
    return values | merged


def render(release: str, values: dict[str, Any]) -> list[dict[str, Any]]:
    """The objects of a release, as Helm renders these templates."""

    def fill(found: re.Match[str]) -> str:
        path, names = found[1].split(".")[1:], found[2].split(" | ")[1:]
        value: Any = {"Release": {"Name": release}, "Values": values}
        for key in path:
            value = value[key]
        assert names or isinstance(value, str | int), f"{found[0]}: quote it"
        for name in names:
            value = FILTERS[name](value)
        return str(value)

    objects = list[dict[str, Any]]()
    for name, text in TEMPLATES.items():
        condition = CONDITION.fullmatch(text)
        assert condition is not None, name
        if values[condition[1]] != condition[2]:
            continue
        filled = re.sub(r"\{\{ (\.[A-Za-z.]+)((?: \| \w+)*) \}\}", fill, condition[3])
        assert "{{" not in filled, name
        objects += yaml.safe_load_all(filled)
    return objects


def without_keep(objects: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The objects without the mark by which Helm leaves a volume behind."""
    for item in objects:
        if item["kind"] == "PersistentVolumeClaim":
            assert item["metadata"].pop("annotations") == KEEP
    return objects


@pytest.mark.parametrize("shape", PLAIN)
def test_the_chart_renders_the_plain_manifests(shape: str) -> None:
    assert without_keep(render("vedette", changed({"shape": shape}))) == manifests(PLAIN[shape])


@pytest.mark.parametrize("shape", PLAIN)
def test_every_value_of_a_shape_arrives(shape: str) -> None:
    resources = {"requests": {"cpu": "3"}, "limits": {"nvidia.com/gpu": 1}}
    changes = {
        "shape": shape,
        "image": "registry.example/vedette-cloud:1.2",
        "addresses": {"devices": "plant.example:17443", "enrolment": "plant.example:17444"},
        "storage": {"size": "1Ti"},
        "storeUrl": "postgresql://other@db/vedette",
        "ingest": {"replicas": 3},
        "console": {"names": ["console.example"], "trustedProxies": ["10.0.0.0/8"]},
        "analysis": {"replicas": 5, "resources": resources},
        "service": {"resources": resources},
    }
    objects = render("plant", changed(changes))
    text = yaml.safe_dump(objects)
    wanted = [
        "registry.example/vedette-cloud:1.2",
        "plant.example:17443",
        "plant.example:17444",
        "1Ti",
        "nvidia.com/gpu",
    ]
    assert [word for word in wanted if word not in text] == []
    replicas = {item["metadata"]["name"]: item["spec"]["replicas"] for item in objects if item["kind"] == "Deployment"}
    expected = (
        {"plant-ingest": 3, "plant-analysis": 5, "plant-console": 1, "plant-training": 1}
        if shape == "roles"
        else {"plant": 1}
    )
    assert replicas == expected
    assert ("postgresql://other@db/vedette" in text) == (shape == "roles")
    (settings,) = [item["data"] for item in objects if item["kind"] == "ConfigMap"]
    assert settings_from(settings).console_names == ("console.example",)
    assert [str(network) for network in settings_from(settings).trusted_proxies] == ["10.0.0.0/8"]
    selectors = [item["spec"]["selector"] for item in objects if "selector" in item.get("spec", {})]
    assert {selector.get("matchLabels", selector)["app"] for selector in selectors} == {"plant"}
    assert all(item["metadata"]["name"].partition("-")[0] == "plant" for item in objects)


def test_one_process_has_the_ports_of_its_settings_and_no_second_one_beside_it() -> None:
    objects = {(item["kind"], item["metadata"]["name"]): item for item in manifests("vedette-all.yaml")}
    settings = settings_from(objects["ConfigMap", "vedette"]["data"])
    assert not settings.store_url
    listened = (settings.listen, settings.enrolment_listen, settings.console_listen)
    ports = {Address.parse(address).port for address in listened}
    spec = objects["Deployment", "vedette"]["spec"]
    assert (spec["replicas"], spec["strategy"]) == (1, {"type": "Recreate"})
    (container,) = spec["template"]["spec"]["containers"]
    check_command(container["args"])
    assert {port["containerPort"] for port in container["ports"]} == ports
    probes = [container[f"{name}Probe"]["httpGet"] for name in ("liveness", "startup", "readiness")]
    assert {probe["port"] for probe in probes} == {Address.parse(settings.console_listen).port}
    assert [probe["path"] for probe in probes] == ["/health", "/health", "/ready"]
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    for name in ("vedette-devices", "vedette-console"):
        service = objects["Service", name]["spec"]
        assert service["selector"].items() <= spec["template"]["metadata"]["labels"].items()
        assert {port["port"] for port in service["ports"]} <= ports
    assert objects["Service", "vedette-devices"]["spec"]["externalTrafficPolicy"] == "Local"


def test_the_schema_knows_the_values_and_refuses_others() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))

    def compare(part: dict[str, Any], values: dict[str, Any], path: str) -> None:
        assert part["additionalProperties"] is False, path
        assert part["properties"].keys() - {"global"} == values.keys() == set(part["required"]), path
        for name, value in values.items():
            if isinstance(value, dict) and name != "resources":
                compare(part["properties"][name], value, f"{path}.{name}")

    compare(schema, VALUES, "values")
    assert schema["properties"]["shape"]["enum"] == [*PLAIN]
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))
    project = (DEPLOY.parent / "pyproject.toml").read_text(encoding="utf-8")
    assert f'version = "{chart["appVersion"]}"' in project
