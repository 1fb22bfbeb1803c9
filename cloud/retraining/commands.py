"""Command `vedette retrain`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from cloud.outputs import check_config_path, check_output_path, failure_as_json, write_json
from cloud.service.command_options import Config
from shared.cli import CommandTree
from shared.errors import JudgementError, SettingsError
from shared.garbage import collection_paused


def add_commands(tree: CommandTree) -> None:
    """Add the command to the tree."""
    tree.root.command(
        epilog="Examples:  vedette retrain press --config cloud.toml  |  "
        "vedette retrain press --config cloud.toml --days 90 --publish  |  "
        "vedette retrain press --config cloud.toml --calibrate-only  |  "
        "vedette retrain press --config cloud.toml --publish --trial trial=5% --json result.json"
    )(retrain)


def retrain(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the bundle to retrain.")],
    config: Config = None,
    days: Annotated[float, typer.Option(min=0.001, help="Age of the oldest sample to learn from, in days.")] = 30.0,
    output: Annotated[
        Path | None, typer.Option(metavar="FILE", help="File for the candidate. Default: NAME.vedette.")
    ] = None,
    effort: Annotated[
        float | None, typer.Option(min=0.001, max=1, help="Share of the training steps. Default: as the running one.")
    ] = None,
    calibrate_only: Annotated[
        bool,
        typer.Option("--calibrate-only", help="Keep all networks; calibrate the fusion with labelled false alarms."),
    ] = False,
    publish: Annotated[
        bool, typer.Option("--publish", help="Add the candidate to the registry, unless it is worse: exit code 17.")
    ] = False,
    trial: Annotated[
        str, typer.Option(help="With --publish: begin a rollout with trial=DEVICE,DEVICE or trial=5%.")
    ] = "",
    waves: Annotated[str, typer.Option(help="Shares of the fleet in percent after the trial, the last 100.")] = "",
    signing_key: Annotated[
        Path | None,
        typer.Option(metavar="PRIVATE.pem", help="Key to sign with. Default: training.signing_key of the settings."),
    ] = None,
    json_path: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write the result, or the failure, as JSON.")
    ] = None,
) -> None:
    """Retrain a bundle on the samples and labels that the service has stored, and compare it with the running one.

    Samples judged normal and labelled false alarms are learned as normal; samples labelled real or missed never are.
    A fifth of the samples is frozen: no retraining learns from it, and both bundles are compared on it.
    """
    with failure_as_json(json_path):
        check_config_path(config)
        target = output if output is not None else Path(f"{name}.vedette")
        check_output_path(target, "--output")
        if (trial or waves) and not publish:
            raise SettingsError("--trial and --waves begin a rollout: give --publish as well.")
        with collection_paused():
            from cloud.retraining.run import RetrainRequest
            from cloud.retraining.run import retrain as run
            from cloud.rollouts.stages import DEFAULT_STAGE_S, DEFAULT_STAGE_SAMPLES, DEFAULT_WAVES, parse_stages
            from cloud.service.data_dir import migrate_existing, start_wait_s
            from cloud.service.trusted_key import trusted_key_for_command
            from cloud.settings import CloudSettings
            from cloud.training.progress import shown_progress

        settings = CloudSettings.load(config)
        planned = parse_stages(
            trial, waves or DEFAULT_WAVES, least_s=DEFAULT_STAGE_S, least_samples=DEFAULT_STAGE_SAMPLES
        )
        stages = planned if trial or waves else ()
        migrate_existing(settings.store, start_wait_s(config))
        key = trusted_key_for_command(settings)
        request = RetrainRequest(
            name, settings, key, days, target, signing_key, effort, publish, calibrate_only, stages, config
        )
        with shown_progress() as progress:
            result = run(request, progress)
        _show(result)
        if result["published"] == "refused":
            facts = {key: value for key, value in result.items() if key != "status"}
            raise JudgementError("The candidate was not published: it is worse than the running bundle.", facts)
    write_json(json_path, result)


def _show(result: dict[str, Any]) -> None:
    """Print the comparison in words."""
    counts, figures = result["samples"], result["comparison"]
    normals = counts["judged_normal"] + counts["audits"]
    done = (
        f"learned from {normals} samples judged normal, {counts['false_alarms']} labelled false alarms and "
        f"{counts['real'] + counts['missed']} labelled defects"
    )
    if (facts := result["recalibration"]) is not None:
        done = (
            f"calibrated with {facts['false_alarms']} labelled false alarms of about {facts['stream_normals']:,} "
            f"normal samples as {facts['added_scores']} more scores"
        )
    typer.echo(
        f"{result['bundle_id']}: {done}, and compared with {result['running_bundle_id']} on {counts['frozen']} frozen "
        f"samples, {counts['frozen_labelled']} of them labelled."
    )
    for sentence in figures["sentences"]:
        typer.echo(f"- {sentence}")
    for problem in figures["problems"]:
        typer.echo(f"Note: {problem}")
    typer.echo(f"Wrote {result['bundle']}{_PUBLISHED[result['published']]}.")
    typer.echo(f"Next: {result['next_command']}")


_PUBLISHED = {
    "": "",
    "refused": "",
    "registered": " and added it to the registry",
    "rollout begun": ", added it to the registry and began its rollout",
}
