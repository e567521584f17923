"""The texts of each `format` that is held, as regular expressions, each at most what its standard allows; pure."""

from __future__ import annotations

from typing import Final

_YEAR = r"[12]\d(0[1-9]|[1-9]\d)"
_LEAP = r"[12]\d(0[48]|[2468][048]|[13579][26])"
_DATE = (
    rf"({_YEAR}-((0[13578]|1[02])-(0[1-9]|[12]\d|3[01])|(0[469]|11)-(0[1-9]|[12]\d|30)|02-(0[1-9]|1\d|2[0-8]))"
    rf"|{_LEAP}-02-29)"
)
_TIME = r"([01]\d|2[0-3]):[0-5]\d:[0-5]\d(\.\d{1,6})?(Z|[+-]([01]\d|2[0-3]):[0-5]\d)"
_OCTET = r"(25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)"
_LABELS = r"([a-z0-9]{1,20}[.-]){1,4}[a-z]{2,12}"
_WORDS = r"[A-Za-z0-9_]{1,30}([.+-][A-Za-z0-9_]{1,20}){0,2}"

FORMS: Final = {
    "date": f"^{_DATE}$",
    "time": f"^{_TIME}$",
    "date-time": f"^{_DATE}T{_TIME}$",
    "duration": r"^P(\d{1,4}[YMWD]|T\d{1,4}[HMS]|\d{1,4}DT\d{1,2}H)$",
    "email": rf"^{_WORDS}@([a-z0-9]{{1,20}}[.-])?[a-z0-9]{{1,20}}\.[a-z]{{2,12}}$",
    "hostname": f"^{_LABELS}$",
    "ipv4": rf"^{_OCTET}(\.{_OCTET}){{3}}$",
    "ipv6": r"^[0-9a-f]{1,4}(:[0-9a-f]{1,4}){7}$",
    "uuid": r"^[0-9a-f]{8}-[0-9a-f]{4}-[1-5][0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$",
    "uri": rf"^https?://{_LABELS}(/[A-Za-z0-9._~-]{{1,30}}){{0,8}}/?$",
}
"""RFC 3339, 4122, 5321, 1123, 2673, 4291, 3986 and ISO 8601."""
