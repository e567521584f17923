from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill.cli import tf_files, tf_words
from tidemill.core.errors import InvalidSetting

PRINTED = ["--rest_api_port=9000", "--model_name=my_model", "--model_base_path=/models"]


@pytest.mark.parametrize(
    "line",
    [
        PRINTED,
        ["-rest_api_port=9000", "-model_name=my_model", "-model_base_path=/models"],
        ["--rest_api_port", "9000", "--model_name", "my_model", "--model_base_path", "/models"],
        [*PRINTED, "--enable_batching"],
        ["--enable_batching", "true", *PRINTED],
    ],
    ids=str,
)
def test_the_start_line_is_understood_in_each_of_its_spellings(line: list[str]) -> None:
    assert tf_words.is_start_line(line)
    read = tf_words.read(line)
    assert read.models == ["my_model=/models"]
    assert read.flags["rest_api_port"] == 9000
    assert read.flags["port"] == tf_words.GRPC_PORT
    assert read.flags["no_auth"] is True
    assert read.flags["http_port"] == 9000
    assert read.flags["grpc_host"] == "127.0.0.1"


def test_without_a_name_the_model_is_called_default() -> None:
    assert tf_words.read(["--model_base_path=/m"]).models == ["default=/m"]


def test_own_words_of_serve_are_no_start_line() -> None:
    assert not tf_words.is_start_line(["half", "--http-port", "8000", "--rest-port"])
    assert not tf_words.is_start_line(["half", "--rest-api-port", "9000"])
    assert not tf_words.is_start_line(["--models", ".", "--rest-api-port=9001", "--port", "9002"])


def test_without_a_port_for_rest_the_one_for_grpc_answers_both() -> None:
    flags = tf_words.read(["--model_base_path=/m", "--port=8600"]).flags
    assert flags["http_port"] == flags["port"] == 8600


def test_keys_are_asked_for_where_a_file_names_some() -> None:
    flags = tf_words.read([*PRINTED, "-auth_key_file", "keys.txt"]).flags
    assert (flags["auth_key_file"], flags["no_auth"]) == ("keys.txt", False)


@pytest.mark.parametrize("name", sorted(tf_words.WITHOUT_EFFECT))
def test_each_flag_without_effect_is_taken_with_a_value_and_told(name: str) -> None:
    (note,) = tf_words.read([*PRINTED, f"--{name}=1"]).notes
    assert note.startswith(f"--{name} has no effect: ")


@pytest.mark.parametrize(("said", "skipped"), [("=false", True), ("=0", True), ("=true", False), ("", False)])
def test_warm_up_requests_may_be_left_out_and_asked_often(said: str, skipped: bool) -> None:
    read = tf_words.read([f"--enable_model_warmup{said}", *PRINTED, "--num_request_iterations_for_warmup=3"])
    assert read.notes == []
    assert (read.flags["no_warm_up"], read.flags["warm_up_times"]) == (skipped, 3)


def test_flags_without_effect_are_told_with_the_reason() -> None:
    (note,) = tf_words.read([*PRINTED, "--enable_batching"]).notes
    assert note.startswith("--enable_batching has no effect")


def test_a_list_of_models_takes_the_place_of_name_and_path() -> None:
    line = ["--model_config_file=/m.conf", "--model_config_file_poll_wait_seconds=5", "--model_name=default"]
    assert tf_words.is_start_line(line[:1])
    assert not tf_words.is_start_line(["--model-config-file=/m.conf"])
    read = tf_words.read([*line, "--allow_version_labels_for_unavailable_models", "--file_system_poll_wait_seconds=0"])
    assert read.models == []
    said = {"model_config_file": "/m.conf", "model_config_poll_s": 5, "watch_s": 0}
    assert said.items() <= read.flags.items()
    assert read.flags["allow_version_labels_for_unavailable_models"] is True
    (note,) = tf_words.read([*line, "--model_base_path=/m"]).notes
    assert note.startswith("--model_base_path has no effect")


def test_files_of_the_line_become_settings_and_a_flag_has_the_last_word(tmp_path: Path) -> None:
    (tmp_path / "batching").write_text("max_batch_size { value: 8 } max_enqueued_batches { value: 3 }")
    (tmp_path / "monitoring").write_text('prometheus_config { enable: true path: "/m/prom" }')
    files = [f"--batching_parameters_file={tmp_path}/batching", f"--monitoring_config_file={tmp_path}/monitoring"]
    read = tf_files.read(tf_words.read([*PRINTED, *files]))
    assert {"max_batch": 8, "queue_max": 24, "metrics_path": "/m/prom"}.items() <= read.flags.items()
    assert tf_files.read(tf_words.read([*PRINTED, *files, "--max_batch=2"])).flags["max_batch"] == "2"
    with pytest.raises(InvalidSetting, match="nowhere"):
        tf_files.read(tf_words.read([*PRINTED, "--batching_parameters_file=/nowhere"]))


@pytest.mark.parametrize("given", ["0", "1", "4"])
def test_number_of_load_threads_is_one_at_least(given: str) -> None:
    assert tf_words.read([*PRINTED, f"--num_load_threads={given}"]).flags["loads_max"] == max(int(given), 1)


@pytest.mark.parametrize(
    ("line", "match"),
    [
        (["--model_name=x"], "--model_base_path is missing"),
        ([*PRINTED, "--model_base_pat=/x"], "did you mean --model_base_path"),
        ([*PRINTED, "--port=many"], "--port=many: expected a whole number"),
        ([*PRINTED, "--port"], "--port wants a value"),
        ([*PRINTED, "half"], "'half' is no flag"),
        ([*PRINTED, "--platform_config_file=/p"], "--platform_config_file is not followed: .*leave it out"),
    ],
    ids=str,
)
def test_what_is_wrong_with_a_start_line_is_told(line: list[str], match: str) -> None:
    with pytest.raises(InvalidSetting, match=match):
        tf_words.read(line)


@given(st.lists(st.text(max_size=12), max_size=6))
def test_any_words_are_read_or_refused(words: list[str]) -> None:
    with contextlib.suppress(InvalidSetting):
        read = tf_words.read(words)
        assert read.models or read.flags["model_config_file"]
