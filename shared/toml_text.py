"""TOML text of JSON-like values; `tomllib.loads` reads the same values from it."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
MAX_LINE_CHARACTERS = 100


def toml_text(values: Mapping[str, Any]) -> str:
    """Return a document of strings, numbers, booleans, lists and tables; None is left out, for TOML has no null.

    Lists of tables become arrays of tables. Raises TypeError for a value of another type.
    """
    return "\n".join(_table(values, ())).strip() + "\n"


def _table(values: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[str]:
    """Yield the lines of a table: plain values first, for they end where the first sub-table begins."""
    for key, value in values.items():
        if not _is_table(value) and not _is_array_of_tables(value) and value is not None:
            yield f"{_key(key)} = {_value(value)}"
    for key, value in values.items():
        inner = (*path, key)
        if _is_table(value):
            yield from ("", f"[{_name(inner)}]", *_table(value, inner))
        elif _is_array_of_tables(value):
            for entry in value:
                yield from ("", f"[[{_name(inner)}]]", *_table(entry, inner))


def _is_table(value: Any) -> bool:
    return isinstance(value, Mapping)


def _is_array_of_tables(value: Any) -> bool:
    return isinstance(value, list | tuple) and bool(value) and all(_is_table(entry) for entry in value)


def _name(path: Sequence[str]) -> str:
    return ".".join(map(_key, path))


def _key(key: str) -> str:
    return key if _BARE_KEY.fullmatch(key) else _string(key)


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return _string(value)
    if isinstance(value, int | float):
        return repr(value)  # also inf and nan, which TOML knows
    if isinstance(value, Mapping):
        entries = ", ".join(f"{_key(key)} = {_value(entry)}" for key, entry in value.items() if entry is not None)
        return f"{{ {entries} }}" if entries else "{}"
    if isinstance(value, list | tuple):
        parts = [_value(entry) for entry in value if entry is not None]
        line = f"[{', '.join(parts)}]"
        return line if len(line) <= MAX_LINE_CHARACTERS else "[\n" + "".join(f"    {part},\n" for part in parts) + "]"
    raise TypeError(f"TOML has no {type(value).__name__}.")


def _string(text: str) -> str:
    """Return a basic string; JSON's escapes are TOML's, except for surrogate pairs and DEL."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
