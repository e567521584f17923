from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill.core import settings
from tidemill.core.errors import InvalidSetting
from tidemill.core.settings import Settings, read_file, resolve, table

NAMES = [entry.name for entry in table()]
BOUNDED = [entry for entry in table() if entry.metadata["at_least"] is not None]
WORDED = [entry for entry in table() if entry.metadata["one_of"]]


def settled(
    flags: dict[str, Any] | None = None, environment: dict[str, str] | None = None, file: dict[str, Any] | None = None
) -> Settings:
    return resolve(flags or {}, environment or {}, file or {})[0]


@given(st.booleans(), st.booleans(), st.booleans())
def test_flag_beats_environment_beats_file_beats_default(flag: bool, variable: bool, key: bool) -> None:
    found, origins = resolve(
        {"http_port": 1 if flag else None},
        {"TIDEMILL_HTTP_PORT": "2"} if variable else {},
        {"http_port": 3} if key else {},
    )
    expected = [(flag, 1, "flag"), (variable, 2, "environment"), (key, 3, "file"), (True, 8000, "default")]
    _, value, origin = next(each for each in expected if each[0])
    told = next(each for each in origins if each.name == "http_port")
    assert (found.http_port, told.value, told.origin) == (value, value, origin)


def test_nothing_given_gives_the_defaults_in_their_order() -> None:
    found, origins = resolve({}, {}, {})
    assert found == Settings()
    assert [each.name for each in origins] == NAMES
    assert all(each.about for each in origins)


def test_flag_of_false_and_of_zero_is_given() -> None:
    found = settled({"no_auth": False, "threads": 0}, {"TIDEMILL_NO_AUTH": "1", "TIDEMILL_THREADS": "4"})
    assert (found.no_auth, found.threads) == (False, 0)


@pytest.mark.parametrize("entry", BOUNDED, ids=lambda entry: entry.name)
def test_bounds_hold_and_are_named(entry: Any) -> None:
    low, high = entry.metadata["at_least"], entry.metadata["at_most"]
    for good in (low, high):
        assert getattr(settled(file={entry.name: good}), entry.name) == good
    for bad, bound in ((low - 1, low), (high + 1, high)):
        with pytest.raises(InvalidSetting, match=rf"{entry.name}.*{bound}"):
            settled(file={entry.name: bad})


@pytest.mark.parametrize("entry", WORDED, ids=lambda entry: entry.name)
def test_words_are_those_of_the_list(entry: Any) -> None:
    for word in entry.metadata["one_of"]:
        assert getattr(settled({entry.name: word}), entry.name) == word
    with pytest.raises(InvalidSetting, match="must be one of"):
        settled({entry.name: "AUTO "})


@pytest.mark.parametrize("bad", ["", "x", "1.5", "0x10", "nan", "9" * 5000, 1.0, True, None, [], {}, b"1"])
def test_what_is_no_number_is_refused(bad: Any) -> None:
    if isinstance(bad, str):
        with pytest.raises(InvalidSetting, match="TIDEMILL_THREADS"):
            settled(environment={"TIDEMILL_THREADS": bad})
    with pytest.raises(InvalidSetting, match="threads"):
        settled(file={"threads": bad})


@pytest.mark.parametrize(("word", "value"), [("1", True), ("YES", True), ("true", True), ("0", False), ("No", False)])
def test_switch_in_the_environment_takes_plain_words(word: str, value: bool) -> None:
    assert settled(environment={"TIDEMILL_NO_AUTH": word}).no_auth is value


@pytest.mark.parametrize("bad", ["", "on", "2", "y", 1, 0, None, []])
def test_what_is_no_switch_is_refused(bad: Any) -> None:
    with pytest.raises(InvalidSetting, match="no_auth"):
        settled(file={"no_auth": bad})


@pytest.mark.parametrize("bad", [5, None, ["a"], {"a": 1}, True])
def test_what_is_no_path_and_no_word_is_refused(bad: Any) -> None:
    with pytest.raises(InvalidSetting, match="models"):
        settled(file={"models": bad})
    with pytest.raises(InvalidSetting, match="host"):
        settled(file={"host": bad})


def test_home_is_spelled_out_and_an_unknown_user_refused() -> None:
    assert settled({"models": "~/m"}).models == Path.home() / "m"
    with pytest.raises(InvalidSetting, match="models"):
        settled({"models": "~no-such-user-here/m"})


@pytest.mark.parametrize("key", ["http-port", "HTTP_PORT", "ports", "", "batching", "__class__"])
def test_unknown_key_of_the_file_is_an_error(key: str) -> None:
    with pytest.raises(InvalidSetting, match="unknown key"):
        settled(file={key: 1})


@pytest.mark.parametrize(
    "key", ["TIDEMILL_PORTS", "TIDEMILL_", "TIDEMILL_HTTP-PORT", "TIDEMILL_Http_Port", "TIDEMILL_http_port"]
)
def test_unknown_variable_is_an_error_and_case_counts(key: str) -> None:
    with pytest.raises(InvalidSetting, match=f"unknown variable {key}"):
        settled(environment={key: "1"})


def test_variables_of_others_are_let_be() -> None:
    assert (
        settled(environment={"PORT": "1", "tidemill_port": "1", "TIDEMILL_URL": "x", "TIDEMILL_KEY": "y"}) == Settings()
    )


def test_file_is_read_as_utf8_with_its_name(tmp_path: Path) -> None:
    path = tmp_path / "t.toml"
    path.write_text('host = "höst"', "utf-8")
    assert read_file(path) == ({"host": "höst"}, str(path))


@pytest.mark.parametrize("content", [b"\xff\xfe", b"host = ", b"a = 1\na = 2", b"a = " + b"[" * 50_000])
def test_file_that_cannot_be_read_is_an_error_with_its_name(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "t.toml"
    path.write_bytes(content)
    with pytest.raises(InvalidSetting, match=r"t\.toml"):
        read_file(path)


def test_file_that_is_named_must_be_there(tmp_path: Path) -> None:
    for path in (tmp_path / "gone.toml", tmp_path):
        with pytest.raises(InvalidSetting, match="there is no file"):
            read_file(path)


def test_file_of_the_working_folder_beats_the_user_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    user = tmp_path / "user"
    user.mkdir()
    monkeypatch.setattr(settings.platformdirs, "user_config_dir", lambda name: str(user))
    monkeypatch.chdir(tmp_path)
    assert read_file(None)[0] == {}
    (user / "tidemill.toml").write_text("threads = 1")
    assert read_file(None)[0] == {"threads": 1}
    (tmp_path / "tidemill.toml").write_text("threads = 2")
    assert read_file(None)[0] == {"threads": 2}


def test_variable_names_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "t.toml"
    path.write_text("threads = 7")
    monkeypatch.setenv("TIDEMILL_CONFIG", str(path))
    assert settings.current({})[0].threads == 7
    monkeypatch.setenv("TIDEMILL_CONFIG", "")
    with pytest.raises(InvalidSetting, match="there is no file"):
        settings.current({})
