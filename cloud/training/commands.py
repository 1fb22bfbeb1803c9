"""`vedette train` and `vedette bundle inspect|verify|sign`."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cloud.outputs import check_config_path, check_output_path, failure_as_json, write_json
from cloud.table_options import DATES, DECIMAL, DELIMITER, ENCODING, TIME_COLUMN
from shared.cli import CommandTree
from shared.errors import DataError, JudgementError, SettingsError
from shared.garbage import collection_paused
from shared.modality import Modality

if TYPE_CHECKING:
    from cloud.training.judgement.judge import Judgement
    from cloud.training.settings import TrainingSettings
    from shared.bundle import InputSpec

_BUNDLE = Annotated[Path, typer.Argument(metavar="BUNDLE", help="The bundle's archive.")]
_TRUSTED = Annotated[
    Path | None,
    typer.Option("--key", metavar="PUBLIC.pem", help="The trusted public key; by default that of your signing key."),
]
_JSON = Annotated[
    Path | None, typer.Option("--json", metavar="FILE", help="Write the result, or the failure, as JSON to this file.")
]
_SIGNING = Annotated[
    Path | None,
    typer.Option(
        metavar="PRIVATE.pem", help="Key to sign with; by default $VEDETTE_HOME/signing.pem, made when absent."
    ),
]


def add_commands(tree: CommandTree) -> None:
    """Add the training and bundle commands to the tree."""
    tree.root.command(
        epilog="Examples:  vedette train readings.csv --modality tabular --output pump.vedette  |  "
        "vedette train pressure.csv --modality series --window-length 64 --output artery.vedette  |  "
        "vedette train good-photos/ --modality image --output camera.vedette --plots plots/ --strict  |  "
        "vedette train good-photos/ --modality image --effort first-look --output look.vedette"
    )(train)
    group = tree.group("bundle")
    group.command(epilog="Example:  vedette bundle inspect pump.vedette")(inspect)
    group.command(epilog="Example:  vedette bundle verify pump.vedette --key plant.pem")(verify)
    group.command(epilog="Example:  vedette bundle sign pump.vedette --signing-key plant-private.pem")(sign)


def train(
    data: Annotated[
        Path, typer.Argument(metavar="DATA", help="A .npz, .csv or .parquet file, or a folder of images or videos.")
    ],
    modality: Annotated[Modality, typer.Option(help="Kind of the data: tabular, series, image or video.")],
    output: Annotated[Path | None, typer.Option(metavar="BUNDLE", help="File to write the bundle to.")] = None,
    config: Annotated[Path | None, typer.Option(metavar="FILE", help="Settings in TOML; options override it.")] = None,
    json_path: _JSON = None,
    name: Annotated[str, typer.Option(help="Name of the bundle; by default from the data's name.")] = "",
    version: Annotated[
        int | None, typer.Option(min=0, help="Version of the bundle, refused if taken; 0: the next free one.")
    ] = None,
    registry: Annotated[
        Path | None,
        typer.Option(metavar="CLOUD.toml", help="Settings of a service; versions in its registry are taken."),
    ] = None,
    signing_key: _SIGNING = None,
    label_column: Annotated[str, typer.Option(help="Column that marks anomalies; by default label, anomaly, ...")] = "",
    time_column: TIME_COLUMN = "",
    delimiter: DELIMITER = "",
    decimal: DECIMAL = "",
    encoding: ENCODING = "",
    dates: DATES = "",
    mode_column: Annotated[
        str, typer.Option(help="Column with the number of the operating mode; each is calibrated.")
    ] = "",
    drop_bad_rows: Annotated[
        bool, typer.Option("--drop-bad-rows", help="Leave out rows and images that are NaN or unreadable.")
    ] = False,
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="Treat NaN and empty cells as missing values, here and on devices.")
    ] = False,
    one_hot: Annotated[bool, typer.Option("--one-hot", help="Columns of text become one channel per text.")] = False,
    trim_share: Annotated[
        float | None,
        typer.Option(min=0, max=0.3, help="Least likely share of the training rows or windows to leave out."),
    ] = None,
    window_length: Annotated[
        int | None, typer.Option(min=0, help="Series: time points per window; 0: about one period.")
    ] = None,
    window_stride: Annotated[
        int | None, typer.Option(min=0, help="Series: time points between windows; 0: a quarter window.")
    ] = None,
    image_size: Annotated[
        int | None, typer.Option(min=0, help="Images: pixels per side, a multiple of 16; 0: from the images.")
    ] = None,
    effort: Annotated[
        str,
        typer.Option(
            metavar="SHARE", help="Share of the training steps, 0 to 1, or first-look: minutes, for coarse results."
        ),
    ] = "",
    false_alarms_per_day: Annotated[
        float | None,
        typer.Option(min=0, help="False alarms a day to judge the screener at, 1 by default; 0: no alarms are wanted."),
    ] = None,
    samples_per_day: Annotated[
        float | None,
        typer.Option(min=0, help="Samples a source gives in a day; 0: from the times of a series, or 1440."),
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Write no bundle if the judgement has a warning; exit code 17.")
    ] = False,
    plots: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder for pictures of found and missed corrupted samples.")
    ] = None,
    print_config: Annotated[
        bool, typer.Option("--print-config", help="Print the settings in force as TOML and stop.")
    ] = False,
) -> None:
    """Train a screener and its analyzers on normal data, and pack them into a signed bundle.

    The run ends with a judgement: the rarest p-value of the held-out normals, the share of corrupted copies found, the
    expected share forwarded, and drift. docs/TRAINING.md explains each sentence.
    """
    changes: dict[str, Any] = {
        "name": name,
        "version": version,
        "data": {
            "label_column": label_column,
            "time_column": time_column,
            "mode_column": mode_column,
            "bad_rows": "drop" if drop_bad_rows else "",
            "missing": "allow" if allow_missing else "",
            "categories": "one_hot" if one_hot else "",
            "trim_share": trim_share,
            "table": {"delimiter": delimiter, "decimal": decimal, "encoding": encoding, "dates": dates},
        },
        "series": {"window_length": window_length, "window_stride": window_stride},
        "image": {"height": image_size, "width": image_size},
        "judgement": {"false_alarms_per_day": false_alarms_per_day, "samples_per_day": samples_per_day},
    }
    with failure_as_json(json_path):
        check_config_path(config)  # before the imports, which take seconds
        with collection_paused():
            from cloud.training.effort import FIRST_LOOK, FIRST_LOOK_NOTE, effort_settings
            from cloud.training.settings import TrainingSettings

        of_effort = effort_settings(effort)
        changes |= {**of_effort, "image": {**of_effort.get("image", {}), **changes["image"]}}
        settings = TrainingSettings.load(config).changed(changes)
        if print_config:
            typer.echo(settings.as_text())
            return
        target = _checked_paths(data, output)
        if effort == FIRST_LOOK:
            _notice(FIRST_LOOK_NOTE)
        settings = _with_version(settings, data, target, registry)
        summary = _train(data, modality, target, settings, signing_key, _Ending(strict, plots))
    write_json(json_path, summary)


def inspect(
    bundle: _BUNDLE,
    key: _TRUSTED = None,
    json_path: _JSON = None,
) -> None:
    """Show a bundle's manifest, and whether a trusted key signed it."""
    from cloud.training.report import describe, show_bundle
    from shared.bundle import Bundle
    from shared.errors import BundleIntegrityError, CertificateError
    from shared.home import trusted_key
    from shared.signing_keys import key_id

    check_output_path(json_path)
    manifest = Bundle.peek(bundle)
    try:
        trusted = trusted_key(key)
        Bundle.open(bundle, [trusted], edge_only=True)
        signature = f"valid, by key {key_id(trusted)}"
    except (BundleIntegrityError, CertificateError) as error:
        signature = f"NOT trusted: {error}"
    show_bundle(manifest, signature)
    write_json(json_path, {**describe(manifest), "signature": signature})


def verify(bundle: _BUNDLE, key: _TRUSTED = None) -> None:
    """Check every byte of a bundle against a trusted key; exit code 5 if one differs."""
    from shared.bundle import Bundle
    from shared.home import trusted_key
    from shared.signing_keys import key_id

    trusted = trusted_key(key)
    opened = Bundle.open(bundle, [trusted], edge_only=True)
    typer.echo(f"{bundle}: {opened.manifest.bundle_id} is signed by key {key_id(trusted)}, and no file was changed.")


def sign(
    bundle: _BUNDLE,
    key: _TRUSTED = None,
    signing_key: _SIGNING = None,
    output: Annotated[
        Path | None, typer.Option(metavar="FILE", help="File to write to; by default the bundle itself.")
    ] = None,
) -> None:
    """Sign a bundle with another key, after verifying it against the trusted key."""
    import shared.bundle
    from shared.home import signing_key as find_signing_key
    from shared.home import trusted_key
    from shared.signing_keys import key_id

    opened = shared.bundle.Bundle.open(bundle, [trusted_key(key)])
    private = find_signing_key(signing_key, _notice)
    signed = shared.bundle.sign(opened.manifest, opened.files, private)
    target = output if output is not None else bundle
    signed.save(target)
    typer.echo(f"{target}: {signed.manifest.bundle_id} is now signed by key {key_id(private.public_key())}.")


@dataclass(frozen=True, slots=True)
class _Ending:
    """Options on the judgement that ends a training run."""

    strict: bool
    plots: Path | None

    def judged(self, judgement: "Judgement", spec: "InputSpec") -> list[str]:
        """Draw the requested pictures and return their names. Raises JudgementError for a warning, if strict."""
        drawn: list[str] = []
        if self.plots is not None:
            from cloud.training.judgement.pictures import draw_copies

            rate = judgement.figures.resolution.rate
            drawn = [path.name for path in draw_copies(judgement.copies, rate, spec, self.plots)]
        if self.strict and judgement.warnings:
            from cloud.training.report import show_judgement

            show_judgement(judgement.to_json())
            more = f" ({len(judgement.warnings) - 1} more above)" if len(judgement.warnings) > 1 else ""
            raise JudgementError(
                f"No bundle was written, as --strict asks: {judgement.warnings[0]}{more}", judgement.to_json()
            )
        return drawn


def _checked_paths(data: Path, output: Path | None) -> Path:
    """Return the path of the bundle to write; raise DataError or SettingsError unless both paths can be used."""
    if not data.exists():
        raise DataError(f"{data}: no such file or folder. Name the training data.")
    if output is None:
        raise SettingsError("No output file: give --output BUNDLE.")
    check_output_path(output, "--output")
    return output


def _with_version(settings: "TrainingSettings", data: Path, output: Path, registry: Path | None) -> "TrainingSettings":
    """Return the settings with the bundle's version, and print it. Raises SettingsError if it is taken."""
    with collection_paused():
        from cloud.training.choices import bundle_name
        from cloud.training.version import choose_version

    name = settings.name or bundle_name(str(data))
    version, sentence = choose_version(name, settings.version, output, registry)
    _notice(sentence)
    return settings.changed({"version": version})


def _train(
    data: Path, modality: Modality, output: Path, settings: Any, key: Path | None, ending: _Ending
) -> dict[str, Any]:
    """Train, save and report; return the summary for --json."""
    with collection_paused():
        from cloud.training.modalities import load_training_data
        from cloud.training.progress import shown_progress
        from cloud.training.report import show_training, summarise
        from cloud.training.train import train_bundle
        from shared.home import signing_key

    private = signing_key(key, _notice)
    with shown_progress() as progress:
        progress("reading", 0.0)
        drawn: list[str] = []
        bundle = train_bundle(
            load_training_data(data, modality, settings.data),
            settings,
            private,
            progress,
            judged=lambda judgement, spec: drawn.extend(ending.judged(judgement, spec)),
        )
    bundle.save(output)
    summary = summarise(bundle, output, data)
    if ending.plots is not None:
        summary["plots"] = drawn
    show_training(summary)
    return summary


def _notice(text: str) -> None:
    typer.echo(text, err=True)
