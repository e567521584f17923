"""Each contract on imports holds, and is seen to break when it is broken."""

from __future__ import annotations

from pathlib import Path

import pytest

from .planted import House, declared, folders

CONTRACTS = {contract["id"]: contract["name"] for contract in declared()}
BREACHES = [
    ("floors", "core/errors.py", "import tidemill.observe.metrics"),
    ("floors", "engine/echo.py", "from tidemill.serve import queue"),
    ("floors", "serve/queue.py", "from tidemill.account import keys"),
    ("floors", "account/keys.py", "from tidemill.deploy.local import LocalFleet"),
    ("floors", "store/accounts.py", "import tidemill.repository.layout"),
    ("floors", "doors/way.py", "from tidemill.console import api"),
    ("floors", "doors/way.py", "from tidemill import assemble"),
    ("floors", "assemble/__init__.py", "from tidemill.cli import common"),
    ("floors", "kit/half.py", "from tidemill.client import http1"),
    ("floors", "kit/half.py", "from tidemill.observe import log"),
    ("floors", "steps/image.py", "from tidemill.observe import log"),
    ("floors", "steps/chain.py", "from tidemill.kit import half"),
    ("floors", "client/result.py", "from tidemill.engine import batching"),
    ("floors", "observe/log.py", "def late() -> None:\n    import tidemill.repository.layout"),
    ("floors", "attic/__init__.py", '"""A folder that no floor names."""'),
    ("beside", "assemble/__init__.py", "from tidemill.kit import catalogue"),
    ("beside", "doors/way.py", "import tidemill.client.http1"),
    ("beside", "engine/echo.py", "def late() -> None:\n    from tidemill.kit import samples"),
    ("ray", "deploy/local.py", "import ray"),
    ("ray", "cli/doctor.py", "from ray import serve"),
    ("web", "assemble/__init__.py", "from starlette.applications import Starlette"),
    ("web", "serve/answer.py", "import grpc.aio"),
    ("web", "kit/fetch.py", "import uvicorn"),
    ("web", "console/site.py", "import grpc"),
    ("web", "doors/way.py", "import nicegui"),
    ("torch", "engine/onnx.py", "import torch"),
    ("torch", "cli/doctor.py", "def late() -> None:\n    import torch.nn"),
    ("sql", "account/ledger.py", "import sqlite3"),
    ("sql", "cli/keys.py", "from sqlalchemy import text"),
    ("console", "console/site.py", "from tidemill.observe import metrics"),
    ("console", "console/api.py", "from tidemill.serve import answer"),
]
"""Contract, module, and the line that breaks it."""


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House.copied(tmp_path)


def test_the_house_keeps_every_contract(house: House) -> None:
    verdict = house.judged()
    assert verdict.broken == frozenset(), verdict.text
    assert verdict.kept == set(CONTRACTS.values())
    assert verdict.code == 0


def test_every_contract_has_a_breach() -> None:
    assert {contract for contract, _, _ in BREACHES} == set(CONTRACTS)


@pytest.mark.slow
@pytest.mark.parametrize(("contract", "module", "line"), BREACHES)
def test_a_breach_is_seen(house: House, contract: str, module: str, line: str) -> None:
    house.plant(module, line)
    verdict = house.judged()
    assert CONTRACTS[contract] in verdict.broken, verdict.text
    assert module.removesuffix(".py").removesuffix("/__init__").replace("/", ".") in verdict.text
    assert verdict.code == 1


def test_every_craft_is_kept_from_client_and_kit() -> None:
    beside = next(contract for contract in declared() if contract["id"] == "beside")
    assert set(beside["source_modules"]) == {
        f"tidemill.{name}" for name in folders() - {"cli", "client", "kit", "core"}
    }
