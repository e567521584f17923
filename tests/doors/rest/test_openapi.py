"""The OpenAPI document tells what is there: every route, and the answers of the running service hold to it."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest
from starlette.routing import Route

import needs
import small_models
from serving import Server
from tidemill.core.settings import Settings
from tidemill.doors import application
from tidemill.doors.hot import route_of
from tidemill.doors.kserve.rest import REFUSED_PATHS
from tidemill.doors.openapi.document import document
from tidemill.doors.openapi.operations import OPERATIONS
from tidemill.doors.tfserving import rest as tfserving
from tidemill.doors.tfserving.dialect import DIALECTS

HOT = {("POST", f"/v2/models/{{name}}{choice}/infer") for choice in ("", "/versions/{version}")} | {
    ("POST", f"/v1/models/{{name}}{choice}:{verb}") for choice in tfserving.CHOICES for verb in DIALECTS
}
"""Taken before the framework's routes (`doors/hot.py`)."""
UNTOLD = {
    ("GET", "/openapi.json"),
    ("GET", "/console"),
    ("GET", "/console/"),
    ("GET", "/v1/models/"),
    *(("POST", f"/v1/models/{{name}}{choice}") for choice in tfserving.CHOICES),
    *((method, path) for paths in REFUSED_PATHS.values() for path in paths for method in ("GET", "POST")),
}
"""The document itself, what leads a browser elsewhere, and what answers that there is nothing to ask."""
RUN_S_MAX = 240
# Each needs to be told more than a schema can say, or changes what the others ask; their own tests ask them.
CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance,"
    "unsupported_method,allow_header_conformance"
)


NAMES, VERSIONS = ["half", "mirror", "two", "nobody"], ["1", "7"]
"""What is asked, so that not everything ends at an unknown model."""


def told() -> set[tuple[str, str]]:
    return {(each.method, each.path) for each in OPERATIONS}


def routes() -> set[tuple[str, str]]:
    doors = application.build(None, None, bytes, list, lambda: 0, Settings())  # type: ignore[arg-type]
    found = set()
    for route in doors._others.routes:  # type: ignore[attr-defined]
        assert isinstance(route, Route)
        path = re.sub(r":int}", "}", route.path)
        found |= {(method, path) for method in route.methods or () if method != "HEAD"}
    return found


def test_every_route_is_told_and_nothing_else() -> None:
    assert told() == (routes() - UNTOLD) | HOT
    for _, path in HOT:
        assert route_of(path.replace("{name}", "half").replace("{version}", "1").replace("{label}", "stable"))


def test_every_name_in_it_leads_somewhere() -> None:
    made = document(OPERATIONS)
    names = set(re.findall(r"#/components/schemas/(\w+)", str(made)))
    assert names <= set(made["components"]["schemas"])


@pytest.mark.slow
def test_schemathesis_finds_no_answer_that_the_document_does_not_know(tmp_path: Path) -> None:
    st = needs.schemathesis()
    models = small_models.lay_out(tmp_path / "models")
    small_models.echo(models, "mirror", "FP32")
    asked = document(OPERATIONS)
    for path in asked["paths"].values():
        for parameter in (each for operation in path.values() for each in operation["parameters"]):
            parameter["schema"] = {"name": {"enum": NAMES}, "version": {"enum": VERSIONS}}.get(
                parameter["name"], parameter["schema"]
            )
    file = tmp_path / "openapi.json"
    file.write_text(json.dumps(asked))
    with Server(models, tmp_path / "data", "--no-auth", "--no-console") as server:
        done = subprocess.run(
            [
                st, "run", file, "--url", server.url, "--checks", CHECKS, "--max-examples", "25", "--seed", "1",
                "--phases", "examples,coverage,fuzzing", "--generation-database", "none", "--no-color",
                "--exclude-path-regex", "^/admin/v1/(keys|models)", "--continue-on-failure", "--request-timeout", "20",
            ],
            capture_output=True, text=True, timeout=RUN_S_MAX, check=False, cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": ""},
        )  # fmt: skip
        assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-1000:]
