from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tidemill.core.errors import FetchFailed
from tidemill.kit import fetch as fetching
from tidemill.kit import tree
from tidemill.kit.fetch import fetch

Fetch = Callable[..., Path]


@pytest.fixture
def get(server: Any, tmp_path: Path) -> Fetch:
    def get(**changes: Any) -> Path:
        content = server.content
        asked = {
            "sha256": hashlib.sha256(content).hexdigest(),
            "size_bytes": len(content),
            "label": "file",
            "pause": lambda seconds: None,
        }
        return fetch(server.url, tmp_path / "file.whl", **(asked | changes))

    return get


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_file_arrives_whole_and_leaves_no_part(server: Any, get: Fetch, tmp_path: Path) -> None:
    seen: list[tuple[str, int, int | None]] = []
    path = get(progress=lambda *step: seen.append(step))
    assert path.read_bytes() == server.content
    assert names(tmp_path) == {"file.whl", "file.whl.lock"}
    assert seen[0] == ("fetching file", 0, len(server.content))
    assert seen[-1] == ("fetching file", len(server.content), len(server.content))


def test_file_that_is_there_is_not_asked_for_again(server: Any, get: Fetch) -> None:
    get()
    get()
    assert server.asked == [None]


def test_cut_connection_is_resumed_where_it_broke(server: Any, get: Fetch) -> None:
    server.cuts = [100_000, 50_000]
    assert get().read_bytes() == server.content
    assert server.asked == [None, "bytes=100000-", "bytes=150000-"]


def test_part_of_an_earlier_process_is_resumed(server: Any, get: Fetch, tmp_path: Path) -> None:
    (tmp_path / "file.whl.part").write_bytes(server.content[:1000])
    assert get().read_bytes() == server.content
    assert server.asked == ["bytes=1000-"]


def test_complete_part_needs_no_request(server: Any, get: Fetch, tmp_path: Path) -> None:
    (tmp_path / "file.whl.part").write_bytes(server.content)
    assert get().read_bytes() == server.content
    assert server.asked == []


@pytest.mark.parametrize("length", [1000, 262_144, 300_000])
def test_part_of_something_else_is_thrown_away(server: Any, get: Fetch, tmp_path: Path, length: int) -> None:
    (tmp_path / "file.whl.part").write_bytes(b"x" * length)
    assert get().read_bytes() == server.content


def test_server_without_range_starts_anew(server: Any, get: Fetch) -> None:
    server.ranges = False
    server.cuts = [100_000]
    assert get().read_bytes() == server.content
    assert server.asked == [None, "bytes=100000-"]


def test_wrong_digest_is_refused_at_once_with_both_digests(server: Any, get: Fetch, tmp_path: Path) -> None:
    with pytest.raises(FetchFailed) as caught:
        get(sha256="0" * 64)
    assert "0" * 64 in caught.value.message
    assert hashlib.sha256(server.content).hexdigest() in caught.value.message
    assert names(tmp_path) == {"file.whl.lock"}
    assert len(server.asked) == 1


@pytest.mark.parametrize("size_bytes", [1000, 1_000_000])
def test_file_of_another_length_is_refused(get: Fetch, tmp_path: Path, size_bytes: int) -> None:
    with pytest.raises(FetchFailed, match="expected 000"):
        get(sha256="0" * 64, size_bytes=size_bytes)
    assert names(tmp_path) == {"file.whl.lock"}


def test_retries_are_bounded_and_what_came_is_kept(server: Any, get: Fetch, tmp_path: Path) -> None:
    pauses: list[float] = []
    server.cuts = [10] * 100
    with pytest.raises(FetchFailed, match="failed 3 times"):
        get(attempts_max=3, pause=pauses.append)
    assert len(server.asked) == 3
    assert pauses == [1, 2]
    assert (tmp_path / "file.whl.part").stat().st_size == 30


def test_busy_server_is_asked_again(server: Any, get: Fetch) -> None:
    server.statuses = [503, 429]
    assert get().read_bytes() == server.content


@pytest.mark.parametrize(("status", "hint"), [(404, "404"), (401, "password")])
def test_answer_that_waiting_does_not_mend_fails_at_once(server: Any, get: Fetch, status: int, hint: str) -> None:
    server.statuses = [status]
    with pytest.raises(FetchFailed, match=hint):
        get()
    assert len(server.asked) == 1


def test_no_network_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(FetchFailed, match="check the network"):
        fetch(
            "http://127.0.0.1:9/file.whl",
            tmp_path / "file.whl",
            sha256="0" * 64,
            size_bytes=1,
            label="file",
            pause=lambda seconds: None,
        )


def test_second_process_waits_for_the_first(server: Any, get: Fetch, tmp_path: Path) -> None:
    """The lock of one process is held while another fetches; it gives up only after its bound."""
    with (
        tree.lock(tmp_path / "file.whl.lock"),
        pytest.raises(FetchFailed, match="another process"),
        tree.lock(tmp_path / "file.whl.lock", wait_s_max=0),
    ):
        pass
    assert get().read_bytes() == server.content


def test_cache_folder_is_the_one_that_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TIDEMILL_CACHE_DIR", str(tmp_path))
    assert fetching.cache_dir() == tmp_path
    monkeypatch.delenv("TIDEMILL_CACHE_DIR")
    assert fetching.cache_dir().name == "tidemill"
