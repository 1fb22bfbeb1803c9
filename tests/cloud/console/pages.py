"""The pages of the console, from the table of its routes."""

from cloud.accounts.access_table import RouteAccess

_NO_PAGES = ("/api/", "/parts/", "/static/", "/media/", "/shared/", "/link/", "/sign", "/live", "/favicon.ico")


def is_page(route: RouteAccess) -> bool:
    """Return whether a route answers a person who has signed in with a page."""
    return route.methods == "GET" and not route.path.startswith(_NO_PAGES) and ".{form}" not in route.path
