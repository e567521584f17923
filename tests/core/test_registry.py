from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from tidemill.core import registry
from tidemill.core.errors import InvalidSetting, MissingPart

Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Registers an engine of a third party: its entry point's value, and the source of its module `other_engine`."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def install(name: str, value: str, source: str = "") -> None:
        (tmp_path / "other_engine.py").write_text(source)
        entry = EntryPoint(name, value, "tidemill.engines")
        monkeypatch.setattr(registry, "entry_points", lambda group: [entry] if group == entry.group else [])
        registry.known.cache_clear()

    yield install
    registry.known.cache_clear()
    sys.modules.pop("other_engine", None)


def test_built_in_engines_are_there() -> None:
    assert {"onnx", "openvino", "echo"} <= set(registry.names("engine"))
    assert all(callable(registry.load(f"engine.{name}")) for name in ("onnx", "openvino", "echo"))


def test_built_in_solvers_are_methods_of_their_name() -> None:
    wanted = {"int8", "gptq", "adaquant", "kmeans", "two-bit", "binary", "laplace", "zero-one", "unify"}
    assert wanted <= set(registry.names("solver"))
    assert {registry.load(f"solver.{name}").name for name in wanted} == wanted


def test_unknown_name_tells_the_known_ones() -> None:
    with pytest.raises(InvalidSetting, match=r"'engine\.warp'.*onnx"):
        registry.load("engine.warp")
    with pytest.raises(InvalidSetting, match="none"):
        registry.load("sail.red")


@pytest.mark.parametrize("value", ["other_engine:load", "other_engine:Maker.load", "other_engine : load [fast]"])
def test_engine_of_a_third_party_is_found(install: Install, value: str) -> None:
    install("tide", value, "def load(): return 7\nclass Maker:\n    load = load\n")
    assert "tide" in registry.names("engine")
    assert registry.load("engine.tide") is sys.modules["other_engine"].load


def test_entry_point_beats_a_built_in(install: Install) -> None:
    install("echo", "other_engine:load", "load = 'mine'")
    assert registry.load("engine.echo") == "mine"


def test_nothing_is_imported_to_list_names(install: Install) -> None:
    install("tide", "other_engine:load", "raise SystemExit")
    assert "tide" in registry.names("engine")
    assert "other_engine" not in sys.modules


def test_missing_library_of_ours_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "tidemill.engine.openvino", raising=False)
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(MissingPart, match=r"needs openvino: pip install 'tidemill\[openvino\]'"):
        registry.load("engine.openvino")


def test_missing_library_of_others_names_the_library(install: Install) -> None:
    install("tide", "other_engine:load", "import no_such_library")
    with pytest.raises(MissingPart, match="needs no_such_library: pip install 'no_such_library'"):
        registry.load("engine.tide")


def test_library_that_is_broken_is_told(install: Install) -> None:
    install("tide", "other_engine:load", "raise ImportError('libtide.so: cannot open shared object file')")
    with pytest.raises(MissingPart, match=r"libtide\.so"):
        registry.load("engine.tide")


@pytest.mark.parametrize("value", ["other_engine:gone", "other_engine", "other_engine:"])
def test_entry_point_to_nothing_is_told(install: Install, value: str) -> None:
    install("tide", value)
    with pytest.raises(InvalidSetting, match="other_engine"):
        registry.load("engine.tide")
