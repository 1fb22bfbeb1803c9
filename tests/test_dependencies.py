"""Every dependency has a lower and an upper bound, and the environment of the tests is within them."""

import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

PROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]
REQUIREMENTS = sorted(
    {text for texts in (PROJECT["dependencies"], *EXTRAS.values()) for text in texts if not text.startswith("vedette[")}
)
"""All requirements but those on Vedette's own extras."""


@pytest.mark.parametrize("text", REQUIREMENTS)
def test_a_dependency_has_two_bounds_or_one_version(text: str) -> None:
    operators = {specifier.operator for specifier in Requirement(text).specifier}
    assert operators in ({">=", "<"}, {"=="})


@pytest.mark.parametrize("text", REQUIREMENTS)
def test_the_environment_of_the_tests_is_within_the_bounds(text: str) -> None:
    requirement = Requirement(text)
    installed = metadata.version(requirement.name)  # `make test` installs every extra
    assert requirement.specifier.contains(installed.partition("+")[0], prereleases=True)


def test_the_tests_install_every_extra() -> None:
    def packages(extra: str) -> set[str]:
        found = set[str]()
        for text in EXTRAS[extra]:
            requirement = Requirement(text)
            inner = requirement.extras if requirement.name == PROJECT["name"] else ()
            found |= set[str]().union(*(packages(name) for name in inner)) if inner else {requirement.name}
        return found

    assert set[str]().union(*(packages(name) for name in EXTRAS)) == packages("dev")
