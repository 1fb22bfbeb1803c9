"""Options of a command line on the format of a table, the same for `vedette train` and `vedette evaluate`."""

from typing import Annotated

import typer

DELIMITER = Annotated[str, typer.Option(help='Between cells: "," ";" or tab; by default the most frequent.')]
DECIMAL = Annotated[str, typer.Option(help='Decimal mark: "." or ","; by default from the numbers.')]
ENCODING = Annotated[str, typer.Option(help="Encoding: utf-8, utf-16 or cp1252; by default from the bytes.")]
DATES = Annotated[str, typer.Option(help="Dates such as 02/11/2025: day_first or month_first; by default what fits.")]
DATE_FORMAT = Annotated[
    str, typer.Option(metavar="FORMAT", help="strptime format of the times, such as '%d %b %y %H.%M'.")
]
LABEL_COLUMN = Annotated[str, typer.Option(help="Column that marks anomalies; by default label, anomaly, ...")]
TIME_COLUMN = Annotated[
    str, typer.Option(help="Column of times, or DATE+TIME for two columns; by default timestamp, time, ...")
]


def table_options(delimiter: str, decimal: str, encoding: str, dates: str, date_format: str) -> dict[str, str]:
    """Return the options as values of `TableSettings`; "" for an option that is not given."""
    return {
        "delimiter": delimiter,
        "decimal": decimal,
        "encoding": encoding,
        "dates": dates,
        "date_format": date_format,
    }
