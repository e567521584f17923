"""Keys that an operator keeps in a file (`auth_key_file`), beside those that `tidemill keys` made; owner process.

They are put into the database as others are, as digests, so every process that recognises keys knows them. The file is
read when the service starts; a key that is no longer in it is refused from then on, until it is there again. One that
was revoked by hand stays revoked.
"""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

from tidemill.account.keys import checked_name
from tidemill.core.errors import InvalidSetting
from tidemill.store import accounts
from tidemill.store.database import Connection

LABEL = "auth_key_file"
LABEL_GONE = "no longer in auth_key_file"
FILE_BYTES_MAX = 2**20
KEY_CHARACTERS_MIN = 8
KEY_CHARACTERS_MAX = 1024


def follow_key_file(connection: Connection, name: str) -> None:
    """Recognise the keys of the file `name`, and no others that came from such a file; none where it is "".

    Raises `InvalidSetting` for a file that cannot be read and for a line that is none.
    """
    wanted = read_key_file(Path(name).expanduser()) if name else {}
    known = {record.digest: record for record in accounts.all_keys(connection)}
    for digest, tenant in wanted.items():
        found = known.get(digest)
        if found is None:
            accounts.add_key(connection, f"file-{digest.hex()[:12]}", digest, tenant, LABEL, admin=False)
        elif found.label == LABEL_GONE and found.tenant == tenant:
            accounts.resume_key(connection, found.id, LABEL)
        elif found.revoked_at is not None or found.tenant != tenant:
            raise InvalidSetting(
                f"{name}: the key of {tenant!r} is known as {found.id} of {found.tenant!r}"
                f"{' and was revoked' if found.revoked_at is not None else ''}; give {tenant!r} another key"
            )
    for digest, record in known.items():
        if record.label == LABEL and record.revoked_at is None and digest not in wanted:
            accounts.suspend_key(connection, record.id, LABEL_GONE)


def read_key_file(file: Path) -> dict[bytes, str]:
    """The SHA-256 of each key -> its tenant. Empty lines and those that begin with `#` say nothing.

    No message shows a key: it would stand in the log. Raises `InvalidSetting`.
    """
    try:
        if file.stat().st_size > FILE_BYTES_MAX:
            raise InvalidSetting(f"--auth-key-file {file} has more than {FILE_BYTES_MAX} bytes")
        text = file.read_text("utf-8")
    except FileNotFoundError as error:
        raise InvalidSetting(
            "--auth-key-file names no file; write the line TENANT:KEY into one and name that (a key within a start"
            " line could be read by everyone on this machine)"
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidSetting(f"--auth-key-file {file} cannot be read: {error}") from error
    found: dict[bytes, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        tenant, colon, key = (each.strip() for each in line.partition(":"))
        place = f"{file} line {number}"
        if not colon:
            raise InvalidSetting(f"{place}: expected TENANT:KEY")
        checked_name(f"{place}: tenant", tenant)
        if not KEY_CHARACTERS_MIN <= len(key) <= KEY_CHARACTERS_MAX or not key.isascii() or not key.isprintable():
            raise InvalidSetting(
                f"{place}: a key has {KEY_CHARACTERS_MIN} to {KEY_CHARACTERS_MAX} printable ASCII characters"
            )
        digest = sha256(key.encode()).digest()
        if found.setdefault(digest, tenant) != tenant:
            raise InvalidSetting(f"{place}: {tenant!r} has the key of {found[digest]!r}; each key has one tenant")
    if not found:
        raise InvalidSetting(f"--auth-key-file {file} holds no key; a line is TENANT:KEY")
    return found
