from __future__ import annotations

from collections import Counter

from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from tidemill.observe.metrics import NAMES, Exposition, ModelSample, ServiceSample
from tidemill.observe.stats import ModelStats


def busy(*latencies: float) -> ModelStats:
    stats = ModelStats()
    stats.requests = len(latencies)
    stats.rows = 3 * len(latencies)
    for latency in latencies:
        stats.latency.observe(latency)
        stats.batch_rows.observe(3)
    stats.failed("input.shape")
    return stats


def sample() -> ServiceSample:
    models = [
        ModelSample("m", 1, True, 2, busy(0.001, 0.02, 500.0)),
        ModelSample("m", 2, False, 0, busy()),
        ModelSample("n-1.b", 10**18 - 1, True, 0, busy(0.5)),
    ]
    return ServiceSample(models, {"key.missing": 4, 'odd"\\\n': 1}, 5, 6, 7, 8)


def families(taken: ServiceSample) -> dict[str, Metric]:
    return {each.name: each for each in text_string_to_metric_families(Exposition(lambda: taken).render().decode())}


def test_page_has_every_name_of_the_table_and_no_other() -> None:
    found = families(sample())
    assert set(found) == set(NAMES)
    assert {name: family.documentation for name, family in found.items()} == NAMES


def test_page_of_a_service_without_models_has_them_too() -> None:
    assert set(families(ServiceSample([], {}, 0, 0, 0, 0))) == set(NAMES)


def test_no_two_samples_are_one_series() -> None:
    """Two versions of a model fail with one code: Prometheus refuses a page that tells one series twice."""
    series = Counter(
        (each.name, tuple(sorted(each.labels.items())))
        for family in families(sample()).values()
        for each in family.samples
    )
    assert [each for each, times in series.items() if times > 1] == []


def test_failures_are_those_of_all_versions_and_those_of_no_model() -> None:
    told = {
        (each.labels["model"], each.labels["code"]): each.value
        for each in families(sample())["tidemill_failures"].samples
    }
    assert told == {("m", "input.shape"): 2, ("n-1.b", "input.shape"): 1, ("", "key.missing"): 4, ("", 'odd"\\\n'): 1}


def test_values_are_those_of_the_sample() -> None:
    found = families(sample())
    first = {"model": "m", "version": "1"}
    for name, value in (("requests", 3), ("rows", 9), ("waiting", 2), ("model_ready", 1)):
        assert next(each.value for each in found[f"tidemill_{name}"].samples if each.labels == first) == value
    for name, value in (("in_flight", 5), ("connections", 6), ("charges", 7), ("charge_groups", 8)):
        assert [each.value for each in found[f"tidemill_{name}"].samples] == [value]
    assert found["tidemill_process_cpu_seconds"].type == "counter"
    assert found["tidemill_process_resident_bytes"].samples[0].value > 1e6


def test_buckets_only_rise_and_end_with_the_count() -> None:
    for name in ("request_seconds", "queue_seconds", "compute_seconds", "batch_rows"):
        samples = [each for each in families(sample())[f"tidemill_{name}"].samples if each.labels.get("version") == "1"]
        buckets = [each for each in samples if each.name.endswith("_bucket")]
        bounds = [float(each.labels["le"]) for each in buckets]
        assert bounds == sorted(set(bounds))
        assert bounds[-1] == float("inf")
        counts = [each.value for each in buckets]
        assert counts == sorted(counts)
        assert counts[-1] == next(each.value for each in samples if each.name.endswith("_count"))


def test_each_scrape_takes_a_fresh_sample() -> None:
    taken = iter([ServiceSample([], {}, 1, 0, 0, 0), ServiceSample([], {}, 2, 0, 0, 0)])
    page = Exposition(lambda: next(taken))
    assert b"tidemill_in_flight 1.0" in page.render()
    assert b"tidemill_in_flight 2.0" in page.render()
