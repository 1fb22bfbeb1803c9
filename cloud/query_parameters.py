"""Check of the query parameters of a request against those of its route."""

from fastapi.dependencies.utils import get_flat_dependant
from starlette.requests import Request


def parameter_problem(request: Request) -> str:
    """Return why the query parameters are refused, naming the known ones: unknown or repeated; "" for good ones."""
    known = [field.alias for field in get_flat_dependant(request.scope["route"].dependant).query_params]
    given = [name for name, _ in request.query_params.multi_items()]
    if unknown := sorted(set(given) - set(known)):
        return f"unknown parameter {unknown[0]!r}; known parameters: {', '.join(known) if known else 'none'}."
    if repeated := sorted({name for name in given if given.count(name) > 1}):
        return f"parameter {repeated[0]!r} is given more than once: give it once."
    return ""
