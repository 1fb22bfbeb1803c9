"""Options of commands that read a text table; docs/TABLES.md explains their values."""

from typing import Annotated

import typer

DELIMITER = Annotated[str, typer.Option(help='Delimiter of a text table: "auto", ",", ";" or "tab".')]
DECIMAL = Annotated[str, typer.Option(help='Decimal mark of a text table: "auto", "." or ",".')]
ENCODING = Annotated[str, typer.Option(help='Encoding of a text table: "auto", "utf-8", "utf-16" or "cp1252".')]
DATES = Annotated[
    str, typer.Option(help='Dates: "auto", "day_first", "month_first", or a format such as "%d-%b-%Y %H:%M".')
]
TIME_COLUMN = Annotated[
    str, typer.Option(help="Column of times, or DATE+TIME for two; by default timestamp, time, ...")
]
