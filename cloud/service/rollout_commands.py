"""Command of rollouts: `vedette cloud rollout NAME` and `vedette cloud rollout status | pause | resume | back NAME`."""

import asyncio
from collections.abc import Awaitable, Callable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cloud.outputs import failure_as_json, write_json
from cloud.service.command_options import Config
from shared.cli import CommandTree

if TYPE_CHECKING:
    from cloud.rollouts.limits import RolloutLimits
    from cloud.rollouts.stages import Stage
    from cloud.service.rollouts import Rollouts
    from cloud.settings import CloudSettings
    from cloud.store import Store
    from cloud.store.registry import Registry
    from cloud.store.rollout_view import BundleVersions


class RolloutAction(StrEnum):
    """Action on the rollout of a name."""

    STATUS = "status"
    PAUSE = "pause"
    RESUME = "resume"
    BACK = "back"


def add_commands(tree: CommandTree) -> None:
    """Add the command to the tree."""
    tree.group("cloud").command(
        epilog="Examples: [bold]vedette cloud rollout press --to press-3-0badcafe --stages trial=press-07[/bold], "
        "[bold]vedette cloud rollout status press[/bold], [bold]vedette cloud rollout back press[/bold]"
    )(rollout)


def _limit(share: str, default: str) -> Any:
    return typer.Option(
        metavar="Nx+M%", help=f"Largest share of {share} against the bundle before. Default: {default}."
    )


def rollout(
    words: Annotated[
        list[str],
        typer.Argument(metavar="[ACTION] NAME", help="Name of the bundles, after one of: status, pause, resume, back."),
    ],
    to: Annotated[str | None, typer.Option("--to", help="Roll out the bundle with this id.")] = None,
    stages: Annotated[
        str | None, typer.Option(help="First stage: trial=DEVICE,DEVICE or trial=5%. Default: none.")
    ] = None,
    waves: Annotated[
        str | None, typer.Option(help="Shares of the fleet in percent that follow, the last 100. Default: 5,25,100.")
    ] = None,
    stage_s: Annotated[float, typer.Option(min=0, help="Shortest duration of a stage in seconds.")] = 3600.0,
    stage_samples: Annotated[
        int, typer.Option(min=0, help="Fewest samples that the new bundle screens in a stage.")
    ] = 1000,
    max_failed: Annotated[
        float | None, typer.Option(help="Share of a stage's devices that may fail to use the bundle. Default: 0.05.")
    ] = None,
    max_unhealthy: Annotated[str | None, _limit("silent or idle devices", "1x+20%")] = None,
    max_forwarded: Annotated[str | None, _limit("forwarded samples", "2x+2%")] = None,
    max_alarmed: Annotated[str | None, _limit("alarms", "2x+2%")] = None,
    max_dismissed: Annotated[str | None, _limit("forwarded samples that the cloud judged normal", "1.5x+15%")] = None,
    max_missed: Annotated[str | None, _limit("audits that the cloud judged anomalous", "2x+5%")] = None,
    min_devices: Annotated[
        int | None, typer.Option(min=1, help="Fewer devices halt nothing, unless the stage has fewer. Default: 2.")
    ] = None,
    now: Annotated[bool, typer.Option("--now", help="Give it to all devices at once, without stages.")] = False,
    back: Annotated[bool, typer.Option("--back", help="Same as the action back.")] = False,
    author: Annotated[str | None, typer.Option(help="Author in the history. Default: user:NAME.")] = None,
    reason: Annotated[str, typer.Option(help="Reason in the history.")] = "",
    json_path: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the result as JSON.")] = None,
    config: Config = None,
) -> None:
    """List the bundles of a name and its rollout, or change the bundle that its devices run.

    With --to and up to 10 devices (rollouts.few_devices) all get the bundle at once. With more of them, with --stages
    or with --waves it goes in stages, whose gates halt it.
    """
    from cloud.rollouts.stages import DEFAULT_WAVES, parse_stages
    from cloud.store.audit import local_actor
    from shared.errors import SettingsError

    with failure_as_json(json_path):
        action, name = _action(words)
        chosen = [action is not None, to is not None, back]
        if sum(chosen) > 1:
            raise SettingsError("Give one of them: an action, --to or --back.")
        in_stages = stages is not None or waves is not None
        if (to is None and (in_stages or now)) or (in_stages and now):
            raise SettingsError("--stages and --waves, or --now, need --to; give one kind of them.")
        limits = _limits(
            {"max_failed": max_failed, "min_devices": min_devices},
            {
                "max_unhealthy": max_unhealthy,
                "max_forwarded": max_forwarded,
                "max_alarmed": max_alarmed,
                "max_dismissed": max_dismissed,
                "max_missed": max_missed,
            },
        )
        if limits != _limits({}, {}) and (to is None or now):
            raise SettingsError("Limits of gates need --to and stages.")
        planned = parse_stages(stages or "", waves or DEFAULT_WAVES, least_s=stage_s, least_samples=stage_samples)

        async def work(rollouts: "Rollouts", settings: "CloudSettings") -> None:
            if to is not None:
                many = await rollouts.devices(name) > settings.rollouts.few_devices
                await _to(rollouts, name, to, planned if in_stages or (many and not now) else (), reason, limits)
            elif back or action is RolloutAction.BACK:
                await rollouts.back(name, reason)
            elif action in (RolloutAction.PAUSE, RolloutAction.RESUME):
                await rollouts.act(name, _event(action), reason)

        result = _run(config, author or local_actor(), name, work)
        write_json(json_path, result.model_dump(mode="json"))
        _show(result)


def _limits(numbers: dict[str, float | None], texts: dict[str, str | None]) -> "RolloutLimits":
    """Return the limits of the options; raises SettingsError for one that is wrong."""
    from pydantic import ValidationError

    from cloud.rollouts.limits import GateLimit, RolloutLimits
    from shared.errors import SettingsError

    values: dict[str, Any] = {name: value for name, value in numbers.items() if value is not None}
    values |= {name: GateLimit.parse(text) for name, text in texts.items() if text is not None}
    try:
        return RolloutLimits.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        raise SettingsError(f"--{str(first['loc'][0]).replace('_', '-')}: {first['msg']}.") from None


async def _to(
    rollouts: "Rollouts",
    name: str,
    bundle_id: str,
    stages: "tuple[Stage, ...]",
    reason: str,
    limits: "RolloutLimits",
) -> None:
    if stages:
        await rollouts.start(name, bundle_id, stages, reason, limits)
    else:
        await rollouts.at_once(name, bundle_id)


def _action(words: list[str]) -> tuple[RolloutAction | None, str]:
    """Return action and name; a single word is a name, also one that reads like an action."""
    from shared.errors import SettingsError

    if len(words) == 1:
        return None, words[0]
    actions = [action.value for action in RolloutAction]
    if len(words) != 2 or words[0] not in actions:
        raise SettingsError(f"Write [ACTION] NAME, where ACTION is one of: {', '.join(actions)}.")
    return RolloutAction(words[0]), words[1]


def _event(action: RolloutAction) -> Any:
    from cloud.rollouts.phases import RolloutEvent

    return RolloutEvent.PAUSE if action is RolloutAction.PAUSE else RolloutEvent.RESUME


def _run(
    config: Path | None, author: str, name: str, work: "Callable[[Rollouts, CloudSettings], Awaitable[None]]"
) -> "BundleVersions":
    """Do the work on the service's store; return the bundles of the name and its newest rollout."""
    from cloud.service.data_dir import migrate_existing, start_wait_s
    from cloud.service.rollouts import Rollouts
    from cloud.service.trusted_key import trusted_key_for_command
    from cloud.settings import CloudSettings
    from cloud.store import open_store
    from cloud.store.registry import Registry

    settings = CloudSettings.load(config)
    migrate_existing(settings.store, start_wait_s(config))

    async def inside() -> "BundleVersions":
        async with open_store(settings.store) as store:
            registry = Registry(store, settings.store, trusted_key_for_command(settings))
            await work(Rollouts(store, registry, author), settings)
            return await _result(store, registry, name)

    return asyncio.run(inside())


async def _result(store: "Store", registry: "Registry", name: str) -> "BundleVersions":
    from cloud.store.rollout_view import BundleVersion, BundleVersions, rollout_view
    from shared.errors import BundleError

    versions, current = await registry.versions(name), await registry.current(name)
    if not versions:
        raise BundleError(f"No bundle named {name!r} in the registry: add one with vedette cloud publish.")
    bundles = tuple(
        BundleVersion(
            bundle_id=entry.bundle_id,
            version=entry.version,
            modality=entry.modality,
            published_at_s=entry.published_at_s,
            is_current=entry == current,
        )
        for entry in versions
    )
    async with store.reading() as connection:
        return BundleVersions(name=name, bundles=bundles, rollout=await rollout_view(connection, name))


def _show(result: "BundleVersions") -> None:
    """Print the bundles, and the rollout with its gates and history."""
    from cloud.words import moment_words

    for entry in result.bundles:
        mark = "*" if entry.is_current else " "
        typer.echo(f"{mark} {entry.bundle_id}  {entry.modality}  published {moment_words(entry.published_at_s)}")
    found = result.rollout
    if found is None:
        return
    typer.echo(f"\nRollout to {found.bundle_id} from {found.before_bundle_id}: {found.phase}.")
    for stage in found.stages:
        typer.echo(f"  {stage.name}: {stage.state}")
    for gate in found.gates:
        typer.echo(f"  gate {gate.gate} {gate.outcome}: {gate.text}")
    for change in found.history:
        reason = f": {change.reason}" if change.reason else ""
        typer.echo(f"  {moment_words(change.at_s)}  {change.event} ({change.stage}) by {change.author}{reason}")
