"""Small inputs that users of the field have: a folder beside the repository, which may be absent."""

from pathlib import Path

import pytest

CASES = Path(__file__).parents[2] / "shared" / "cases"


def case(name: str) -> Path:
    """Return the folder of a case; skip the test if it is absent."""
    folder = CASES / name
    if not folder.is_dir():
        pytest.skip(f"the folder {name} of shared cases is absent")
    return folder
