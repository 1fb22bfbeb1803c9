"""Page and JSON of one bundle."""

import time
from pathlib import Path

import httpx

from cloud.console.models.bundles import NO_JUDGEMENT, bundle_view
from cloud.rollouts.stages import parse_stages
from cloud.service.metrics import Metrics
from cloud.service.rollout_control import RolloutControl
from cloud.store.rollouts import begin
from shared.bundle import sign
from tests.cloud.console.conftest import running_console
from tests.cloud.console.filled_store import CAMERA, KEY, manifest
from tests.edge.bundles import tabular_bundle


def test_a_published_bundle_has_a_page_and_json(tmp_path: Path) -> None:
    with running_console(tmp_path) as console:
        console.do(console.fleet.enrol())
        bundle_id = console.fleet.bundle_ids[CAMERA.bundle_name]
        facts = httpx.get(f"{console.url}/api/bundles/{bundle_id}").json()
        assert facts["bundle_id"] == bundle_id
        assert facts["judgement"] == []
        page = httpx.get(f"{console.url}/bundle/{bundle_id}")
        assert page.status_code == 200
        assert bundle_id in page.text
        assert NO_JUDGEMENT in page.text
        assert facts["rollout"] is None
        check_rollout(console)
        assert httpx.get(f"{console.url}/api/bundles/none-1-00000000").status_code == 404
        unknown = httpx.get(f"{console.url}/bundle/%3Cscript%3Ealert(1)")
        assert unknown.status_code == 404
        assert "<script>alert" not in unknown.text
        console.stop()


def check_rollout(console) -> None:
    """A bundle that is rolled out shows stages, gates and history; the bundle before does not."""
    fleet = console.fleet
    bundle = sign(manifest(CAMERA, version=2), {"edge/note.json": b"2"}, KEY)
    bundle_id = console.do(fleet.registry.publish(bundle, make_current=False)).bundle_id
    stages = parse_stages(f"trial={CAMERA.device_id}", "100", least_s=0, least_samples=7)
    told = {"author": "<b>ada</b>", "reason": "new lamp", "now_s": time.time()}
    console.do(begin(fleet.store, CAMERA.bundle_name, bundle_id, stages, **told))
    control = RolloutControl(fleet.store, Metrics(), check_every_s=1.0, late_after_s=60.0, on_failure=print)
    console.do(control.check(time.time()))
    page = httpx.get(f"{console.url}/bundle/{bundle_id}").text
    for text in ("under way", "wave 100 %", "This stage waits for"):
        assert text in page
    page = httpx.get(f"{console.url}/models/rollouts/1").text
    for text in ("wave 100 %", "Forwarded samples", "0 of 7 samples", "new lamp"):
        assert text in page
    assert "<b>ada" not in page
    facts = httpx.get(f"{console.url}/api/bundles/{bundle_id}").json()
    assert facts["rollout"]["phase"] == "under way"


def test_the_judgement_is_shown_as_the_manifest_holds_it() -> None:
    trained = tabular_bundle(KEY).manifest
    judgement = {"sentences": ["20 held-out rows resolve 1 in 21."], "warnings": ["Too few."], "figures": {}}
    view = bundle_view(trained.model_copy(update={"training": {"judgement": judgement}}))
    assert view["judgement"] == judgement["sentences"]
    assert view["warnings"] == judgement["warnings"]
