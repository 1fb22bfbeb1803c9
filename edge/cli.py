"""The commands of the agent."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge import federated_commands
from shared.cli import CommandTree

if TYPE_CHECKING:
    from edge.settings import AgentSettings

ConfigOption = Annotated[Path, typer.Option("--config", "-c", help="The agent's settings, a TOML file.")]
SWITCH_S = 5e-4  # Python's default is 5 ms: too long for a thread with samples for an engine
_EXAMPLE = "[bold]Example:[/bold] vedette edge {} --config edge.toml{}"


def register(tree: CommandTree) -> None:
    """Add the agent's commands to the tree."""
    group = tree.group("edge")
    group.command("run", epilog=_EXAMPLE.format("run", " --until-done"))(run)
    group.command("enroll", epilog=_EXAMPLE.format("enroll", " --token-file token.txt"))(enroll)
    group.command("status", epilog=_EXAMPLE.format("status", " --watch"))(status)
    group.command("check", epilog=_EXAMPLE.format("check", " --json"))(check)
    group.command("spool", epilog=_EXAMPLE.format("spool", ""))(spool)
    group.command("test-alarms", epilog=_EXAMPLE.format("test-alarms", ""))(try_alarms)
    federated_commands.add_commands(tree)


def run(
    config: ConfigOption = Path("edge.toml"),
    until_done: Annotated[
        bool,
        typer.Option("--until-done", help="Stop after the last sample, once all verdicts arrived."),
    ] = False,
    print_config: Annotated[
        bool, typer.Option("--print-config", help="Print the settings in force as TOML and exit.")
    ] = False,
) -> None:
    """Screen the configured sources and forward suspicious samples."""
    # Before NumPy is loaded: a second thread of its linear algebra would spin on a core that the engine needs.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from edge.settings import AgentSettings

    settings = AgentSettings.load(config)
    if print_config:
        typer.echo(settings.as_text())
        return
    import signal

    from edge.agent import Agent
    from edge.operation.memory import limit_arenas
    from shared import logs

    limit_arenas()
    sys.setswitchinterval(SWITCH_S)
    logs.configure(settings.log.level, settings.log.format)
    _report_checks(settings)
    agent = Agent(settings)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: agent.stop())
    agent.run(until_done=until_done)


def _report_checks(settings: "AgentSettings") -> None:
    """Log what is not ready yet; raise the error of the first check that fails."""
    from edge.check import Level, check_start
    from shared.logs import EventLog

    log = EventLog("check")
    for finding in check_start(settings):
        if finding.problem is not None:
            raise finding.problem
        if finding.level is Level.WARNING:
            log.warning("not_ready", check=finding.name, finding=finding.text)


def check(
    config: ConfigOption = Path("edge.toml"),
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
) -> None:
    """Check that everything can work before the agent starts: paths, columns, bundles, keys, ports, brokers, cameras.

    The exit code is that of the first check that fails, and 0 if there are only warnings.
    """
    from edge.check import check as check_all
    from edge.check import exit_code, finding_lines, findings_json, settings_finding
    from edge.settings import AgentSettings
    from shared import logs
    from shared.errors import SettingsError

    logs.configure("error")
    try:
        findings = check_all(AgentSettings.load(config))
    except SettingsError as error:
        findings = [settings_finding(error)]
    if as_json:
        typer.echo(findings_json(findings))
    else:
        for line in finding_lines(findings):
            typer.echo(line)
    if code := exit_code(findings):
        raise typer.Exit(code)


def enroll(
    config: ConfigOption = Path("edge.toml"),
    token: Annotated[str | None, typer.Option("--token", help="Enrolment token of vedette cloud token.")] = None,
    token_file: Annotated[Path | None, typer.Option("--token-file", help="A file with the token.")] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Replace the identity of an enrolled device.")] = False,
) -> None:
    """Enrol the device with a one-time token: make its key here and get a certificate for it."""
    from edge.settings import AgentSettings
    from edge.uplink.enrolment import enroll as enroll_device
    from shared.errors import EnrolmentError

    settings = AgentSettings.load(config)
    if (token is None) == (token_file is None):
        raise EnrolmentError("Give the token with either --token or --token-file.")
    if token_file is not None:
        try:
            token = token_file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise EnrolmentError(f"{token_file}: cannot be read ({error}).") from None
    identity = enroll_device(settings.state_dir, token or "", replace=replace)
    typer.echo(
        f"Enrolled as {identity.device_id} at {identity.address}; the certificate is valid until "
        f"{identity.not_after:%Y-%m-%d}. Next: vedette edge run --config {config}"
    )


def status(
    config: ConfigOption = Path("edge.toml"),
    as_json: Annotated[bool, typer.Option("--json", help="Print the whole status as JSON.")] = False,
    follow: Annotated[bool, typer.Option("--watch", "-w", help="Redraw it every second until Ctrl-C.")] = False,
) -> None:
    """Show the status of the agent: live while it runs, else the last one it wrote."""
    from edge.operation.inspection import read_status, status_lines
    from edge.settings import AgentSettings

    state_dir = AgentSettings.load(config).state_dir
    if follow:
        from rich.console import Console

        from edge.operation.status_view import watch

        watch(state_dir, Console())
        return
    observed = read_status(state_dir)
    if as_json:
        typer.echo(observed.model_dump_json(indent=2))
        return
    for line in status_lines(observed):
        typer.echo(line)


def spool(
    config: ConfigOption = Path("edge.toml"),
    limit: Annotated[int, typer.Option("--limit", min=1, max=1000, help="How many samples to list.")] = 10,
) -> None:
    """Show the waiting samples of the spool and those that the service refused."""
    from edge.operation.inspection import spool_lines
    from edge.settings import AgentSettings

    for line in spool_lines(AgentSettings.load(config).state_dir, limit):
        typer.echo(line)


def try_alarms(config: ConfigOption = Path("edge.toml")) -> None:
    """Send a test message to each configured alarm sink and print the result."""
    from edge.alarms.trial import try_sinks
    from edge.settings import AgentSettings
    from shared.errors import ConnectionFailedError, SettingsError

    settings = AgentSettings.load(config)
    if not settings.alarms:
        raise SettingsError(f"{config}: names no sink of alarms: add an [[alarms]] table (docs/ALARMS.md).")
    failed = []
    for name, error in try_sinks(settings.alarms):
        typer.echo(f"{name}: {error or 'delivered'}")
        failed += [name] if error else []
    if failed:
        raise ConnectionFailedError(f"Not delivered to {', '.join(failed)}: correct its table [[alarms]] in {config}.")
