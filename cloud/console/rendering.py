"""Templates of the pages, which escape every text."""

from functools import lru_cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from cloud.console import words
from cloud.console.static_files import static_address
from cloud.console.why import plot


def render(template: str, **values: Any) -> str:
    """Return a template of `cloud/console/templates` as HTML."""
    return _environment().get_template(template).render(**values)


@lru_cache(maxsize=1)
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("cloud.console"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    environment.globals["static"] = static_address
    environment.filters.update(
        percent=words.percent_words,
        exact=words.exact_time,
        time_of_day=words.time_of_day,
        moment=words.moment,
        quote=words.quoted,
        line=plot.line,
        spans=plot.spans,
        band=plot.band,
        window_box=plot.window_box,
        axis_labels=plot.axis_labels,
    )
    return environment
