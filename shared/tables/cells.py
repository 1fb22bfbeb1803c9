"""Meaning of one cell: a number, a missing value, a boolean, or a refusal.

| cell | meaning |
|---|---|
| empty, `-`, `NA`, `N/A`, `#N/A`, `NaN`, `null`, `None` and the like | missing value, NaN |
| `true`, `yes` and `false`, `no` | 1 and 0 |
| `inf`, `-infinity` | an infinite value, refused or rejected by the caller |
| digits with a decimal mark, an exponent, thousands in groups of three | number |
| anything else | refused |

Case does not matter. Decimal mark and thousands separator hold for a whole table.
"""

import re
from collections.abc import Iterable

MISSING_WORDS = frozenset(
    {"", "-", "--", "na", "n/a", "#n/a", "#n/a n/a", "#na", "<na>", "nan", "-nan", "null", "none", "1.#qnan", "-1.#ind"}
)
BOOLEAN_WORDS = {"true": 1.0, "yes": 1.0, "false": 0.0, "no": 0.0}
_INFINITE_WORDS = frozenset({"inf", "+inf", "-inf", "infinity", "+infinity", "-infinity"})
_PLAIN = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_COMMA = re.compile(r"[+-]?(?:[0-9]+,?[0-9]*|,[0-9]+)(?:[eE][+-]?[0-9]+)?")
_SPACES = " '\u00a0\u202f\u2019"  # other separators of thousands
_MARKED = re.compile(rf"[+-]?([0-9.,{_SPACES}]*[.,][0-9.,{_SPACES}]*)(?:[eE][+-]?[0-9]+)?")
_GROUPS = {mark: re.compile(rf"[1-9][0-9]{{0,2}}(?:{re.escape(mark)}[0-9]{{3}})+") for mark in ".,"}
_GROUPED = {
    decimal: re.compile(
        rf"[+-]?[0-9]{{1,3}}(?P<mark>[{re.escape(other)}{_SPACES}])[0-9]{{3}}(?:(?P=mark)[0-9]{{3}})*"
        rf"(?:{re.escape(decimal)}[0-9]*)?"
    )
    for decimal, other in ((".", ","), (",", "."))
}


def is_missing(text: str) -> bool:
    """Return whether a trimmed cell stands for a missing value."""
    return text.lower() in MISSING_WORDS


class NumberReader:
    """Reads the numbers of one table.

    The decimal mark is decided by the first number that allows one reading only, such as `60,5` or `1.234,5`. A number
    that allows two, such as `60,000` or `1.234`, is decided by the hint if there is one. Without a hint, `1.234` has a
    decimal point, and `60,000` is decided by the delimiter: in a table with delimiter `;` or tab a comma is the decimal
    mark, in a table with delimiter `,` it separates thousands.
    """

    def __init__(self, decimal: str = "auto", *, delimiter: str | None = ",", hint: str = "") -> None:
        """Read with the given decimal mark, or detect it.

        Args:
            decimal: ".", "," or "auto".
            delimiter: delimiter of the table; "" for one column, None for single values outside a table.
            hint: decimal mark of the training data; "" if unknown.
        """
        self.decimal = "" if decimal == "auto" else decimal  # "" until decided
        self._delimiter, self._hint = delimiter, hint

    def observe(self, texts: Iterable[str]) -> None:
        """Decide the decimal mark from these cells, if they allow it."""
        if self.decimal:
            return
        unsure = ""
        for text in texts:
            mark, is_sure = _decimal_mark(text)
            if mark and (is_sure or self._hint):
                self.decimal = mark if is_sure else self._hint
                return
            unsure = unsure or mark
        if unsure == "," and self._delimiter is not None:
            self.decimal = "." if self._delimiter == "," else ","

    def read(self, text: str) -> float:
        """Return the value of a trimmed cell; NaN for a missing one. Raises ValueError for any other text."""
        if self._hint and not self.decimal:
            self.observe([text])
        if _PLAIN.fullmatch(text) and (self.decimal != "," or "." not in text):
            return float(text)
        word = text.lower()
        if word in BOOLEAN_WORDS:
            return BOOLEAN_WORDS[word]
        if word in MISSING_WORDS:
            return float("nan")
        if word in _INFINITE_WORDS:
            return float(word)
        if not self.decimal:
            self.observe([text])
        if not self.decimal and _decimal_mark(text)[0] == ",":
            raise ValueError(f"{text[:40]!r} has two readings: set table.decimal.")
        decimal = self.decimal or "."
        if decimal == "," and _COMMA.fullmatch(text):
            return float(text.replace(",", "."))
        grouped = _GROUPED[decimal].fullmatch(text)
        if grouped and (grouped["mark"] not in _SPACES or self._delimiter != ""):  # else a delimiter may be unknown
            return float(text.replace(grouped["mark"], "").replace(decimal, "."))
        raise ValueError(f"{text[:40]!r} is not a number{self._mark_note(text)}.")

    def read_value(self, value: object) -> float:
        """Return a value of a record: a number, a boolean, or a text as in a cell. Raises ValueError for others.

        Each text is read on its own: records need not share a format.
        """
        if isinstance(value, str):
            alone = NumberReader(self.decimal or "auto", delimiter=self._delimiter, hint=self._hint)
            return alone.read(value.strip())
        if not isinstance(value, (int, float)):
            raise ValueError(f"{str(value)[:40]!r} is not a number.")
        return float(value)

    def _mark_note(self, text: str) -> str:
        if self.decimal and _decimal_mark(text)[0]:
            return f" with decimal {'comma' if self.decimal == ',' else 'point'}"
        return ""


def _decimal_mark(text: str) -> tuple[str, bool]:
    """Return the decimal mark that a number suggests ("" if none), and whether it allows no other reading."""
    marked = _MARKED.fullmatch(text)
    if marked is None or not any(character.isdigit() for character in text):
        return "", False
    body = marked[1]
    points, commas = body.count("."), body.count(",")
    if points and commas:
        return (".", True) if body.rfind(".") > body.rfind(",") else (",", True)
    mark, other, count = (".", ",", points) if points else (",", ".", commas)
    is_grouped = _GROUPS[mark].fullmatch(body) is not None
    if count > 1:
        return (other, True) if is_grouped else ("", False)
    return mark, not is_grouped or len(text.lstrip("+-")) > len(body)  # thousands have no exponent
