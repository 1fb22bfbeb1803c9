"""A report from the manifest and the facts of the opened bundle, with a sentence for each figure not to trust."""

from collections.abc import Mapping, Sequence
from typing import Any

from cloud.bundle_report.figures import (
    ArtefactReport,
    BundleReport,
    GroupRuns,
    MethodReport,
    Recalibration,
    Resolution,
    SyntheticAnomalies,
)
from cloud.bundle_report.inside import Inside
from cloud.store.bundle_queries import ListedBundle
from shared.bundle import Manifest

FUSED = "fused"
MIN_HELD_OUT = 100  # fewer held-out normals resolve 1 in 100 at best

_TOO_FEW = "Too few normal samples"  # begins a warning of the judgement on the same figure


def make_report(
    listed: ListedBundle, manifest: Manifest, inside: Inside, runs: tuple[GroupRuns, ...], published_by: str
) -> BundleReport:
    """Return the report on a bundle."""
    training: Mapping[str, Any] = manifest.training
    judgement = _mapping(training.get("judgement"))
    figures = _mapping(judgement.get("figures"))
    opinions = _opinions(manifest, inside)
    resolution = _resolution(figures)
    held_out = _integer(training.get("held_out_samples"))
    is_warned = any(text.startswith(_TOO_FEW) for text in _texts(judgement.get("warnings")))
    return BundleReport(
        bundle_id=listed.entry.bundle_id,
        name=manifest.name,
        version=manifest.version,
        modality=manifest.modality.value,
        created_at=manifest.created_at,
        published_at_s=listed.entry.published_at_s,
        published_by=published_by,
        parent_bundle_id=manifest.parent_bundle_id,
        is_current=listed.is_current,
        groups=listed.groups,
        trained_on=str(training.get("data", "")),
        training_seconds=_number(training.get("seconds")),
        recalibration=_recalibration(manifest),
        train_samples=_integer(training.get("train_samples")),
        held_out_samples=held_out,
        labelled_samples=_integer(training.get("labelled_samples")),
        archive_bytes=inside.archive_bytes,
        edge_archive_bytes=listed.entry.edge_archive_bytes,
        signer=inside.signer,
        sentences=_texts(judgement.get("sentences")),
        warnings=_texts(judgement.get("warnings")),
        notes=_texts(training.get("notes")),
        problems=tuple(_problems(inside, opinions, None if is_warned else resolution, held_out)),
        opinions=tuple(opinions),
        synthetic=tuple(_synthetic(figures)),
        artefacts=tuple(_artefacts(manifest, inside)),
        resolution=resolution,
        runs=runs,
    )


def _opinions(manifest: Manifest, inside: Inside) -> list[MethodReport]:
    """Return all methods, the highest AUROC first; without labels the heaviest member first."""
    aurocs = {name: value for name, raw in _mapping(manifest.training.get("auroc")).items() if (value := _number(raw))}
    screeners = {artefact.name for artefact in manifest.artefacts}
    names = dict.fromkeys((*inside.methods, *(name for name in aurocs if name not in {*screeners, FUSED})))
    kinds = {name: "member" if name in inside.weights else "baseline" for name in names} if inside.weights else {}
    baselines = {name: aurocs[name] for name, kind in kinds.items() if kind == "baseline" and name in aurocs}
    best = max(baselines, key=lambda name: baselines[name], default="")
    found = [
        MethodReport(name=name, kind="screener", auroc=aurocs.get(name)) for name in sorted(screeners & set(aurocs))
    ]
    rated = [(FUSED, "fused"), *((name, kinds.get(name, "member")) for name in names)]
    for name, kind in rated:
        auroc = aurocs.get(name)
        is_below = bool(best) and kind in ("member", "fused") and auroc is not None and auroc < baselines[best]
        if name != FUSED or auroc is not None:
            weight = inside.weights.get(name)
            found.append(MethodReport(name=name, kind=kind, weight=weight, auroc=auroc, below=best if is_below else ""))
    return sorted(found, key=lambda item: (-(item.auroc or 0.0), -(item.weight or 0.0), item.name))


def _problems(
    inside: Inside, opinions: Sequence[MethodReport], resolution: Resolution | None, held_out: int | None
) -> list[str]:
    """Return a sentence for each figure that cannot be trusted, with the next step."""
    found = [inside.problem] if inside.problem else []
    aurocs = {item.name: item.auroc for item in opinions}
    for item in opinions:
        if not item.below:
            continue
        figures = f"AUROC {item.auroc:.3f} against {aurocs[item.below]:.3f}"
        if item.kind == "fused":
            found.append(
                f"The fused verdict is below its baseline {item.below} ({figures}): name that baseline under fused and "
                "train again, or give more normal samples."
            )
        else:
            found.append(
                f"The member {item.name} is below the baseline {item.below} ({figures}): leave it out of fused, or "
                "give more normal samples."
            )
    if resolution is not None and not resolution.is_resolved:
        found.append(
            f"Too few normals: {resolution.separate} separate held-out samples resolve 1 in {resolution.separate + 1}, "
            f"which is {resolution.alarms_per_day:.3g} false alarms a day at {resolution.samples_per_day:.4g} samples "
            f"a day; {resolution.asked_alarms_per_day:.3g} were asked. Train with more normal samples, or expect these."
        )
    elif held_out is not None and held_out < MIN_HELD_OUT:
        found.append(
            f"Too few normals: {held_out} held-out samples resolve 1 in {held_out + 1} at best, and rarer p-values are "
            "extrapolated. Train with more normal samples."
        )
    return found


def _synthetic(figures: Mapping[str, Any]) -> list[SyntheticAnomalies]:
    found = []
    for kind, raw in _mapping(figures.get("corruptions")).items():
        counts = {name: _integer(_mapping(raw).get(name)) for name in ("copies", "screener", "fused")}
        if all(count is not None for count in counts.values()):
            found.append(SyntheticAnomalies(kind=kind, **counts))
    return found


def _artefacts(manifest: Manifest, inside: Inside) -> list[ArtefactReport]:
    in_float = _mapping(manifest.training.get("float_layers"))
    found = []
    for artefact in manifest.artefacts:
        parity = manifest.parity.get(artefact.name)
        held_out, has_tail, modes = inside.calibrations.get(artefact.name, (None, None, 0))
        layers = in_float.get(artefact.name)
        entry = manifest.files.get(artefact.graph)
        weights = manifest.files.get(artefact.graph.removesuffix(".xml") + ".bin")
        found.append(
            ArtefactReport(
                name=artefact.name,
                engine=artefact.engine,
                precision=artefact.precision,
                is_preferred=artefact.name == manifest.preferred_artefact,
                graph_bytes=sum(each.size_bytes for each in (entry, weights) if each is not None),
                rank_correlation=parity.rank_correlation if parity is not None else None,
                label_agreement=parity.label_agreement if parity is not None else None,
                layers_in_float=len(layers) if isinstance(layers, list) else _integer(layers),
                layers=_integer(manifest.training.get("layers")),
                held_out=held_out,
                rarest_p_value=1.0 / (held_out + 1) if held_out is not None else None,
                has_tail=has_tail,
                modes=modes,
            )
        )
    return found


def _resolution(figures: Mapping[str, Any]) -> Resolution | None:
    raw = _mapping(figures.get("resolution"))
    held_out, separate = _integer(raw.get("held_out")), _integer(raw.get("separate"))
    per_day, asked = _number(raw.get("samples_per_day")), _number(raw.get("false_alarms_per_day"))
    if held_out is None or separate is None or per_day is None or asked is None or per_day <= 0:
        return None
    rarest = 1.0 / (separate + 1)
    return Resolution(
        held_out=held_out,
        separate=separate,
        rarest_p_value=rarest,
        samples_per_day=per_day,
        rate_is_assumed=not raw.get("rate_origin"),
        asked_alarms_per_day=asked,
        alarms_per_day=per_day * rarest,
        is_resolved=asked == 0 or min(1.0, asked / per_day) >= rarest * (1 - 1e-9),
    )


def _recalibration(manifest: Manifest) -> Recalibration | None:
    """Return the recalibration that made this bundle; a federated round keeps the facts of one before it."""
    raw = _mapping(manifest.training.get("recalibration"))
    counts = {name: _integer(raw.get(name)) for name in Recalibration.model_fields}
    if raw.get("parent_bundle_id") != manifest.parent_bundle_id or None in counts.values():
        return None
    return Recalibration.model_validate(counts)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _texts(value: Any) -> tuple[str, ...]:
    return tuple(map(str, value)) if isinstance(value, list | tuple) else ()


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _integer(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None
