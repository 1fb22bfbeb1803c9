"""Summaries of a training run and of a bundle, as text and as JSON."""

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from shared.bundle import Bundle, Manifest
from shared.terminal import new_console, print_table


def summarise(bundle: Bundle, path: Path, data: Path) -> dict[str, Any]:
    """Return the summary of a training run on `data` as JSON values."""
    return {
        "status": "ok",
        "bundle": str(path),
        "bundle_bytes": path.stat().st_size,
        "device_bytes": len(bundle.archive(edge_only=True)),
        "next_command": next_command(bundle.manifest, path, data),
        **describe(bundle.manifest),
    }


def next_command(manifest: Manifest, path: Path, data: Path) -> str:
    """Return the command to run next: an evaluation where the data has labels, else the publication."""
    if manifest.training["labelled_samples"]:
        return f"vedette evaluate {shlex.quote(str(path))} {shlex.quote(str(data))} --plots plots/"
    return f"vedette cloud publish {shlex.quote(str(path))} --config cloud.toml"


def describe(manifest: Manifest) -> dict[str, Any]:
    """Return the manifest without the list of files as JSON values."""
    return {"bundle_id": manifest.bundle_id, **manifest.model_dump(mode="json", exclude={"files"})}


def show_training(summary: dict[str, Any]) -> None:
    """Print the summary of a training run."""
    console = Console(highlight=False, soft_wrap=True)
    training = summary["training"]
    console.print(
        f"{summary['bundle_id']}: {summary['modality']}, {training['train_samples']} normal samples to train on, "
        f"{training['held_out_samples']} held out, {training['seconds']} s.",
        markup=False,
    )
    for note in training["notes"]:
        console.print(f"Note: {note}.", markup=False)
    _show_parity(console, summary["parity"], training)
    others = {name: value for name, value in training["auroc"].items() if name not in summary["parity"]}
    if others:
        text = ", ".join(f"{name} {value:.4f}" for name, value in others.items())
        console.print(f"AUROC of the analyzers: {text}.", markup=False)
    console.print(
        f"Wrote {summary['bundle']} ({_mebibytes(summary['bundle_bytes'])}; a device fetches "
        f"{_mebibytes(summary['device_bytes'])}).",
        markup=False,
    )
    show_judgement(training["judgement"])
    if summary.get("plots"):
        console.print(f"Pictures of found and missed copies: {', '.join(summary['plots'])}.", markup=False)
    console.print(f"Next: {summary['next_command']}", markup=False)


def show_judgement(judgement: Mapping[str, Any], console: Console | None = None) -> None:
    """Print the judgement of a training run, as its manifest holds it; nothing for older bundles."""
    console = console if console is not None else Console(highlight=False, soft_wrap=True)
    if judgement.get("sentences"):
        console.print("Judgement on held-out normal data:")
    for sentence in judgement.get("sentences", ()):
        console.print(f"- {sentence}", markup=False)
    for sentence in judgement.get("warnings", ()):
        console.print(f"Warning: {sentence}", markup=False, style="yellow")


def show_bundle(manifest: Manifest, signature: str) -> None:
    """Print a description of a bundle."""
    console = Console(highlight=False, soft_wrap=True)
    spec = manifest.input.model_dump(exclude_defaults=True)
    shape = ", ".join(f"{key} {', '.join(value) if isinstance(value, tuple) else value}" for key, value in spec.items())
    lines = {
        "bundle": manifest.bundle_id,
        "signature": signature,
        "modality": str(manifest.modality),
        "input": shape,
        "created": manifest.created_at,
        "parent": manifest.parent_bundle_id or "none",
        "preferred": manifest.preferred_artefact,
        "files": f"{len(manifest.files)}, {_mebibytes(sum(entry.size_bytes for entry in manifest.files.values()))}",
    }
    for key, value in lines.items():
        console.print(f"{key:<10} {value}", markup=False)
    parity = {name: figures.model_dump() for name, figures in manifest.parity.items()}
    _show_parity(console, parity, manifest.training)
    tolerances = ", ".join(f"{key} {limit:g}" for key, limit in manifest.tolerances.items())
    console.print(f"Tolerances of the gate: {tolerances}.", markup=False)
    show_judgement(manifest.training.get("judgement", {}))


def _show_parity(console: Console, parity: dict[str, dict[str, Any]], training: dict[str, Any]) -> None:
    """Print the gate's figures of each artefact, and the layers of the INT8 artefacts in float."""
    # Bundles of earlier versions hold the number of these layers instead of their names.
    layers = {name: names for name, names in training.get("float_layers", {}).items() if isinstance(names, list)}
    counts = {name: f"{len(names)} of {training['layers']}" for name, names in layers.items()}
    _print_parity(parity, training.get("auroc", {}), counts)
    for name, names in layers.items():
        console.print(f"In float in {name}: {', '.join(names)}.", markup=False)


def _print_parity(
    parity: Mapping[str, Mapping[str, Any]], aurocs: Mapping[str, float], in_float: Mapping[str, str]
) -> None:
    columns = ["artefact", "rank correlation", "label agreement", "largest difference"]
    columns += ["in float"] if in_float else []
    columns += ["AUROC"] if any(name in aurocs for name in parity) else []
    rows = []
    for name, figures in parity.items():
        auroc = aurocs.get(name)
        cells = {
            "artefact": name,
            "rank correlation": f"{figures['rank_correlation']:.4f}",
            "label agreement": f"{figures['label_agreement']:.4f}",
            "largest difference": f"{figures['max_score_difference']:.2g}",
            "in float": in_float.get(name, ""),
            "AUROC": "" if auroc is None else f"{auroc:.4f}",
        }
        rows.append([cells[column] for column in columns])
    print_table(new_console(), "Agreement with the FP32 model", columns, rows)


def _mebibytes(size_bytes: int) -> str:
    return f"{size_bytes / 2**20:.1f} MiB"
