"""Page and JSON of one bundle. A process holds one NiceGUI application, so this is a module of its own."""

from pathlib import Path

import httpx

from cloud.console.bundles import NO_JUDGEMENT, bundle_view
from tests.cloud.console.conftest import running_console
from tests.cloud.console.filled_store import CAMERA, KEY
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
        assert httpx.get(f"{console.url}/api/bundles/none-1-00000000").status_code == 404
        unknown = httpx.get(f"{console.url}/bundle/%3Cscript%3Ealert(1)")
        assert unknown.status_code == 404
        assert "<script>alert" not in unknown.text
        console.stop()


def test_the_judgement_is_shown_as_the_manifest_holds_it() -> None:
    manifest = tabular_bundle(KEY).manifest
    judgement = {"sentences": ["20 held-out rows resolve 1 in 21."], "warnings": ["Too few."], "figures": {}}
    view = bundle_view(manifest.model_copy(update={"training": {"judgement": judgement}}))
    assert view["judgement"] == judgement["sentences"]
    assert view["warnings"] == judgement["warnings"]
