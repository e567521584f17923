"""Floor 6: settings to objects, the one composition root."""

from tidemill.assemble.choice import Choice, choose, chosen, entries
from tidemill.assemble.exposure import check_exposure
from tidemill.assemble.keys import create_key, told_key
from tidemill.assemble.once import once
from tidemill.assemble.owner import Owner, fleet_policy, serve
from tidemill.core.collector import quieten_collector

__all__ = [
    "Choice",
    "Owner",
    "check_exposure",
    "choose",
    "chosen",
    "create_key",
    "entries",
    "fleet_policy",
    "once",
    "quieten_collector",
    "serve",
    "told_key",
]
