"""The files in deploy/ fit the program: settings that are read, commands that exist, ports and paths that agree."""

import json
import re
import shlex
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from typer.main import get_command

from cloud.settings import CloudSettings
from edge.settings import AgentSettings
from shared import cli
from shared.addresses import Address

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
CONTAINER_FILES = [DEPLOY / "edge.Containerfile", DEPLOY / "cloud.Containerfile"]


def check_command(words: list[str]) -> None:
    """Fail unless `vedette WORDS` is a command with such options."""
    command: Any = get_command(cli.build().root)
    context = click.Context(command, info_name="vedette")
    rest = list(words)
    while rest and rest[0] in getattr(command, "commands", {}):
        command = command.commands[rest.pop(0)]
        context = click.Context(command, info_name=command.name, parent=context)
    assert not hasattr(command, "commands"), f"{words}: no such command"
    known = {option for parameter in command.params for option in parameter.opts}
    assert {word for word in rest if word.startswith("--")} <= known, f"{words}: {command.name} knows {known}"


def instructions(path: Path) -> list[str]:
    """The instructions of a container file, each on one line, without comments."""
    text = re.sub(r"^\s*#.*\n", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return [line.strip() for line in re.sub(r"\\\n\s*", "", text).splitlines() if line.strip()]


def only(path: Path, keyword: str) -> str:
    found = [line.removeprefix(keyword).strip() for line in instructions(path) if line.startswith(f"{keyword} ")]
    assert len(found) == 1, f"{path.name}: {keyword} {len(found)} times"
    return found[0]


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))
    return loaded


def test_the_example_settings_are_read_by_the_real_classes() -> None:
    agent = AgentSettings.load(DEPLOY / "edge.toml", {})
    service = CloudSettings.load(DEPLOY / "cloud.toml", {})

    assert agent.sources
    assert Address.parse(agent.metrics.address).port == 9100
    assert str(agent.state_dir).startswith("/var/lib/vedette/")
    assert str(service.data_dir).startswith("/var/lib/vedette/")


@pytest.mark.parametrize("path", CONTAINER_FILES, ids=lambda path: path.name)
def test_a_container_file_starts_a_command_that_exists_and_is_not_root(path: Path) -> None:
    assert json.loads(only(path, "ENTRYPOINT")) == ["vedette"]
    check_command(json.loads(only(path, "CMD")))
    assert only(path, "USER") == "10001:10001"
    bases = [line.split()[1] for line in instructions(path) if line.startswith("FROM ")]
    assert set(bases) == {"python:${PYTHON}"}
    assert len(bases) == 2
    lines = instructions(path)
    assert next(line for line in lines if line.startswith("USER")) in lines[lines.index(f"FROM {bases[1]}") :]


@pytest.mark.parametrize("path", CONTAINER_FILES, ids=lambda path: path.name)
def test_a_container_file_copies_the_files_of_an_installation(path: Path) -> None:
    copied = {word for line in instructions(path) if line.startswith("COPY ") for word in line.split()[1:-1]}
    copied -= {"--from=build", "/opt/vedette"}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

    assert {
        "edge",
        "cloud",
        "shared",
        "proto",
        "pyproject.toml",
        project["readme"],
        *project["license-files"],
    } <= copied
    assert all((ROOT / name).exists() for name in copied)
    kept = {
        line[1:] for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines() if line.startswith("!")
    }
    assert copied == kept
    extras = re.search(r"^ARG EXTRAS=(.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    assert extras is not None
    assert set(extras[1].split(",")) <= set(project["optional-dependencies"])


@pytest.mark.parametrize("path", CONTAINER_FILES, ids=lambda path: path.name)
def test_torch_comes_first_and_in_the_version_of_the_project(path: Path) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    pinned = next(name for name in project["optional-dependencies"]["cloud"] if name.startswith("torch"))
    steps = [line for line in instructions(path) if " install " in line]
    assert pinned in steps[0]
    assert '".[${EXTRAS}]"' in steps[1]


def test_health_checks_use_the_port_of_the_settings(compose: dict[str, Any]) -> None:
    ports = {}
    for path in CONTAINER_FILES:
        asked = re.search(r"HEALTHCHECK.*http://127\.0\.0\.1:(\d+)/health", " ".join(instructions(path)))
        assert asked is not None
        ports[path.name] = int(asked[1])
    service = CloudSettings.load(DEPLOY / "cloud.toml", {})
    agent = AgentSettings.load(DEPLOY / "edge.toml", {})
    assert Address.parse(service.console_listen).port == ports["cloud.Containerfile"]
    assert Address.parse(agent.metrics.address).port == ports["edge.Containerfile"]
    assert Address.parse(compose["services"]["cloud"]["environment"]["VEDETTE_CONSOLE_LISTEN"]).port == 7480


def test_the_service_reads_the_environment_of_compose(compose: dict[str, Any]) -> None:
    environment = {
        name: re.sub(r"\$\{\w+:-(\w+)\}", r"\1", value)
        for name, value in compose["services"]["cloud"]["environment"].items()
    }
    service = CloudSettings.load(DEPLOY / "cloud.toml", environment)

    assert service.advertised_address == "cloud:7443"
    assert service.advertised_enrolment_address == "cloud:7444"
    assert "cloud" in service.server_names
    assert str(service.bundle_key) == "/run/secrets/bundle_key"
    assert all(name.removeprefix("VEDETTE_").lower() in CloudSettings.model_fields for name in environment)
    published = [mapping.rsplit(":", 2)[-1] for mapping in compose["services"]["cloud"]["ports"]]
    listened = (service.listen, service.enrolment_listen, service.console_listen)
    assert published == [str(Address.parse(address).port) for address in listened]


def test_compose_mounts_what_the_settings_name(compose: dict[str, Any]) -> None:
    services = compose["services"]
    assert services["enrol"]["volumes"] == services["edge"]["volumes"]
    targets = [volume.split(":")[1] for volume in services["edge"]["volumes"]]
    agent = AgentSettings.load(DEPLOY / "edge.toml", {})
    for path in (agent.state_dir, *(source.path for source in agent.sources), Path("/etc/vedette/edge.toml")):
        assert any(path.is_relative_to(target) for target in targets), path
    for name in ("cloud.toml", "edge.toml"):
        assert (DEPLOY / name).is_file()
    check_command(services["enrol"]["command"])


def test_every_container_is_hardened(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        for volume in service["volumes"]:
            assert volume.split(":")[0] in compose["volumes"] or volume.endswith(":ro"), volume
        for secret in service.get("secrets", []):
            assert secret in compose["secrets"], secret


def test_the_commands_of_the_guide_exist() -> None:
    text = (DEPLOY / "README.md").read_text(encoding="utf-8")
    found = re.findall(r"^(?:docker|sudo) .*\bvedette ((?:edge|cloud) [^>&#\n]+)", text, re.MULTILINE)
    commands = [command.strip() for command in found]
    assert len(commands) >= 4
    for command in commands:
        check_command(shlex.split(command))


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_the_unit_is_sound_and_sandboxed(tmp_path: Path) -> None:
    text = (DEPLOY / "vedette-edge.service").read_text(encoding="utf-8")
    start = re.search(r"^ExecStart=/opt/vedette/bin/vedette (.+)$", text, re.MULTILINE)
    assert start is not None
    check_command(shlex.split(start[1]))
    unit = tmp_path / "vedette-edge.service"
    unit.write_text(text.replace("/opt/vedette/bin/vedette", shutil.which("true") or "/bin/true"), encoding="utf-8")

    verified = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True, check=False)
    if "Failed to initialize manager" in verified.stderr:
        pytest.skip("systemd-analyze cannot run here")
    assert unit.name not in verified.stderr
    rated = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--threshold=20", "--no-pager", unit],
        capture_output=True,
        text=True,
        check=False,
    )
    assert rated.returncode == 0, rated.stdout[-300:]
