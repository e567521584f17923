from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tidemill.deploy.plan import Load, Stands, Unload, assigned, next_step, settled

VERSIONS = st.integers(1, 6)
WANTED = st.dictionaries(VERSIONS, st.sampled_from("abc"), max_size=4)
STANDING = st.dictionaries(VERSIONS, st.builds(Stands, st.sampled_from(["a", "b", "c", None]), st.booleans()))


@given(WANTED, STANDING, st.sets(VERSIONS))
def test_steps_end_at_what_is_wanted_and_a_model_that_serves_never_stops_serving(
    wanted: dict[int, str], standing: dict[int, Stands], broken: set[int]
) -> None:
    """Goal: whatever stands, whatever loads fail. Method: carry out the steps as the controller does."""
    served = any(each.serves for each in standing.values())
    loads = []
    for _ in range(30):
        step = next_step(wanted, standing)
        if step is None:
            break
        if isinstance(step, Load):
            loads.append(step.version)
            before = standing.get(step.version)
            serves = step.version not in broken or (before is not None and before.serves)
            standing = {**standing, step.version: Stands(wanted[step.version], serves)}
        else:
            standing = {version: each for version, each in standing.items() if version != step.version}
        if served and wanted:
            assert any(each.serves for each in standing.values())
    else:
        raise AssertionError(f"no end: {wanted}, {standing}")
    assert loads == sorted(set(loads), reverse=True)
    assert set(wanted) <= set(standing)
    left = set(standing) - set(wanted)
    if not wanted or any(standing[version].serves for version in wanted):
        assert not left
    assert all(standing[version].serves for version in left)


def test_new_version_is_loaded_before_the_old_one_leaves() -> None:
    standing = {1: Stands("a", True)}
    assert next_step({2: "b"}, standing) == Load(2)
    assert next_step({2: "b"}, {**standing, 2: Stands("b", False)}) is None
    assert next_step({2: "b"}, {**standing, 2: Stands("b", True)}) == Unload(1)
    assert next_step({}, standing) == Unload(1)


@given(st.dictionaries(st.sampled_from("xyz"), VERSIONS), st.dictionaries(st.sampled_from("xyz"), VERSIONS),
       st.sets(VERSIONS))  # fmt: skip
def test_label_never_leaves_a_version_that_serves_for_one_that_does_not(
    wanted: dict[str, int], held: dict[str, int], serving: set[int]
) -> None:
    labels, trouble = assigned(wanted, held, serving, free=False)
    assert labels.keys() == wanted.keys()
    for label, version in wanted.items():
        if version in serving:
            assert labels[label] == version
        elif held.get(label) in serving:
            assert labels[label] == held[label]
    assert len(trouble) == sum(version not in serving for version in wanted.values())
    assert assigned(wanted, held, serving, free=True) == (wanted, [])


def test_version_is_whole_by_its_manifest_or_by_its_rest() -> None:
    assert settled("a", True, None, 0.0, 5.0)
    assert not settled("a", False, ("a", 0.0), 99.0, 5.0)
    assert not settled("a", None, None, 99.0, 0.0)
    assert not settled("a", None, ("b", 0.0), 99.0, 5.0)
    assert not settled("a", None, ("a", 95.0), 99.0, 5.0)
    assert settled("a", None, ("a", 94.0), 99.0, 5.0)
