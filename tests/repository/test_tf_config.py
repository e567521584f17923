from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill.core.errors import InvalidSetting
from tidemill.core.package import ModelEntry, VersionPolicy
from tidemill.repository import tf_config

FILE = Path("models.config")
PUBLISHED = """
# as the published guide writes it
model_config_list {
  config {
    name: 'my_first_model'
    base_path: '/tmp/my_first_model/'
    model_platform: 'tensorflow'
    model_type: TENSORFLOW
    logging_config {
      log_collector_config { type: 'request_log' filename_prefix: '/var/log/requests' }
      sampling_config { sampling_rate: 0.01 }
    }
  }
  config: {
    name: "my_second_model", base_path: "/tmp/my_second_model/"
    model_version_policy { specific { versions: 42 versions: 43 } }
    version_labels { key: 'stable' value: 43 }
    version_labels { key: 'canary' value: 42 }
  }
  config { name: "third" base_path: "/t" model_version_policy { all {} } }
  config { name: "fourth" base_path: "/f" model_version_policy { latest { num_versions: 2 } } }
}
"""


def test_list_of_models_is_read_as_it_is_published() -> None:
    assert tf_config.models_of(PUBLISHED, FILE) == [
        ModelEntry("my_first_model", Path("/tmp/my_first_model")),
        ModelEntry(
            "my_second_model",
            Path("/tmp/my_second_model"),
            VersionPolicy(specific=(42, 43)),
            {"stable": 43, "canary": 42},
        ),
        ModelEntry("third", Path("/t"), VersionPolicy(all_versions=True)),
        ModelEntry("fourth", Path("/f"), VersionPolicy(latest=2)),
    ]
    assert tf_config.models_of("model_config_list {}", FILE) == []


def test_what_has_no_effect_in_the_list_is_told(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        tf_config.models_of(PUBLISHED, FILE)
    assert [(each.getMessage().partition(" ")[0], each.__dict__["model"]) for each in caplog.records] == [
        ("model_type", "my_first_model"),
        ("logging_config", "my_first_model"),
    ]


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", "the config is empty"),
        (
            "model_config_list { config { name: 'x' base_path: 'gs://b/x' } }",
            "'gs://b/x': gs:// is a bucket .* copy it",
        ),
        ("model_config_list { config { name: 'x' base_path: 'S3://b/x' } }", "s3:// is a bucket"),
        ("model_config_list { config { nam: 'x' } }", "1:.*nam"),
        ("model_config_list { config {", "models.config:1"),
        ("model_config_list { config { name: 'x' base_path: 'rel' } }", "expected an absolute path"),
        ("model_config_list { config { base_path: '/x' } }", "has no name"),
        ("model_config_list { config { name: '../x' base_path: '/x' } }", "is no name for a model"),
        ("model_config_list { config { name: 'x' base_path: '/x' } config { name: 'x' base_path: '/y' } }", "twice"),
    ],
    ids=str,
)
def test_list_that_is_told_badly_is_refused_with_the_place(text: str, match: str) -> None:
    with pytest.raises(InvalidSetting, match=match) as caught:
        tf_config.models_of(text, FILE)
    assert "models.config" in caught.value.message


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(InvalidSetting):
        assert isinstance(tf_config.models_of(text, FILE), list)


def test_batching_parameters_are_settings_and_what_has_no_effect_is_told(tmp_path: Path) -> None:
    file = tmp_path / "batching"
    file.write_text(
        "max_batch_size { value: 128 }\nbatch_timeout_micros { value: 2500 }\nmax_enqueued_batches { value: 1000000 }\n"
        "num_batch_threads { value: 8 }\nallowed_batch_sizes: 8\nallowed_batch_sizes: 128\n"
        "pad_variable_length_inputs: true\nthread_pool_name { value: 'x' }\n"
        "low_priority_max_batch_size { value: 4 }\nlow_priority_batch_timeout_micros { value: 4 }\n"
        "low_priority_max_enqueued_batches { value: 4 }\nlow_priority_allowed_batch_sizes: 4\n"
        "mixed_priority_batching_policy { value: 'priority_isolation' }\n"
    )
    settings, notes = tf_config.read_batching(file)
    assert settings == {"max_batch": 128, "instances": 8, "queue_max": 1_000_000, "batch_delay_ms": 2.5}
    told = "\n".join(notes)
    names = ("pad_variable_length_inputs", "thread_pool_name", "low_priority_max_batch_size")
    assert all(word in told for word in (*names, "low_priority_allowed_batch_sizes", "mixed_priority_batching_policy"))
    assert len(notes) == 8
    file.write_text("max_batch_sise { value: 8 }")
    with pytest.raises(InvalidSetting, match="max_batch_sise"):
        tf_config.read_batching(file)
    file.write_text("max_batch_size { value: 0 }")
    with pytest.raises(InvalidSetting, match="max_batch_size is 0, expected 1 at least"):
        tf_config.read_batching(file)
    with pytest.raises(InvalidSetting, match="cannot be read"):
        tf_config.read_batching(tmp_path / "gone")


def test_metrics_are_answered_where_the_monitoring_file_says(tmp_path: Path) -> None:
    file = tmp_path / "monitoring"
    for text, path in {
        "prometheus_config { enable: true, path: '/here' }": "/here",
        "prometheus_config { enable: true }": "/monitoring/prometheus/metrics",
        "prometheus_config { path: '/here' }": "",
        "": "",
    }.items():
        file.write_text(text)
        assert tf_config.read_metrics_path(file) == path
