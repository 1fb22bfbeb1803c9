"""Settings of table files, the same for training data and for sources of a device."""

from datetime import UTC, datetime
from typing import Literal

from pydantic import Field, field_validator

from shared.settings import Settings


class TableSettings(Settings):
    """Format of a table file. "auto" detects it from the first lines."""

    delimiter: Literal["auto", ",", ";", "tab"] = Field(
        "auto", title="Delimiter", description='between the cells of a row; "auto": the most frequent in the header'
    )
    decimal: Literal["auto", ".", ","] = Field(
        "auto", title="Decimal mark", description='"auto": from the first number that allows only one reading'
    )
    encoding: Literal["auto", "utf-8", "utf-16", "cp1252"] = Field(
        "auto", title="Encoding", description='"auto": UTF-16 if the file begins so, else UTF-8, else Windows-1252'
    )
    dates: Literal["auto", "day_first", "month_first"] = Field(
        "auto", title="Dates", description='order in dates such as 02/11/2025; "auto": the order that fits all rows'
    )
    date_format: str = Field(
        "",
        title="Date format",
        description='strptime format of the times, such as "%d %b %y %H.%M"; empty: the usual forms',
    )

    @field_validator("date_format")
    @classmethod
    def _reads_back(cls, text: str) -> str:
        moment = datetime(2031, 10, 24, 11, 22, 33, tzinfo=UTC)
        try:
            found = datetime.strptime(moment.strftime(text), text) if text else moment
        except ValueError as error:
            raise ValueError(f"is not a format of dates: {error}") from None
        if found.date() != moment.date():
            raise ValueError("must hold year, month and day, such as %d.%m.%y")
        return text
