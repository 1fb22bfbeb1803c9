"""JSON of one bundle: its facts, the judgement that ended its training, and its rollout."""

from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

from fastapi import APIRouter, Depends, HTTPException, Request

from cloud.accounts.identity import sites_of
from cloud.console.api import refuse_unknown_parameters
from cloud.store.rollout_view import RolloutView
from shared.bundle import Manifest
from shared.errors import BundleError

ReadManifest: TypeAlias = Callable[[str], Awaitable[Manifest]]
ReadRollout: TypeAlias = Callable[[str], Awaitable[RolloutView | None]]
"""Function that returns the newest rollout of a bundle name, or None."""

NO_JUDGEMENT = (
    "This bundle holds no judgement: a federated round or a recalibration made it, or an earlier version of Vedette "
    "trained it."
)


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
    async def bundle(request: Request, bundle_id: str) -> dict[str, Any]:
        """Return the facts of one bundle, the judgement that ended its training, and its rollout."""
        try:
            view = bundle_view(await read_manifest(bundle_id))
            rollout = await rollout_of(read_rollout, view, of_all=not sites_of(request.scope))
            return view | {"rollout": rollout.model_dump(mode="json") if rollout is not None else None}
        except BundleError as error:
            raise HTTPException(404, str(error)) from None

    return router


async def rollout_of(read_rollout: ReadRollout, view: dict[str, Any], *, of_all: bool) -> RolloutView | None:
    """Return the newest rollout of the bundle's name if it leads to this bundle, else None.

    Without `of_all` for an account that is restricted to sites: without the texts that may name devices.
    """
    rollout = await read_rollout(view["name"])
    if rollout is None or rollout.bundle_id != view["bundle_id"]:
        return None
    return rollout if of_all else rollout.without_devices()
