"""The folder of small inputs that users of the field have, beside this repository. It is not part of it."""

from pathlib import Path

import pytest

CASES = Path(__file__).resolve().parents[2].parent / "shared" / "cases"
SHARED = [folder for folder in (CASES, CASES.parents[2] / "shared" / "cases") if folder.is_dir()]


def case(name: str) -> Path:
    """Return the file or folder of a case; skip the test where the folder is absent."""
    for folder in SHARED:
        if (folder / name).exists():
            return folder / name
    pytest.skip(f"the folder of cases, ../shared/cases, holds no {name}")
