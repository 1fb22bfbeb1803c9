"""Settings of table files, the same for training data and for sources of a device."""

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
    dates: str = Field(
        "auto",
        title="Dates",
        description='"day_first" or "month_first" in dates such as 02/11/2025, or a format such as %d-%b-%Y %H:%M; '
        '"auto": the order that fits all rows',
    )

    @field_validator("dates")
    @classmethod
    def _is_known(cls, dates: str) -> str:
        if dates not in {"auto", "day_first", "month_first"} and "%" not in dates:
            raise ValueError("must be auto, day_first, month_first, or a format such as %d-%b-%Y %H:%M")
        return dates
