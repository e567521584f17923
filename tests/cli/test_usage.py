from __future__ import annotations

import json
import time
from contextlib import closing
from pathlib import Path

from click.testing import CliRunner

from tidemill.cli.usage import usage_command
from tidemill.store import database, ledger


def shown(folder: Path, *flags: str) -> str:
    done = CliRunner().invoke(usage_command, ["--data-dir", str(folder), *flags])
    assert done.exit_code == 0, done.output
    return done.output


def booked(folder: Path, *tokens: tuple[int, int, int]) -> None:
    now = int(time.time() * 1000)
    rows = [(f"c{n}", "acme", "k", "m", 1, "r", 1, 1, 250, now, *each) for n, each in enumerate(tokens)]
    with closing(database.connect(folder)) as connection:
        ledger.book(connection, rows)


def test_tokens_are_shown_and_summed_where_there_are_some(tmp_path: Path) -> None:
    booked(tmp_path, (100, 7, 0), (50, 3, 20))
    head, *_, total = shown(tmp_path).splitlines()
    assert head.split("  ")[-1].strip() == "units"
    for word in ("tokens in", "cached", "tokens out"):
        assert word in head
    assert total.split() == ["total", "2", "2", "150", "20", "10", "0.0000005"]
    (row,) = json.loads(shown(tmp_path, "--json"))
    assert (row["prompt_tokens"], row["completion_tokens"], row["cached_tokens"]) == (150, 10, 20)


def test_without_tokens_their_columns_are_left_out(tmp_path: Path) -> None:
    booked(tmp_path, (0, 0, 0))
    assert "tokens" not in shown(tmp_path)
