"""Least role of every route of the console's port; a route that is not in the table does not exist for a browser."""

import re
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache

from cloud.store.api_tokens import Scope
from cloud.user_roles import UserRole

API_PREFIX = "/api/v1/"
_VIEWER, _OPERATOR, _ADMIN = UserRole.VIEWER, UserRole.OPERATOR, UserRole.ADMIN


class Csrf(Enum):
    """Proof that a request which changes something comes from a page of this console."""

    HEADER = "header"
    """X-CSRF-Token."""
    FORM = "form"
    """The field `csrf`, which the route checks itself."""


class SiteRule(Enum):
    """What an account that is restricted to sites gets of a route."""

    REFUSED = "refused"
    """Nothing: the answer is about all sites."""
    ANY = "any"
    """Everything: the answer is about no site."""
    SAMPLE = "sample"
    """Only answers about samples of its sites, named by `sample_id` in the path."""
    DEVICE = "device"
    """Only answers about devices of its sites, named by `device_id` in the path."""
    SCOPED = "scoped"
    """Only what is of its sites: the route leaves out the rest; a `device` in the query MUST be of its sites."""


@dataclass(frozen=True, slots=True)
class RouteAccess:
    """Right to one route; `role` is None for a route without sign-in, `{name:path}` matches the rest of a path."""

    methods: str
    path: str
    role: UserRole | None
    sites: SiteRule = SiteRule.REFUSED
    csrf: Csrf = Csrf.HEADER
    stays_open: bool = False
    """Whether an answer goes on after the check, such as a stream of events; it ends with its session."""


ROUTES = (
    # Sign-in and accounts
    RouteAccess("GET POST", "/sign-in", None),
    RouteAccess("GET", "/sign-in/provider", None),
    RouteAccess("GET", "/sign-in/provider/return", None),
    RouteAccess("GET", "/signed-out", None),
    RouteAccess("GET POST", "/link/{secret}", None),
    RouteAccess("GET", "/static/accounts/{name}", None),
    RouteAccess("POST", "/sign-out", _VIEWER, SiteRule.ANY, Csrf.FORM),
    RouteAccess("GET", "/account", _VIEWER, SiteRule.ANY),
    RouteAccess("POST", "/account/password", _VIEWER, SiteRule.ANY, Csrf.FORM),
    RouteAccess("POST", "/account/sessions", _VIEWER, SiteRule.ANY, Csrf.FORM),
    RouteAccess("GET", "/api/account", _VIEWER, SiteRule.ANY),
    # Pages
    RouteAccess("GET", "/", _VIEWER, SiteRule.SCOPED),
    RouteAccess("GET", "/mutes", _VIEWER, SiteRule.SCOPED),
    RouteAccess("GET", "/defect-classes", _VIEWER, SiteRule.ANY),
    RouteAccess("GET", "/verdicts", _VIEWER, SiteRule.SCOPED),
    RouteAccess("GET", "/devices", _VIEWER, SiteRule.SCOPED),
    RouteAccess("GET", "/device/{device_id}", _VIEWER, SiteRule.DEVICE),
    RouteAccess("GET", "/groups", _VIEWER, SiteRule.SCOPED),
    RouteAccess("GET", "/group/{group}", _VIEWER, SiteRule.SCOPED),
    RouteAccess("GET", "/notices", _VIEWER, SiteRule.SCOPED),
    RouteAccess("GET", "/enrolment", _ADMIN, SiteRule.SCOPED),
    RouteAccess("GET", "/system", _VIEWER),
    RouteAccess("GET", "/system/audit", _ADMIN),
    RouteAccess("GET", "/system/users", _ADMIN),
    RouteAccess("GET", "/system/tokens", _ADMIN),
    RouteAccess("GET", "/system/settings", _ADMIN),
    RouteAccess("GET", "/verdict/{sample_id}", _VIEWER, SiteRule.SAMPLE),
    RouteAccess("GET", "/verdict/{sample_id}/export.{form}", _VIEWER, SiteRule.SAMPLE),
    RouteAccess("GET", "/bundle/{bundle_id}", _VIEWER, SiteRule.SCOPED),
    RouteAccess("GET", "/models", _VIEWER, SiteRule.SCOPED),
    RouteAccess("GET", "/models/compare", _VIEWER),
    RouteAccess("GET", "/models/compare/{number}", _VIEWER),
    RouteAccess("GET", "/models/rollouts", _VIEWER, SiteRule.SCOPED),
    RouteAccess("GET", "/models/rounds", _VIEWER),
    RouteAccess("GET", "/models/rollouts/{number}", _VIEWER, SiteRule.SCOPED),
    RouteAccess("GET", "/models/new-rollout", _ADMIN),
    RouteAccess("GET", "/models/training", _OPERATOR, SiteRule.SCOPED),
    RouteAccess("GET", "/models/training/{job_id}", _OPERATOR, SiteRule.SCOPED),
    RouteAccess("GET", "/media/{sample_id}/{name:path}", _VIEWER, SiteRule.SAMPLE),
    RouteAccess("GET", "/favicon.ico", None),
    # Links that show one verdict: their secret is the right
    RouteAccess("GET", "/shared/{secret}", None),
    RouteAccess("GET", "/shared/{secret}/{name:path}", None),
    # Files of the pages, parts of them, and the stream of their changes
    RouteAccess("GET", "/static/console/{digest}/{name}", None),
    RouteAccess("GET", "/parts/review", _VIEWER, SiteRule.SCOPED),
    RouteAccess("GET", "/parts/review/changes", _VIEWER, SiteRule.SCOPED),
    RouteAccess("GET", "/parts/review/item/{item}", _VIEWER, SiteRule.SCOPED),
    RouteAccess("GET", "/parts/review/density", _VIEWER, SiteRule.SCOPED),
    RouteAccess("GET", "/parts/review/mute/{item}", _VIEWER, SiteRule.SCOPED),
    RouteAccess("GET", "/parts/review/effects/{item}", _VIEWER, SiteRule.SCOPED),
    RouteAccess("GET", "/parts/mutes", _VIEWER, SiteRule.SCOPED),
    RouteAccess("GET", "/parts/list", _VIEWER, SiteRule.SCOPED),
    RouteAccess("GET", "/parts/filters", _VIEWER, SiteRule.SCOPED),
    RouteAccess("GET", "/parts/new", _VIEWER, SiteRule.SCOPED),
    RouteAccess("GET", "/parts/devices", _VIEWER, SiteRule.SCOPED),
    RouteAccess("GET", "/parts/device/{device_id}", _VIEWER, SiteRule.DEVICE),
    RouteAccess("POST", "/parts/device/{device_id}/live-view", _OPERATOR, SiteRule.DEVICE),
    RouteAccess("GET", "/parts/notices", _VIEWER, SiteRule.SCOPED),
    RouteAccess("GET", "/parts/system", _VIEWER),
    RouteAccess("GET", "/parts/verdict/{sample_id}", _VIEWER, SiteRule.SAMPLE),
    RouteAccess("GET", "/parts/verdict/{sample_id}/compare", _VIEWER, SiteRule.SAMPLE),
    RouteAccess("GET", "/parts/verdict/{sample_id}/text", _VIEWER, SiteRule.SAMPLE),
    RouteAccess("GET", "/parts/bundle/{bundle_id}", _VIEWER, SiteRule.SCOPED),
    RouteAccess("GET", "/parts/models", _VIEWER, SiteRule.SCOPED),
    RouteAccess("GET", "/parts/models/compare", _VIEWER),
    RouteAccess("GET", "/parts/models/compare/{number}", _VIEWER),
    RouteAccess("GET", "/parts/models/rollouts", _VIEWER, SiteRule.SCOPED),
    RouteAccess("GET", "/parts/models/rounds", _VIEWER),
    RouteAccess("GET", "/parts/models/rollouts/{number}", _VIEWER, SiteRule.SCOPED),
    RouteAccess("GET", "/parts/models/training", _OPERATOR, SiteRule.SCOPED),
    RouteAccess("GET", "/parts/models/training/{job_id}", _OPERATOR, SiteRule.SCOPED),
    RouteAccess("GET", "/live", _VIEWER, SiteRule.SCOPED, stays_open=True),
    # JSON of the console
    RouteAccess("GET", "/api/openapi.json", _VIEWER, SiteRule.ANY),
    RouteAccess("GET", "/api/verdicts", _VIEWER, SiteRule.SCOPED),
    RouteAccess("GET", "/api/verdicts/{sample_id}", _VIEWER, SiteRule.SAMPLE),
    RouteAccess("GET", "/api/devices", _VIEWER, SiteRule.SCOPED),
    RouteAccess("GET", "/api/fleet", _VIEWER, SiteRule.SCOPED),
    RouteAccess("GET", "/api/bundles/{bundle_id}", _VIEWER, SiteRule.SCOPED),
    # HTTP API
    RouteAccess("GET", "/api/v1/openapi.json", None),
    RouteAccess("GET", "/api/v1/verdicts", _VIEWER, SiteRule.SCOPED),
    RouteAccess("GET", "/api/v1/verdicts/{sample_id}", _VIEWER, SiteRule.SAMPLE),
    RouteAccess("GET", "/api/v1/verdicts/{sample_id}/evidence", _VIEWER, SiteRule.SAMPLE),
    RouteAccess("GET", "/api/v1/verdicts/{sample_id}/export.{form}", _VIEWER, SiteRule.SAMPLE),
    RouteAccess("GET POST", "/api/v1/verdicts/{sample_id}/shares", _OPERATOR, SiteRule.SAMPLE),
    RouteAccess("DELETE", "/api/v1/verdicts/{sample_id}/shares/{share_id}", _OPERATOR, SiteRule.SAMPLE),
    RouteAccess("GET", "/api/v1/labels", _VIEWER, SiteRule.SCOPED),
    RouteAccess("GET", "/api/v1/samples/{sample_id}/labels", _VIEWER, SiteRule.SAMPLE),
    RouteAccess("POST", "/api/v1/samples/{sample_id}/labels", _OPERATOR, SiteRule.SAMPLE),
    RouteAccess("GET", "/api/v1/review/items", _VIEWER, SiteRule.SCOPED),
    RouteAccess("GET", "/api/v1/review/items/{item}", _VIEWER, SiteRule.SCOPED),
    RouteAccess("GET", "/api/v1/review/counts", _VIEWER, SiteRule.SCOPED),
    RouteAccess("GET", "/api/v1/review/density", _VIEWER, SiteRule.SCOPED),
    RouteAccess("POST", "/api/v1/review/decisions", _OPERATOR, SiteRule.SCOPED),
    RouteAccess("POST", "/api/v1/review/undo", _OPERATOR, SiteRule.SCOPED),
    RouteAccess("POST", "/api/v1/review/marks", _VIEWER, SiteRule.SCOPED),
    RouteAccess("GET", "/api/v1/review/views", _VIEWER, SiteRule.ANY),
    RouteAccess("PUT DELETE", "/api/v1/review/views/{name}", _VIEWER, SiteRule.ANY),
    RouteAccess("GET", "/api/v1/defect-classes", _VIEWER, SiteRule.ANY),
    RouteAccess("POST", "/api/v1/defect-classes", _OPERATOR, SiteRule.ANY),
    RouteAccess("PATCH DELETE", "/api/v1/defect-classes/{number}", _ADMIN),
    RouteAccess("GET", "/api/v1/mutes", _VIEWER, SiteRule.SCOPED),
    RouteAccess("POST", "/api/v1/mutes", _OPERATOR, SiteRule.SCOPED),
    RouteAccess("POST", "/api/v1/mutes/preview", _VIEWER, SiteRule.SCOPED),
    RouteAccess("POST", "/api/v1/mutes/{mute}/end", _OPERATOR, SiteRule.SCOPED),
    RouteAccess("POST", "/api/v1/mutes/{mute}/resume", _OPERATOR, SiteRule.SCOPED),
    RouteAccess("GET", "/api/v1/missed", _VIEWER, SiteRule.SCOPED),
    RouteAccess("POST", "/api/v1/missed", _OPERATOR, SiteRule.SCOPED),
    RouteAccess("DELETE", "/api/v1/missed/{report}", _OPERATOR, SiteRule.SCOPED),
    RouteAccess("GET", "/api/v1/devices", _VIEWER, SiteRule.SCOPED),
    RouteAccess("GET", "/api/v1/devices/{device_id}", _VIEWER, SiteRule.DEVICE),
    RouteAccess("PATCH DELETE", "/api/v1/devices/{device_id}", _ADMIN, SiteRule.DEVICE),
    RouteAccess("GET", "/api/v1/devices/{device_id}/history", _VIEWER, SiteRule.DEVICE),
    RouteAccess("POST", "/api/v1/devices/{device_id}/live-view", _OPERATOR, SiteRule.DEVICE),
    RouteAccess("POST", "/api/v1/devices/{device_id}/revocation", _ADMIN, SiteRule.DEVICE),
    RouteAccess("GET POST", "/api/v1/tokens", _ADMIN, SiteRule.SCOPED),
    RouteAccess("DELETE", "/api/v1/tokens/{token_id}", _ADMIN, SiteRule.SCOPED),
    RouteAccess("POST", "/api/v1/moves", _ADMIN, SiteRule.SCOPED),
    RouteAccess("POST", "/api/v1/moves/{move}/undo", _ADMIN, SiteRule.SCOPED),
    RouteAccess("GET", "/api/v1/groups", _VIEWER, SiteRule.SCOPED),
    RouteAccess("POST", "/api/v1/groups", _ADMIN),
    RouteAccess("GET", "/api/v1/groups/{group}", _VIEWER, SiteRule.SCOPED),
    RouteAccess("PATCH DELETE", "/api/v1/groups/{group}", _ADMIN),
    RouteAccess("GET", "/api/v1/groups/{group}/forecast", _VIEWER, SiteRule.SCOPED),
    RouteAccess("GET", "/api/v1/groups/{group}/settings", _VIEWER),
    RouteAccess("PUT", "/api/v1/groups/{group}/settings", _ADMIN),
    RouteAccess("GET", "/api/v1/groups/{group}/history", _VIEWER, SiteRule.SCOPED),
    RouteAccess("POST", "/api/v1/groups/{group}/undo", _ADMIN),
    RouteAccess("GET", "/api/v1/bundles", _VIEWER, SiteRule.ANY),
    RouteAccess("GET", "/api/v1/bundles/{bundle_id}", _VIEWER, SiteRule.ANY),
    RouteAccess("GET", "/api/v1/bundles/{bundle_id}/report", _VIEWER, SiteRule.SCOPED),
    RouteAccess("GET", "/api/v1/bundles/{bundle_id}/archive", _OPERATOR),  # may hold normal samples
    RouteAccess("POST", "/api/v1/bundles/{bundle_id}/release", _ADMIN),
    RouteAccess("POST", "/api/v1/bundles/{bundle_id}/withdrawal", _ADMIN),
    RouteAccess("GET", "/api/v1/comparisons", _VIEWER),
    RouteAccess("GET", "/api/v1/comparisons/{number}", _VIEWER),
    RouteAccess("POST", "/api/v1/comparisons", _OPERATOR),
    RouteAccess("POST", "/api/v1/comparisons/{number}/cancellation", _OPERATOR),
    RouteAccess("GET", "/api/v1/rollouts", _VIEWER),
    RouteAccess("GET", "/api/v1/rollouts/{number}", _VIEWER),
    RouteAccess("POST", "/api/v1/rollouts", _ADMIN),
    RouteAccess("POST", "/api/v1/rollouts/{name}/actions", _ADMIN),
    RouteAccess("GET", "/api/v1/training/samples", _OPERATOR, SiteRule.SCOPED),
    RouteAccess("GET", "/api/v1/training/jobs", _OPERATOR, SiteRule.SCOPED),
    RouteAccess("POST", "/api/v1/training/jobs", _ADMIN, SiteRule.SCOPED),
    RouteAccess("GET", "/api/v1/training/jobs/{job_id}", _OPERATOR, SiteRule.SCOPED),
    RouteAccess("DELETE", "/api/v1/training/jobs/{job_id}", _ADMIN, SiteRule.SCOPED),
    RouteAccess("GET", "/api/v1/training/jobs/{job_id}/pictures/{name}", _OPERATOR, SiteRule.SCOPED),
    RouteAccess("POST", "/api/v1/training/jobs/{job_id}/cancellation", _ADMIN, SiteRule.SCOPED),
    RouteAccess("POST", "/api/v1/training/jobs/{job_id}/publication", _ADMIN),  # a rollout goes over all sites
    # An upload is of its maker alone
    RouteAccess("POST", "/api/v1/training/uploads", _ADMIN, SiteRule.SCOPED),
    RouteAccess("GET DELETE", "/api/v1/training/uploads/{upload_id}", _ADMIN, SiteRule.SCOPED),
    RouteAccess("PUT", "/api/v1/training/uploads/{upload_id}/files/{name:path}", _ADMIN, SiteRule.SCOPED),
    RouteAccess("POST", "/api/v1/training/uploads/{upload_id}/inspection", _ADMIN, SiteRule.SCOPED),
    RouteAccess("GET", "/api/v1/training/uploads/{upload_id}/previews/{name}", _ADMIN, SiteRule.SCOPED),
    RouteAccess("GET", "/api/v1/notices", _VIEWER, SiteRule.SCOPED),
    RouteAccess("GET POST", "/api/v1/webhooks", _ADMIN),  # their addresses may be secret
    RouteAccess("DELETE", "/api/v1/webhooks/{webhook_id}", _ADMIN),
    RouteAccess("GET", "/api/v1/audit", _ADMIN),
    RouteAccess("GET POST", "/api/v1/users", _ADMIN),
    RouteAccess("PATCH", "/api/v1/users/{name}", _ADMIN),
    RouteAccess("POST", "/api/v1/users/{name}/links", _ADMIN),
    RouteAccess("DELETE", "/api/v1/users/{name}/sessions", _ADMIN),
    RouteAccess("GET POST", "/api/v1/api-tokens", _ADMIN),
    RouteAccess("DELETE", "/api/v1/api-tokens/{token_id}", _ADMIN),
    RouteAccess("GET", "/api/v1/system", _VIEWER),
    RouteAccess("GET", "/api/v1/system/settings", _ADMIN),
)
"""Every route that a browser may reach; /health, /ready and /metrics are answered before sign-in."""

SCOPES_OF_ROLE = {
    _VIEWER: frozenset(
        {
            Scope.VERDICTS_READ,
            Scope.LABELS_READ,
            Scope.REVIEW_READ,
            Scope.REVIEW_MARK,
            Scope.MUTES_READ,
            Scope.DEVICES_READ,
            Scope.GROUPS_READ,
            Scope.BUNDLES_READ,
            Scope.COMPARISONS_READ,
            Scope.NOTICES_READ,
            Scope.ROLLOUTS_READ,
            Scope.SYSTEM_READ,
        }
    )
}
"""Scopes of the HTTP API that a session of each role has."""
SCOPES_OF_ROLE[_OPERATOR] = SCOPES_OF_ROLE[_VIEWER] | {
    Scope.DEVICES_VIEW,
    Scope.LABELS_WRITE,
    Scope.REVIEW_DECIDE,
    Scope.MUTES_WRITE,
    Scope.SHARES_WRITE,
    Scope.BUNDLES_DOWNLOAD,
    Scope.TRAINING_READ,
    Scope.COMPARISONS_WRITE,
}
SCOPES_OF_ROLE[_ADMIN] = frozenset(Scope)


def route_of(method: str, path: str) -> tuple[RouteAccess, dict[str, str]] | None:
    """Return the entry of a request and the parameters in its path; None for an unknown route.

    HEAD is like GET, and a web socket has the method GET.
    """
    for entry, pattern in _patterns():
        if (found := pattern.fullmatch(path)) and ("GET" if method == "HEAD" else method) in entry.methods.split():
            return entry, found.groupdict()
    return None


@lru_cache(maxsize=1)
def _patterns() -> list[tuple[RouteAccess, re.Pattern[str]]]:
    return [(entry, re.compile(_expression(entry.path), re.DOTALL)) for entry in ROUTES]


def _expression(path: str) -> str:
    parts = re.split(r"(\{[a-z_]+(?::path)?\})", path)
    return "".join(_part(part) if part.startswith("{") else re.escape(part) for part in parts)


def _part(parameter: str) -> str:
    name, _, kind = parameter.strip("{}").partition(":")
    return f"(?P<{name}>.+)" if kind else f"(?P<{name}>[^/]+)"
