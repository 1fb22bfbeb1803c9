"""Marks of tests that are about one back end."""

import pytest

only_sqlite = pytest.mark.parametrize("location", ["sqlite"], indirect=True)
only_postgresql = pytest.mark.parametrize("location", ["postgresql"], indirect=True)
