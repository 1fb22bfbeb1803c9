"""Settings from a TOML file and environment variables, validated before anything starts.

Every settings class derives from `Settings`; an unknown key is refused with the nearest known one. An environment
variable is `VEDETTE_` and the upper-case path with double underscores: `VEDETTE_UPLINK__ADDRESS`. Its text is used as
it is; a list, a table, null or a quoted string can be given as JSON.
"""

import difflib
import json
import operator
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self, TypeGuard

from pydantic import BaseModel, ConfigDict, SecretStr, ValidationError
from pydantic_core import ErrorDetails

from shared.errors import SettingsError
from shared.texts import without_secrets
from shared.toml_text import toml_text

ENVIRONMENT_PREFIX = "VEDETTE_"
MAX_REPORTED_PROBLEMS = 5


class Settings(BaseModel):
    """Base of all settings classes: immutable, unknown keys refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)

    @classmethod
    def load(cls, path: Path | None, environment: Mapping[str, str] | None = None) -> Self:
        """Read `path` (TOML; None for the defaults), apply the environment, and validate the result.

        Relative paths in the file are relative to the working directory. Raises SettingsError with the file, the key
        and a remedy.
        """
        values = _read_toml(path) if path is not None else {}
        environment = os.environ if environment is None else environment
        overrides: dict[tuple[str, ...], str] = {}
        for name, text in sorted(environment.items()):
            key = tuple(name.removeprefix(ENVIRONMENT_PREFIX).lower().split("__"))
            # A name whose first part is not a key of this class belongs to other settings.
            if name.startswith(ENVIRONMENT_PREFIX) and key[0] in cls.model_fields:
                _override(values, key, name, text)
                overrides[key] = name
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            where = str(path) if path is not None else "the settings"
            raise SettingsError(_explain(cls, error, where, overrides)) from None

    def as_text(self) -> str:
        """Return all values in force as TOML that `load` reads, for `--print-config`; hidden secrets are left out."""
        return toml_text(_without_hidden(self.model_dump(mode="json"), self))


def _without_hidden(values: dict[str, Any], settings: BaseModel) -> dict[str, Any]:
    """Return the values without secrets: the asterisks in their place are no values to read back."""
    return {key: value for key, value in values.items() if not isinstance(getattr(settings, key, None), SecretStr)}


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise SettingsError(f"{path}: no such file. Give the configuration's path with --config.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: cannot be read ({error}).") from None
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{path}: not valid TOML: {error}.") from None


def _override(values: dict[str, Any], key: tuple[str, ...], name: str, text: str) -> None:
    """Put the text of the environment variable `name` into `values` at the path `key`."""
    target = values
    for depth, part in enumerate(key[:-1], start=1):
        target = target.setdefault(part, {})
        if not isinstance(target, dict):
            raise SettingsError(
                f"{name}: {'.'.join(key[:depth])!r} is not a table in the configuration: unset the variable."
            )
    target[key[-1]] = _parse(text)


def _parse(text: str) -> Any:
    """Return JSON values for text that cannot be plain; numbers and booleans are left to the field's type."""
    if text.startswith(("[", "{", '"')) or text == "null":
        try:
            return json.loads(text)
        except ValueError:
            return text
    return text


def _explain(cls: type[BaseModel], error: ValidationError, where: str, overrides: Mapping[tuple[str, ...], str]) -> str:
    """Return the first problems as text, each with its origin and key."""
    problems = error.errors()
    lines = []
    for problem in problems[:MAX_REPORTED_PROBLEMS]:
        location = problem["loc"]
        # A variable is the origin if it set the location of the problem, or a part or a parent of it.
        related = (name for key, name in overrides.items() if all(map(operator.eq, key, location)))
        variable = next(related, None) if location else None
        lines.append(f"{variable or where}: {_explain_one(cls, problem)}")
    if len(problems) > MAX_REPORTED_PROBLEMS:
        lines.append(f"And {len(problems) - MAX_REPORTED_PROBLEMS} more.")
    return " ".join(" ".join(lines).split())


def _explain_one(cls: type[BaseModel], problem: ErrorDetails) -> str:
    location, kind = problem["loc"], problem["type"]
    key = ".".join(str(part) for part in _without_tags(cls, location, keeps_last=kind == "extra_forbidden"))
    if kind == "extra_forbidden":
        known = _known_keys(cls, location)
        near = difflib.get_close_matches(str(location[-1]), known, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(known)}."
        return f"unknown key {key!r}: {hint}"
    if kind == "missing":
        return f"{key!r} is missing: set it."
    message = problem["msg"].removeprefix("Value error, ").rstrip(".")
    if kind == "value_error" and isinstance(problem["input"], dict):  # concerns several keys, which the message names
        return f"{key}: {message}." if key else f"{message}."
    return f"{key or 'as a whole'}: {message} (is {_shorten(problem['input'])})."


def _without_tags(cls: type[BaseModel], location: tuple[int | str, ...], *, keeps_last: bool) -> list[int | str]:
    """Return the location as written in a file, without the tags of union members, which are not keys."""
    kept: list[int | str] = []
    models: list[type[BaseModel]] = [cls]
    for position, part in enumerate(location):
        inner = _models_below(models, part)
        is_last = keeps_last and position == len(location) - 1
        if isinstance(part, int) or inner is not None or not models or is_last:
            kept.append(part)
        models = models if inner is None else inner
    return kept


def _known_keys(cls: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    """Return the known keys at the last part of `location`, in order."""
    models: list[type[BaseModel]] = [cls]
    for part in location[:-1]:
        inner = _models_below(models, part)
        models = models if inner is None else inner
    return list(dict.fromkeys(key for model in models for key in model.model_fields))


def _models_below(models: list[type[BaseModel]], part: int | str) -> list[type[BaseModel]] | None:
    """Return the settings classes inside the key `part` of `models`.

    None if it is not a key: an index into a list, or the tag of a union.
    """
    fields = [model.model_fields[part] for model in models if isinstance(part, str) and part in model.model_fields]
    if not fields:
        return None
    return [kind for field in fields for kind in _kinds(field.annotation) if _is_model(kind)]


def _kinds(annotation: Any) -> list[Any]:
    """Return an annotation and its parts: the classes inside a list, union or Annotated."""
    arguments = getattr(annotation, "__args__", ())
    return [annotation, *(kind for argument in arguments for kind in _kinds(argument))]


def _is_model(kind: Any) -> TypeGuard[type[BaseModel]]:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _shorten(value: Any, limit: int = 60) -> str:
    text = without_secrets(repr(value))  # an invalid address may hold a valid password
    return text if len(text) <= limit else text[: limit - 3] + "..."
