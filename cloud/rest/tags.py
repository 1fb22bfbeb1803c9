"""Comparison of entity tags (RFC 9110, section 13.1.2)."""


def matches(if_none_match: str, tag: str) -> bool:
    """Return whether the header If-None-Match names a tag; weak tags count too."""
    named = (item.strip().removeprefix("W/") for item in if_none_match.split(","))
    return if_none_match.strip() == "*" or tag in named
