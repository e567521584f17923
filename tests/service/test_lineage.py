"""What the admin API tells of compressed models, on a running service."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import small_models
from serving import Server, tidemill
from tidemill.compress import publish
from tidemill.compress.graph import Graph
from tidemill.repository import layout
from tidemill.repository.lineage import Lineage, Loss, Measured, Origin, Rows

PAGE = "<h1>what it cost</h1><script>alert(1)</script>"


def publish_one(repository: Path) -> None:
    """`whole` as if it were compressed, with a report."""
    one = Measured(1.0, 0.9, 1.0)
    told = Lineage(
        of=Origin("whole", 1, "ab" * 32, 4000),
        recipe={"steps": [{"method": "int8", "options": {}}]},
        seed=0,
        data=Rows("x.npz", "cd" * 32, 8, 2),
        loss=Loss("cosine", one, one, Measured(0.0, -0.1, 0.1), 1.0, 0.99),
        created_at=5.0,
        tidemill="0.1.0",
    )

    def report(folder: Path, version: int, model: Path) -> None:
        folder.mkdir()
        (folder / "report.html").write_text(PAGE)

    place = repository / "whole" / "1"
    of = layout.package("whole", 1, place)
    publish.publish(repository, "small", of, Graph.read(place / "model.onnx"), told, report)


@pytest.fixture(scope="module")
def compressed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, str]]:
    folder = tmp_path_factory.mktemp("lineage")
    small_models.save(folder / "models", "whole", small_models.whole_numbers())
    publish_one(folder / "models")
    made = tidemill("keys", "create", "--tenant", "operators", "--admin", "--data-dir", folder / "data")
    with Server(folder / "models", folder / "data") as running:
        yield running, made.stdout.strip()


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


def test_compressed_models_are_told_with_origin_loss_and_size(compressed: tuple[Server, str]) -> None:
    server, key = compressed
    (model,) = server.client.get("/admin/v1/lineage", headers=bearer(key)).json()["models"]
    assert (model["name"], model["version"], model["methods"], model["report"]) == ("small", 1, ["int8"], True)
    assert (model["of"]["name"], model["loss"]["kept"], model["created_at"]) == ("whole", 1.0, 5.0)
    assert model["size_bytes"] > 0


def test_a_report_is_handed_out_and_may_run_nothing(compressed: tuple[Server, str]) -> None:
    server, key = compressed
    answer = server.client.get("/admin/v1/lineage/small/1/report.html", headers=bearer(key))
    assert (answer.status_code, answer.text) == (200, PAGE)
    assert answer.headers["content-security-policy"].startswith("sandbox;")
    assert answer.headers["content-type"].startswith("text/html")


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("small/1/report.png", "model.unknown"),
        ("small/2/report.html", "model.unknown"),
        ("whole/1/report.html", "model.unknown"),
        ("small/1/manifest.json", "request.route"),
        ("..%2Fsmall/1/report.html", "request.route"),
        ("small/one/report.html", "request.route"),
    ],
)
def test_nothing_else_is_handed_out(compressed: tuple[Server, str], path: str, code: str) -> None:
    server, key = compressed
    answer = server.client.get(f"/admin/v1/lineage/{path}", headers=bearer(key))
    assert (answer.status_code, answer.json()["code"]) == (404, code)


@pytest.mark.parametrize("path", ["lineage", "lineage/small/1/report.html"])
def test_it_wants_an_admin_key(compressed: tuple[Server, str], path: str) -> None:
    server, _ = compressed
    assert server.client.get(f"/admin/v1/{path}").status_code == 401
