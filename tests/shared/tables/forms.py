"""Forms of one small table, with the rows that every way in must find in them."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

NAN = float("nan")
ROWS = [[60.0, 3.125], [60.5, 3.25], [61.25, 2.5], [1234.5, 0.875]]
CHANNELS = ("temp", "flow")


@dataclass(frozen=True)
class Form:
    """One form of the table. `expected`: its rows, or a part of the message that refuses it.

    `later`: the file that all other ways read, if it is not the one that training reads; `later_expected`,
    `later_labels`: what they find there.
    """

    text: str
    expected: list[list[float]] | str = field(default_factory=lambda: ROWS)
    encoding: str = "utf-8"
    channels: tuple[str, ...] = CHANNELS
    missing: bool = False
    decimal: str = ""  # of the training table, as the bundle records it
    one_hot: bool = False
    table: dict[str, str] = field(default_factory=dict)
    labels: int | None = None  # anomalies that training finds
    rejected: int = 0  # rows that a device rejects and training drops with bad_rows = "drop"
    kind: Literal["lines", "cells", "values"] = "lines"
    time: str = ""  # column of times
    later: str = ""
    later_expected: list[list[float]] | None = None
    later_labels: int | None = None

    def as_later(self) -> "Form":
        """Return the form of the file that is read after training."""
        if not self.later:
            return self
        expected = self.expected if self.later_expected is None else self.later_expected
        return dataclasses.replace(self, text=self.later, expected=expected, labels=self.later_labels)


def csv(
    header: str = "temp,flow", delimiter: str = ",", end: str = "\n", fill: Callable[[int], str] = lambda _: ""
) -> str:
    lines = [f"{fill(index)}{a!r}{delimiter}{b!r}" for index, (a, b) in enumerate(ROWS)]
    return header + end + end.join(lines) + end


def comma(text: str) -> str:
    return text.replace(".", ",")


def with_column(name: str, cells: list[str], *, first: bool = True) -> str:
    header = f"{name},temp,flow" if first else f"temp,flow,{name}"
    rows = [f"{cell},{a!r},{b!r}" if first else f"{a!r},{b!r},{cell}" for cell, (a, b) in zip(cells, ROWS, strict=True)]
    return "\n".join([header, *rows]) + "\n"


def with_times(*clocks: str) -> str:
    return with_column("timestamp", [f"2025-10-26T{clock}" for clock in clocks])


BASE = csv()
FORMS = {
    "plain": Form(BASE, kind="values"),
    "semicolon": Form(csv("temp;flow", ";")),
    "tab": Form(csv("temp\tflow", "\t")),
    "decimal comma": Form(comma(csv("temp;flow", ";")), kind="cells"),
    "decimal comma, tab": Form(comma(csv("temp\tflow", "\t"))),
    "decimal comma, quoted": Form('temp,flow\n"60,0","3,125"\n"60,5","3,25"\n"61,25","2,5"\n"1234,5","0,875"\n'),
    "thousands comma": Form(BASE.replace("1234.5", '"1,234.5"'), kind="cells"),
    "thousands point": Form(comma(csv("temp;flow", ";")).replace("1234,5", "1.234,5"), kind="cells"),
    "thousands space": Form(comma(csv("temp;flow", ";")).replace("1234,5", "1\u00a0234,5"), kind="cells"),
    "thousands apostrophe": Form(BASE.replace("1234.5", "1'234.5"), kind="cells"),
    "byte order mark": Form(BASE, encoding="utf-8-sig", kind="cells"),
    "UTF-16": Form(BASE, encoding="utf-16"),
    "Windows-1252 name": Form(BASE.replace("temp", "temp °C"), encoding="cp1252", channels=("temp °C", "flow")),
    "UTF-8 name": Form(BASE.replace("temp", "temp °C"), channels=("temp °C", "flow"), kind="values"),
    "CR LF": Form(csv(end="\r\n")),
    "no last line end": Form(BASE + "5.0,6.0", [*ROWS, [5.0, 6.0]]),
    "quoted cells": Form('"temp","flow"\n"60.0","3.125"\n"60.5","3.25"\n"61.25","2.5"\n"1234.5","0.875"\n'),
    "quoted delimiter in a name": Form(
        BASE.replace("temp", '"temp, in"'), channels=("temp, in", "flow"), kind="values"
    ),
    "spaces": Form(BASE.replace(",", " , "), kind="cells"),
    "trailing delimiters": Form(BASE.replace("\n", ",\n")),
    "trailing delimiters, not in the header": Form(BASE.replace("\n", ",\n").replace("flow,", "flow", 1)),
    "header one short, row numbers": Form(csv(fill=lambda index: f"{index + 1},")),
    "header one short, other values": Form(csv(fill=lambda index: f"{index * 7.5},"), "the header 2"),
    "index without a name": Form(csv(",temp,flow", fill=lambda index: f"{index},"), kind="values"),
    "index with a name": Form(with_column("row", ["0", "1", "2", "3"]), kind="values"),
    "units": Form(BASE.replace("flow\n", "flow\n°C,l/min\n")),
    "header twice": Form("temp,flow,temp\n1,2,3\n", "column 'temp' appears more than once"),
    "no header": Form("60.0,3.125\n60.5,3.25\n", "holds numbers"),
    "blank lines": Form(BASE.replace("flow\n", "flow\n\n") + "\n\n"),
    "booleans": Form("temp,flow\ntrue,1.5\nFalse,2\nYES,3\nno,4\n", [[1, 1.5], [0, 2], [1, 3], [0, 4]], kind="values"),
    "exponents": Form("temp,flow\n6.0e1,+3.125\n.5,-5.\n", [[60, 3.125], [0.5, -5]], kind="values"),
    **{
        f"missing {word!r}": Form(
            f"temp,flow\n60.0,3.125\n{word},4\n", [[60, 3.125], [NAN, 4]], missing=True,
            kind="values" if word in ("", "NaN") else "cells",
        )
        for word in ("", "NA", "#N/A", "null", "-", "None", "NaN")
    },
    "missing, not allowed": Form(
        "temp,flow\n60.0,3.125\nNA,4\n7,8\n", [[60, 3.125], [7, 8]], rejected=1, kind="values"
    ),
    "infinite": Form("temp,flow\n60.0,3.125\ninf,4\n7,8\n", [[60, 3.125], [7, 8]], rejected=1, kind="values"),
    "a word": Form("temp,flow\n60.0,3.125\nbroken,4\n7,8\n", [[60, 3.125], [7, 8]], rejected=1, kind="cells"),
    "a word, missing allowed": Form(
        "temp,flow\n60.0,3\nbroken,4\n7,8\n", [[60, 3], [7, 8]], missing=True, rejected=1, kind="cells"
    ),
    "a short row": Form("temp,flow\n60.0,3.125\n5\n7,8\n", [[60, 3.125], [7, 8]], rejected=1),
    "first row long": Form(
        "temp,flow\n5,60.0,3.1\n60.0,3.125\n7,8\n9,5\n", [[60, 3.125], [7, 8], [9, 5]], rejected=1
    ),
    "first row long, a word": Form("temp,flow\nx9,60,3.1\n60.0,3.125\n7,8\n", [[60, 3.125], [7, 8]], rejected=1),
    "first rows long, a gap": Form("temp,flow\n5,60,3.1\n9,60,3.1\n7,8\n", [[7, 8]], rejected=2),
    "all rows long": Form("temp,flow\nx9,60,3.1\nx8,60,3.1\n", "the header 2"),
    "first row words": Form("temp,flow\n??,??\n60.0,3.125\n7,8\n", [[60, 3.125], [7, 8]]),
    "first row words, then row numbers": Form("temp,flow\n??,??\n1,60.0,3.125\n2,7,8\n", [[60, 3.125], [7, 8]]),
    "first row words, then a long row": Form("temp,flow\n??,??\n1,6,3\n2,7\n", [[2, 7]], rejected=1),
    "first row an open quote": Form('temp,flow\n"5,1\n1,60.0,3.125\n2,7,8\n', [[60, 3.125], [7, 8]], rejected=1),
    "first row an open quote, then words": Form('temp,flow\n"5,1\n??,??\n7,8\n', [[7, 8]], rejected=2),
    "first row ambiguous thousands": Form(
        "temp;flow\n1.234;3\n60,5;2\n1.000;2\n", [[1234, 3], [60.5, 2], [1000, 2]], decimal=",", kind="cells"),
    "a long row": Form("temp,flow\n60.0,3.125\n5,1,9\n7,8\n", [[60, 3.125], [7, 8]], rejected=1),
    "an open quote": Form('temp,flow\n60.0,3.125\n"5,1\n7,8\n', [[60, 3.125], [7, 8]], rejected=1),
    "underscores": Form("temp,flow\n60.0,3.125\n1_0,1\n7,8\n", [[60, 3.125], [7, 8]], rejected=1, kind="cells"),
    "hexadecimal": Form("temp,flow\n60.0,3.125\n0x10,1\n7,8\n", [[60, 3.125], [7, 8]], rejected=1, kind="cells"),
    "mixed decimal marks": Form("temp;flow\n60,5;3,25\n60.5;1\n7;8\n", [[60.5, 3.25], [7, 8]], rejected=1),
    "time": Form(
        with_column("timestamp", ["2025-10-24T00:00:00Z", "2025-10-24T00:01:00Z"] * 2), kind="values", time="timestamp"
    ),
    "time by its cells": Form(
        with_column("recorded", [f"24.10.2025 00:0{index}" for index in range(4)]), kind="values", time="recorded"
    ),
    "epoch": Form(
        with_column("t_ms", [str(1_750_000_000_000 + 1000 * index) for index in range(4)]), kind="values", time="t_ms"
    ),
    "epoch before the index": Form(
        with_column("t", [str(1_750_000_000 + index) for index in range(4)]), kind="values", time="t"
    ),
    "times in no order": Form(with_times("00:03", "00:01", "00:02", "00:00"), kind="values", time="timestamp"),
    "times twice": Form(with_times("00:00", "00:00", "00:01", "00:01"), kind="values", time="timestamp"),
    "the end of daylight saving": Form(with_times("02:30", "02:45", "02:00", "02:15"), kind="values", time="timestamp"),
    "the start of daylight saving": Form(
        with_times("01:30+01:00", "01:45+01:00", "03:00+02:00", "03:15+02:00"), kind="values", time="timestamp"
    ),
    "zones that change": Form(
        with_times("02:30+02:00", "02:45+02:00", "02:00+01:00", "02:15+01:00"), kind="values", time="timestamp"
    ),
    "label": Form(with_column("label", ["0", "0", "1", "0"], first=False), labels=1, kind="values"),
    "label words": Form(with_column("anomaly", ["normal", "leak", "ok", "no"], first=False), labels=1, kind="values"),
    "label in the training file only": Form(
        with_column("label", ["0", "0", "1", "0"]), kind="values", labels=1, later=BASE
    ),
    "label in a later file only": Form(
        BASE, kind="values", later=with_column("is_anomaly", ["0", "1", "1", "0"]), later_labels=2
    ),
    "label in training, readings later": Form(
        with_column("target", ["0", "0", "1", "0"]), kind="values", labels=1,
        later=with_column("target", ["0.5", "1.5", "0.5", "2.5"]),
    ),
    "readings in training, whole numbers later": Form(
        with_column("y", ["0.5", "1.5", "0.5", "2.5"]),
        [[y, *row] for y, row in zip([0.5, 1.5, 0.5, 2.5], ROWS, strict=True)],
        kind="values", channels=("y", *CHANNELS), later=with_column("y", ["0", "1", "0", "1"]),
        later_expected=[[y, *row] for y, row in zip([0, 1, 0, 1], ROWS, strict=True)],
    ),
    "category": Form(
        with_column("mode", ["idle", "run", "idle", "run"]),
        [[on, off, *row] for on, off, row in zip([1, 0, 1, 0], [0, 1, 0, 1], ROWS, strict=True)],
        channels=("mode=idle", "mode=run", *CHANNELS),
        one_hot=True, kind="values",
    ),
    "category, refused": Form(
        with_column("mode", ["idle", "run", "idle", "run"]), "'idle' is not a number", channels=("mode", *CHANNELS),
        kind="values",
    ),
    "delimiter set": Form("temp;flow,b\n1;2\n", [[1, 2]], table={"delimiter": ";"}, channels=("temp", "flow,b")),
    "decimal mark set": Form("temp;flow\n60.000;1\n", [[60000, 1]], table={"decimal": ","}, kind="cells"),
}  # fmt: skip

# Training refuses the first table for its columns of text, and has no decimal mark to follow in the second.
DEVICE_FORMS = {
    "first rows words": Form("temp,flow\n??,??\n??,??\n60.0,3.125\n", [[60, 3.125]], rejected=2),
    "first row ambiguous thousands, then points": Form(
        "temp;flow\n3;1.234\n60.5;2\n7;8\n", [[3, 1234], [7, 8]], decimal=",", rejected=1
    ),
}
