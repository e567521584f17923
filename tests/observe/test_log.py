from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import crafted
from small_engines import soon
from tidemill.account.group_commit import GroupCommit
from tidemill.account.keys import Keys, make
from tidemill.account.ledger import DurableLedger
from tidemill.core.errors import InvalidKey, RevokedKey
from tidemill.core.request import Caller, InferenceRequest, Predict
from tidemill.core.tensor import DTYPES
from tidemill.deploy.local import FleetPolicy, LocalFleet
from tidemill.observe.log import REQUEST_ID, ForPeople, JsonLines, set_up
from tidemill.serve.answer import Service
from tidemill.serve.queue import BoundedQueue
from tidemill.store import accounts, database, ledger

log = logging.getLogger("tidemill.test")


def admit(service: Service, credential: str, served: Any) -> Caller:
    """What a door does before it reads a body."""
    caller = service.identity.recognise(credential)
    service.gate.limit(caller, served)
    return caller


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    """The process's logging is left as it was found."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    uvicorn = [
        (each, each.propagate, each.level)
        for name in ("", ".error", ".access")
        for each in [logging.getLogger("uvicorn" + name)]
    ]
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    for logger, propagate, level in uvicorn:
        logger.propagate = propagate
        logger.setLevel(level)


def record(message: str, *values: Any, **extra: Any) -> logging.LogRecord:
    return log.makeRecord(log.name, logging.WARNING, __file__, 1, message, values, None, extra=extra)


def told(message: str, *values: Any, **extra: Any) -> dict[str, Any]:
    line = JsonLines().format(record(message, *values, **extra))
    assert "\n" not in line
    found: dict[str, Any] = json.loads(line)
    return found


def test_json_line_has_its_parts_and_what_was_added() -> None:
    line = told("loaded %s", "m", model="m", version=3)
    assert line.pop("time").endswith("Z")
    assert line == {
        "level": "warning", "logger": "tidemill.test", "message": "loaded m", "model": "m", "version": 3,
    }  # fmt: skip


@pytest.mark.parametrize(
    "odd",
    [
        "new\nline",
        '"quote"',
        "\x1b[31m",
        "\ud800",
        "/path/\udcff",
        "\0",
        2**70,
        float("nan"),
        {1: 2},
        object(),
        b"\xff",
    ],
)
def test_no_value_loses_the_line(odd: Any) -> None:
    assert told("a %s", odd)["level"] == "warning"
    assert "odd" in told("a", odd=odd)
    assert ForPeople().format(record("a %s", odd, odd=odd)).isprintable()


def test_value_from_outside_ends_no_line_and_steers_no_terminal() -> None:
    line = ForPeople().format(record("model %s", "x\n12:00:00 error   forged\x1b[2J", path="a\rb"))
    assert "\\n12:00:00" in line
    assert "\\x1b" in line
    assert "a\\rb" in line
    assert "潮汐 ü" in ForPeople().format(record("潮汐 ü"))


def test_request_id_is_told_where_there_is_one() -> None:
    assert "request_id" not in told("a")
    token = REQUEST_ID.set("r1")
    try:
        assert told("a")["request_id"] == "r1"
        assert ForPeople().format(record("a")).endswith("request_id=r1")
    finally:
        REQUEST_ID.reset(token)


def test_exception_is_told_with_its_trace() -> None:
    try:
        _ = 1 / 0
    except ZeroDivisionError:
        failed = log.makeRecord(log.name, logging.ERROR, __file__, 1, "it broke", (), sys.exc_info())
    assert "ZeroDivisionError" in json.loads(JsonLines().format(failed))["exception"]
    assert "it broke\nTraceback" in ForPeople().format(failed)


@pytest.mark.parametrize(("form", "kind"), [("json", JsonLines), ("human", ForPeople), ("auto", JsonLines)])
def test_form_is_the_one_asked_for(
    form: str, kind: type[logging.Formatter], capsys: pytest.CaptureFixture[str]
) -> None:
    set_up(form, "warning")
    (handler,) = logging.getLogger().handlers
    assert type(handler.formatter) is kind
    log.info("unimportant")
    log.warning("important")
    out, err = capsys.readouterr()
    assert out == ""
    assert "important" in err
    assert "unimportant" not in err


async def test_neither_payload_nor_key_is_logged_on_the_whole_way(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Goal: nothing that a caller sends appears, whatever goes wrong. Method: all crafts at debug, secrets inside."""
    caplog.set_level(logging.DEBUG)
    with closing(database.connect(tmp_path)) as connection:
        made, gone = make(), make()
        for each in (made, gone):
            accounts.add_key(connection, each.id, each.digest, "acme", "", False)
        accounts.revoke_key(connection, gone.id)
        broken = [False]

        def book(rows: Any) -> None:
            if broken[0]:
                raise OSError("no space left on device")
            ledger.book(connection, rows)

        commits = GroupCommit(book, 10)
        fleet = LocalFleet(FleetPolicy("auto", 1, 1, 8, 10, 0.0, 1))
        keys = Keys(lambda: accounts.epoch(connection), lambda: accounts.all_keys(connection))
        service = Service(keys, BoundedQueue(9, lambda: False), DurableLedger(commits, fleet.tariff), fleet)
        served = await fleet.load(crafted.package(crafted.save(tmp_path / "m", crafted.identity(8, ["rows"]))))
        await fleet.load(crafted.package(tmp_path / "gone.onnx"))
        caller = admit(service, made.key, served)
        for wrong, error in ((gone.key, RevokedKey), (made.key + "x", InvalidKey)):
            with pytest.raises(error):
                admit(service, wrong, served)
        for number, value in enumerate((b"PAYLOAD", b"PAYLOAD\xff", b"PAYLOAD")):
            broken[0] = number == 2
            tensors = {"x": np.array([value], DTYPES["BYTES"])}
            request = InferenceRequest("m", 1, Predict(tensors), f"r{number}", f"c{number}", soon())
            try:
                async with service.open(caller, request) as pieces:
                    await anext(pieces)
            except Exception as error:  # noqa: BLE001 - whichever it is, it is logged here as a door would
                log.warning("%s", error)
        await fleet.close()
        await commits.close()
    assert "no space left" in caplog.text
    for secret in ("PAYLOAD", made.key, gone.key, made.key[3:20], made.digest.hex()):
        assert secret not in caplog.text
