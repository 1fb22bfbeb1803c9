"""The files in deploy/ for a service of several processes, and for its monitoring."""

import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from cloud.service.metrics import AnalysisMetrics, Metrics
from cloud.service.roles import Role
from cloud.settings import CloudSettings
from shared.addresses import Address
from tests.test_deploy import DEPLOY, check_command

ROLES = [role.value for role in Role if role is not Role.ALL]
UNITS = sorted(DEPLOY.glob("vedette-cloud*.service"))
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.roles.yaml").read_text(encoding="utf-8"))
MANIFESTS: list[dict[str, Any]] = list(yaml.safe_load_all((DEPLOY / "kubernetes/vedette.yaml").read_text("utf-8")))
RULES: dict[str, Any] = yaml.safe_load((DEPLOY / "monitoring/vedette.rules.yaml").read_text(encoding="utf-8"))
DASHBOARD: dict[str, Any] = json.loads((DEPLOY / "monitoring/vedette.dashboard.json").read_text(encoding="utf-8"))


def kind(name: str) -> dict[str, dict[str, Any]]:
    """The manifests of a kind, by name."""
    return {item["metadata"]["name"]: item for item in MANIFESTS if item["kind"] == name}


def settings_from(environment: dict[str, str]) -> CloudSettings:
    """The settings with an environment of a deployment, whose names must all be settings."""
    values = {
        name: re.sub(r"\$\{\w+:-(\w+)\}", r"\1", value)
        for name, value in environment.items()
        if name.startswith("VEDETTE_")
    }
    assert all(name.removeprefix("VEDETTE_").lower() in CloudSettings.model_fields for name in values)
    return CloudSettings.load(DEPLOY / "cloud.toml", values)


def ports_of(role: str, settings: CloudSettings) -> set[int]:
    """The ports that a process of this role listens on."""
    addresses = {
        "ingest": (settings.listen, settings.enrolment_listen, settings.metrics_listen),
        "analysis": (settings.metrics_listen,),
        "console": (settings.console_listen,),
        "training": (settings.metrics_listen,),
    }
    return {Address.parse(address).port for address in addresses[role]}


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_a_unit_starts_a_command_that_exists_in_a_sandbox(unit: Path, tmp_path: Path) -> None:
    text = unit.read_text(encoding="utf-8")
    (start,) = re.findall(r"^ExecStart=/opt/vedette/bin/vedette (.+)$", text, re.MULTILINE)
    check_command(shlex.split(start))
    (environment,) = re.findall(r"^Environment=(.+)$", text, re.MULTILINE)
    pairs = dict(word.replace("%i", "2").split("=", 1) for word in shlex.split(environment))
    settings_from({name: value for name, value in pairs.items() if name.endswith("_LISTEN")})
    edge = (DEPLOY / "vedette-edge.service").read_text(encoding="utf-8")
    sandbox = [line for line in edge[edge.index("ProtectSystem") : edge.index("[Install]")].splitlines() if "=" in line]
    assert {line for line in sandbox if not line.startswith("#")} <= set(text.splitlines())


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_systemd_reads_the_units(tmp_path: Path) -> None:
    for unit in UNITS:
        text = unit.read_text(encoding="utf-8").replace("/opt/vedette/bin/vedette", "/bin/true")
        (tmp_path / unit.name.replace("@", "@2")).write_text(text, encoding="utf-8")
    done = subprocess.run(
        ["systemd-analyze", "verify", *tmp_path.iterdir()], capture_output=True, text=True, check=False
    )
    assert not re.findall(r"^.*vedette-cloud.*$", done.stderr, re.MULTILINE), done.stderr


def test_there_is_a_unit_for_each_role_and_the_ports_differ() -> None:
    roles = [re.search(r"--role (\w+)", unit.read_text(encoding="utf-8")) for unit in UNITS]
    assert {found[1] for found in roles if found} == set(ROLES)
    assert len([found for found in roles if found is None]) == 1
    metrics = [re.search(r"METRICS_LISTEN=127.0.0.1:(\S+)", unit.read_text(encoding="utf-8")) for unit in UNITS]
    assert {found[1] for found in metrics if found} == {"7479", "7481", "748%i"}


def test_compose_runs_each_role_on_the_ports_of_its_settings() -> None:
    services = COMPOSE["services"]
    assert set(services) == {*ROLES, "store"}
    for role in ROLES:
        service = services[role]
        check_command(service["command"])
        assert service["command"][:4] == ["cloud", "serve", "--role", role]
        settings = settings_from(service["environment"])
        assert settings.store_url
        published = {int(mapping.rsplit(":", 1)[-1]) for mapping in service.get("ports", ())}
        assert published <= ports_of(role, settings)
        assert (service["read_only"], service["cap_drop"]) == (True, ["ALL"])
        assert {*service["secrets"]} <= set(COMPOSE["secrets"])
        if role != "console":  # whose check is in the image
            assert f":{Address.parse(settings.metrics_listen).port}/health" in service["healthcheck"]["test"][-1]


def test_the_manifests_run_each_role_on_the_ports_of_its_settings() -> None:
    deployments, services = kind("Deployment"), kind("Service")
    settings = settings_from(kind("ConfigMap")["vedette"]["data"])
    assert set(deployments) == {f"vedette-{role}" for role in ROLES}
    for role in ROLES:
        spec = deployments[f"vedette-{role}"]["spec"]
        (container,) = spec["template"]["spec"]["containers"]
        check_command(container["args"])
        assert container["args"][:4] == ["cloud", "serve", "--role", role]
        ports = {port["containerPort"] for port in container["ports"]}
        assert ports == ports_of(role, settings)
        assert {container[name]["httpGet"]["port"] for name in ("livenessProbe", "readinessProbe")} <= ports
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
        assert spec["selector"]["matchLabels"].items() <= spec["template"]["metadata"]["labels"].items()
        mounted = {mount["name"] for mount in container["volumeMounts"]}
        assert mounted == {volume["name"] for volume in spec["template"]["spec"]["volumes"]}
    for service in services.values():
        if service["spec"].get("type") == "LoadBalancer":  # or each device has the address of a node
            assert service["spec"]["externalTrafficPolicy"] == "Local"
        role = service["spec"]["selector"]["role"]
        assert {port["port"] for port in service["spec"]["ports"]} <= ports_of(role, settings)


def test_rules_and_dashboard_use_metrics_and_labels_that_exist() -> None:
    metrics, analysis_metrics = Metrics("ingest"), AnalysisMetrics()
    for counter, label in (
        (metrics.samples, "rejected"),
        (metrics.refused_requests, "rate"),
        (analysis_metrics.verdicts, "undecided"),
        (metrics.errors, "store"),
        (metrics.rollout_stage, "biopsy"),
    ):
        counter.labels(label)
    labels: dict[str, set[str]] = {}
    for family in text_string_to_metric_families((metrics.page() + analysis_metrics.page()).decode()):
        for sample in family.samples:
            labels.setdefault(sample.name, set()).update(sample.labels)
    rules = [rule for group in RULES["groups"] for rule in group["rules"]]
    targets = [target for panel in DASHBOARD["panels"] for target in panel["targets"]]
    expressions = [rule["expr"] for rule in rules] + [target["expr"] for target in targets]
    known_labels = set[str]().union(*labels.values()) | {"job", "instance"}
    for expression in expressions:
        used = set(re.findall(r"\bvedette_\w+", expression))
        assert used <= labels.keys(), expression
        assert used or expression.startswith("up{"), expression
        grouped = re.findall(r"by \(([^)]+)\)", expression) + re.findall(r"\{(\w+)=", expression)
        assert set(grouped) <= known_labels, expression
    shown = re.findall(r"\{\{ ?(?:\$labels\.)?(\w+) ?\}\}", json.dumps([rules, targets]))
    assert set(shown) <= known_labels
