"""Small bundle with real analyzers, for tests that judge or publish one."""

import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import asyncpg
import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from numpy.typing import NDArray

from cloud.settings import StoreLocation
from cloud.store.migrate import migrate
from shared.bundle import Artefact, Bundle, InputSpec, Manifest, npz_bytes, sign
from shared.modalities import fit_preprocessor
from shared.modality import Modality
from tests.cloud.console.filled_store import Fleet, open_store
from tests.postgres import EMPTY, TEMPLATE, PostgresServer, programs, running_server


@dataclass(frozen=True)
class Biopsies:
    """Wisconsin breast cancer: benign is normal. `normal`, `anomalous`: (n, 30) float32 the analyzers never saw."""

    key: Ed25519PrivateKey
    bundle: Bundle
    normal: NDArray[np.float32]
    anomalous: NDArray[np.float32]

    def version(self, version: int, **changes: object) -> Bundle:
        """The same analyzers as another version, with other fields of the manifest if wanted."""
        manifest = self.bundle.manifest.model_copy(update={"version": version, **changes})
        return sign(manifest, self.bundle.files, self.key)


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[Fleet]:
    """Enrolled devices and their bundles in a store of their own."""
    store, registry = open_store(tmp_path)
    async with store:
        fleet = Fleet(store, registry)
        await fleet.enrol()
        yield fleet


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """A PostgreSQL server with a template of an empty store."""
    if programs() is None:
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    with running_server() as server:
        server.make(TEMPLATE)
        migrate(StoreLocation(Path(), server.url(TEMPLATE)))
        server.make(EMPTY, TEMPLATE)
        yield server


@pytest.fixture
def postgres_url(postgres_server: PostgresServer) -> Iterator[str]:
    """URL of a database with the tables of an empty store; emptied again, which is far quicker than a new one."""
    yield postgres_server.url(EMPTY)
    try:
        postgres_server.empty(EMPTY)
    except asyncpg.UndefinedTableError:  # the test has dropped one
        postgres_server.drop(EMPTY)
        postgres_server.make(EMPTY, TEMPLATE)


@pytest.fixture
def new_database(postgres_server: PostgresServer) -> Iterator[str]:
    """URL of a new database without tables."""
    name = f"store_{uuid.uuid4().hex}"
    postgres_server.make(name)
    yield postgres_server.url(name)
    postgres_server.drop(name)


@pytest.fixture(scope="session")
def biopsies() -> Biopsies:
    import torch
    from sklearn.datasets import load_breast_cancer

    from cloud.training.analysis import AnalysisOptions, fit_analysis

    torch.set_num_threads(1)
    data = load_breast_cancer()
    values = data.data.astype(np.float32)
    benign, malignant = values[data.target == 1], values[data.target == 0]
    spec = InputSpec(channels=tuple(name.replace(" ", "_") for name in data.feature_names))
    preprocessor = fit_preprocessor(Modality.TABULAR, benign[:300], spec)
    options = AnalysisOptions(methods=("knn", "time_estimation"), device="cpu")
    analysis = fit_analysis(preprocessor, None, benign[:200], benign[200:300], options).analysis
    # Files for devices may hold any bytes here; larger than one chunk, so that fetching takes several.
    edge = {"edge/filler.npz": npz_bytes({"noise": np.random.default_rng(0).integers(0, 256, 700_000, np.uint8)})}
    key = Ed25519PrivateKey.generate()
    manifest = Manifest(
        name="biopsy",
        version=1,
        created_at=datetime.now(UTC).isoformat(),
        modality=Modality.TABULAR,
        input=spec,
        artefacts=(
            Artefact(
                name="fp32_onnxruntime",
                engine="onnxruntime",
                precision="fp32",
                graph="edge/filler.npz",
                calibration="edge/filler.npz",
                calibration_id="none",
            ),
        ),
        preferred_artefact="fp32_onnxruntime",
        parity={},
        tolerances={},
        training={},
        files={},
    )
    bundle = sign(manifest, {**preprocessor.files(), **analysis.files(), **edge}, key)
    return Biopsies(key, bundle, benign[300:], malignant)
