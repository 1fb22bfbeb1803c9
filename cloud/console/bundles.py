"""Page and JSON of one bundle: its facts, the judgement that ended its training, and its rollout."""

from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

from fastapi import APIRouter, Depends, HTTPException
from nicegui import ui

from cloud.console.api import refuse_unknown_parameters
from cloud.console.layout import Frame
from cloud.console.rollouts import show_rollout
from cloud.console.snapshots import Snapshots
from cloud.store.rollout_view import RolloutView
from shared.bundle import Manifest
from shared.errors import BundleError

ReadManifest: TypeAlias = Callable[[str], Awaitable[Manifest]]
ReadRollout: TypeAlias = Callable[[str], Awaitable[RolloutView | None]]
"""Function that returns the newest rollout of a bundle name, or None."""

NO_JUDGEMENT = "This bundle holds no judgement: a federated round made it, or an earlier version of Vedette trained it."


def bundle_view(manifest: Manifest) -> dict[str, Any]:
    """Return the facts of a bundle and its judgement, empty for bundles without one."""
    judgement = manifest.training.get("judgement", {})
    return {
        "bundle_id": manifest.bundle_id,
        "name": manifest.name,
        "version": manifest.version,
        "modality": str(manifest.modality),
        "created_at": manifest.created_at,
        "parent_bundle_id": manifest.parent_bundle_id,
        "preferred_artefact": manifest.preferred_artefact,
        "train_samples": manifest.training.get("train_samples"),
        "held_out_samples": manifest.training.get("held_out_samples"),
        "judgement": list(judgement.get("sentences", ())),
        "warnings": list(judgement.get("warnings", ())),
    }


def bundle_router(read_manifest: ReadManifest, read_rollout: ReadRollout) -> APIRouter:
    """Return the route `/api/bundles/{bundle_id}`; `read_manifest` raises BundleError for an unknown bundle."""
    router = APIRouter(prefix="/api", tags=["api"], dependencies=[Depends(refuse_unknown_parameters)])

    @router.get("/bundles/{bundle_id}")
    async def bundle(bundle_id: str) -> dict[str, Any]:
        """Return the facts of one bundle, the judgement that ended its training, and its rollout."""
        try:
            view = bundle_view(await read_manifest(bundle_id))
            rollout = await _rollout(read_rollout, view)
            return view | {"rollout": rollout.model_dump(mode="json") if rollout is not None else None}
        except BundleError as error:
            raise HTTPException(404, str(error)) from None

    return router


async def build_bundle_page(
    read_manifest: ReadManifest, read_rollout: ReadRollout, snapshots: Snapshots, bundle_id: str
) -> None:
    """Build the page of one bundle; an unknown one has status 404."""
    frame = Frame(snapshots, "")
    with ui.element("main").classes("v-main"), ui.element("article").classes("v-scroll").style("padding: 14px"):
        try:
            await frame.refresh()
            view = bundle_view(await read_manifest(bundle_id))
            rollout = await _rollout(read_rollout, view)
        except BundleError as error:
            ui.label(str(error)).classes("v-notice")
            ui.status_code(404)
        except Exception as error:
            frame.show_problem(error)
        else:
            _show(view)
            if rollout is not None:
                show_rollout(rollout)


async def _rollout(read_rollout: ReadRollout, view: dict[str, Any]) -> RolloutView | None:
    """Return the newest rollout of the bundle's name if it leads to this bundle, else None."""
    rollout = await read_rollout(view["name"])
    return rollout if rollout is not None and rollout.bundle_id == view["bundle_id"] else None


def _show(view: dict[str, Any]) -> None:
    ui.label(view["bundle_id"]).style("font-size: 17px; font-weight: 500")
    parent = f", made from {view['parent_bundle_id']}" if view["parent_bundle_id"] else ""
    ui.label(
        f"Version {view['version']} of {view['name']}, {view['modality']}, created {view['created_at']}{parent}; "
        f"{view['train_samples']} normal samples to train on, {view['held_out_samples']} held out; devices prefer "
        f"{view['preferred_artefact']}."
    ).classes("v-hint")
    ui.label("Judgement on held-out normal data" if view["judgement"] else NO_JUDGEMENT).style("margin-top: 14px")
    for sentence in view["judgement"]:
        ui.label(sentence).style("margin: 4px 0 0 14px")
    for warning in view["warnings"]:
        ui.label(f"Warning: {warning}").classes("v-notice").style("margin-top: 8px")
