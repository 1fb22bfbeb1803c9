"""Roles of people: each holds the rights of those below it."""

from enum import StrEnum


class UserRole(StrEnum):
    """Role of an account, from the least rights to the most."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    ADMIN = "admin"

    def covers(self, needed: "UserRole") -> bool:
        """Return whether the role has at least the rights of another one."""
        roles = list(UserRole)
        return roles.index(self) >= roles.index(needed)
