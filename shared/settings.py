"""One way to read settings: a TOML file, then environment variables, checked before anything starts.

Every settings class of the project derives from `Settings`; an unknown key is refused with the nearest known one.
Environment variables are `VEDETTE_` and the upper-case path with double underscores: `VEDETTE_UPLINK__ADDRESS`. Their
text is taken as it is; a list, a table, null or a quoted string may be given as JSON.
"""

import difflib
import json
import operator
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self, TypeGuard

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from shared.errors import SettingsError
from shared.texts import without_secrets

ENVIRONMENT_PREFIX = "VEDETTE_"
MAX_PROBLEMS_TOLD = 5


class Settings(BaseModel):
    """The base of every settings class: immutable, and no unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)

    @classmethod
    def load(cls, path: Path | None, environment: Mapping[str, str] | None = None) -> Self:
        """Read `path` (TOML; None for the defaults), let the environment override it, and check the result.

        Relative paths inside the file are left as they are: they are relative to the working directory.
        Raises SettingsError that names the file, the key and what to do.
        """
        values = _read_toml(path) if path is not None else {}
        environment = os.environ if environment is None else environment
        overrides: dict[tuple[str, ...], str] = {}
        for name, text in sorted(environment.items()):
            key = tuple(name.removeprefix(ENVIRONMENT_PREFIX).lower().split("__"))
            # A name whose first part is no key of this class belongs to another part of Vedette.
            if name.startswith(ENVIRONMENT_PREFIX) and key[0] in cls.model_fields:
                _override(values, key, name, text)
                overrides[key] = name
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            where = str(path) if path is not None else "the settings"
            raise SettingsError(_explain(cls, error, where, overrides)) from None

    def as_text(self) -> str:
        """All values in force, as JSON: what `--print-config` shows."""
        return json.dumps(self.model_dump(mode="json"), indent=2)


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
                f"{name}: {'.'.join(key[:depth])!r} is no table in the configuration; unset the variable."
            )
    target[key[-1]] = _parse(text)


def _parse(text: str) -> Any:
    """JSON where the text cannot be meant as plain text; numbers and truth values are for the field's type to read."""
    if text.startswith(("[", "{", '"')) or text == "null":
        try:
            return json.loads(text)
        except ValueError:
            return text
    return text


def _explain(cls: type[BaseModel], error: ValidationError, where: str, overrides: Mapping[tuple[str, ...], str]) -> str:
    """The first problems in words, each with its place and key; an unknown key with the nearest known one."""
    problems = error.errors()
    lines = []
    for problem in problems[:MAX_PROBLEMS_TOLD]:
        location = problem["loc"]
        # A variable is meant where it set the place of the problem, or something in it or around it.
        related = (name for key, name in overrides.items() if all(map(operator.eq, key, location)))
        variable = next(related, None) if location else None
        lines.append(f"{variable or where}: {_explain_one(cls, problem)}")
    if len(problems) > MAX_PROBLEMS_TOLD:
        lines.append(f"And {len(problems) - MAX_PROBLEMS_TOLD} more.")
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
    if kind == "value_error" and isinstance(problem["input"], dict):  # several keys together: the message names them
        return f"{key}: {message}." if key else f"{message}."
    return f"{key or 'as a whole'}: {message} (is {_shorten(problem['input'])})."


def _without_tags(cls: type[BaseModel], location: tuple[int | str, ...], *, keeps_last: bool) -> list[int | str]:
    """The location as it is written in a file: a class of a union is told by one of its keys, and is no key itself."""
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
    """The keys of the settings classes that may stand where the last part of `location` does, in order."""
    models: list[type[BaseModel]] = [cls]
    for part in location[:-1]:
        inner = _models_below(models, part)
        models = models if inner is None else inner
    return list(dict.fromkeys(key for model in models for key in model.model_fields))


def _models_below(models: list[type[BaseModel]], part: int | str) -> list[type[BaseModel]] | None:
    """The settings classes inside the key `part` of `models`; None where it is no key of theirs: an index into a list,
    or the tag of a union."""
    fields = [model.model_fields[part] for model in models if isinstance(part, str) and part in model.model_fields]
    if not fields:
        return None
    return [kind for field in fields for kind in _kinds(field.annotation) if _is_model(kind)]


def _kinds(annotation: Any) -> list[Any]:
    """An annotation and all that it is made of: the classes inside a list, union or Annotated."""
    arguments = getattr(annotation, "__args__", ())
    return [annotation, *(kind for argument in arguments for kind in _kinds(argument))]


def _is_model(kind: Any) -> TypeGuard[type[BaseModel]]:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _shorten(value: Any, limit: int = 60) -> str:
    text = without_secrets(repr(value))  # a wrong address may hold a right password
    return text if len(text) <= limit else text[: limit - 3] + "..."
