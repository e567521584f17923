"""Making and showing keys; used by the admin API and by the command line on a data folder."""

from __future__ import annotations

from typing import Any

import msgspec

from tidemill.account.keys import checked_name, make
from tidemill.store import accounts
from tidemill.store.database import Connection


def create_key(connection: Connection, tenant: str, label: str, admin: bool) -> dict[str, Any]:
    """Make and keep a key; the answer holds it in the clear, for the only time. Raises `InvalidSetting`."""
    checked_name("tenant", tenant)
    if label:
        checked_name("label", label)
    made = make()
    accounts.add_key(connection, made.id, made.digest, tenant, label, admin)
    return {"id": made.id, "key": made.key, "tenant": tenant, "label": label, "admin": admin}


def told_key(record: accounts.KeyRecord) -> dict[str, Any]:
    """A key as it may be shown: without its digest."""
    told = msgspec.structs.asdict(record)
    del told["digest"]
    return told
