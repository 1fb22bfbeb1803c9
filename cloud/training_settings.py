"""Settings of training jobs: section `[training]` of `cloud.toml`."""

from pathlib import Path

from pydantic import Field

from shared.settings import Settings

GIB = 2**30


class TrainingJobSettings(Settings):
    """Training that people start in the console or through the HTTP API."""

    concurrent_jobs: int = Field(
        default=1, ge=0, le=8, title="Jobs", description="jobs that a process runs at once; 0: none can be started"
    )
    signing_key: Path | None = Field(
        default=None,
        title="Signing key",
        description="PEM of the private key that signs trained bundles; empty: $VEDETTE_HOME/signing.pem, if there",
    )
    folder: Path | None = Field(
        default=None,
        title="Folder",
        description="folder of uploads and results that console and training share; empty: training in data_dir",
    )
    cores: int = Field(
        default=0, ge=0, le=1024, title="Cores", description="processor cores of a job; 0: half of the machine's"
    )
    memory_bytes: int = Field(
        default=8 * GIB, ge=GIB, title="Memory", description="largest memory of a job in bytes; beyond it, it fails"
    )
    max_hours: float = Field(default=12.0, gt=0, le=240, title="Time", description="hours after which a job fails")
    attempts: int = Field(
        default=3, ge=1, le=10, title="Attempts", description="times that a job is begun before it fails"
    )
    upload_bytes: int = Field(
        default=4 * GIB, ge=1, title="Upload", description="largest number of bytes of one upload, also after unpacking"
    )
    upload_files: int = Field(
        default=20_000, ge=1, le=60_000, title="Files", description="largest number of files of one upload"
    )
    upload_pixels: int = Field(
        default=2**35, ge=1, title="Pixels", description="largest number of pixels of all images of one upload"
    )
    upload_s: float = Field(
        default=3600.0, gt=0, title="Upload time", description="seconds that one file may take to arrive"
    )
    uploads: int = Field(default=50, ge=1, le=1000, title="Uploads", description="largest number of kept uploads")
    all_uploads_bytes: int = Field(
        default=20 * GIB, ge=1, title="All uploads", description="largest number of bytes of all uploads"
    )
    free_bytes: int = Field(
        default=GIB, ge=0, title="Free disk", description="free bytes of the disk that uploads and unpacking leave"
    )
    uploads_hours: float = Field(
        default=24.0,
        gt=0,
        title="Unused uploads",
        description="hours without a change until an upload without a job is deleted",
    )
    kept_days: float = Field(
        default=30.0, gt=0, title="Jobs kept", description="days until a job that is over is deleted with its files"
    )
