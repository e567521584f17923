"""The Dockerfile and compose.yaml do what they say, without an engine to run them: their steps are read and carried out
in a folder, where the environment of the tests stands in for what pip would install; once, slowly, pip does."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import httpx
import pytest
import yaml

from needs import ROOT
from serving import START_S_MAX, eventually
from tidemill.core.schemas import message
from tidemill.core.settings import Settings

from .dockerfile import OURS, Image, Stage, Step, read

PORTS = ("8500", "8501")


@pytest.fixture(scope="module")
def stages() -> list[Stage]:
    return read(ROOT / "Dockerfile")


def test_it_is_built_in_stages_on_a_slim_base_and_ends_as_nobody(stages: list[Stage]) -> None:
    names = [stage.name for stage in stages]
    for stage in stages:
        assert stage.base in names or re.fullmatch(r"python:3\.\d+-slim", stage.base)
    last = stages[-1]
    (user,) = last.of("USER")
    (added,) = [step for step in last.of("RUN") if "useradd" in step.rest]
    assert added.rest.endswith(f" {user.rest}")
    assert user.rest != "root"
    assert int(re.findall(r"--uid (\d+)", added.rest)[0]) >= 1000
    assert [step.word for step in last.steps].index("USER") > [step.word for step in last.steps].index("RUN")


def test_the_final_stage_takes_only_what_others_made_and_installs_nothing(stages: list[Stage]) -> None:
    last = stages[-1]
    for step in last.of("COPY"):
        assert step.flags["from"] in {stage.name for stage in stages}
        assert step.rest.split()[-2:] == [step.rest.split()[-1]] * 2
    words = " ".join(step.rest for stage in stages for step in stage.steps)
    assert not re.search(r"\b(apt|apt-get|curl|wget|index-url)\b|https://", words)


def test_what_is_copied_is_there_and_is_let_into_the_build(stages: list[Stage]) -> None:
    let_in = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = {
        source
        for stage in stages
        for step in stage.of("COPY")
        if "from" not in step.flags
        for source in step.rest.split()[:-1]
    }
    assert copied == let_in
    assert all((ROOT / source).exists() for source in copied)


def test_what_pip_is_asked_for_is_declared(stages: list[Stage]) -> None:
    (asked,) = [step.rest for stage in stages for step in stage.of("RUN") if " pip install " in step.rest]
    extras = set(re.findall(r'"\.\[([a-z,]+)\]"', asked)[0].split(","))
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert extras <= set(declared["optional-dependencies"])
    assert "-c constraints.txt" in asked
    assert declared["readme"] in " ".join(step.rest for step in stages[0].of("COPY"))


def test_every_path_of_the_image_is_one_that_these_tests_move(stages: list[Stage]) -> None:
    words = " ".join(step.rest for stage in stages for step in stage.steps)
    paths = set(re.findall(r"(?<![\w/.:$])/[a-z]\w*(?:/[\w.]+)*", words))
    assert {path for path in paths if not path.startswith(OURS)} == set()


def test_what_is_exposed_is_what_is_listened_on(stages: list[Stage]) -> None:
    last = stages[-1]
    (command,), (exposed,) = last.of("CMD"), last.of("EXPOSE")
    flags = dict(each.lstrip("-").split("=") for each in command.argv[1:] if "=" in each)
    assert (flags["port"], flags["rest_api_port"]) == PORTS == tuple(exposed.rest.split())
    assert "--insecure" in command.argv


def argv(image: Image, step: Step, ports: dict[str, int]) -> list[str]:
    moved = [image.inside(word) for word in step.argv]
    for port, free in ports.items():
        moved = [word.replace(port, str(free)) for word in moved]
    return moved


@contextmanager
def running(image: Image, last: Stage) -> Iterator[tuple[dict[str, int], list[str]]]:
    """The container's command, on free ports; and its health check."""
    image.run(last, pip=True)
    ports = {}
    for port in PORTS:
        with socket.create_server(("127.0.0.1", 0)) as free:
            ports[port] = free.getsockname()[1]
    Path(image.env["TIDEMILL_DATA_DIR"]).mkdir(parents=True, exist_ok=True)
    (command,), (check,) = last.of("CMD"), last.of("HEALTHCHECK")
    log = image.root / "log"
    with (
        log.open("wb") as errors,
        subprocess.Popen(
            argv(image, command, ports), cwd=image.root, env=image.environment(), stdout=errors, stderr=errors
        ) as process,
    ):
        try:
            yield ports, argv(image, check, ports)
            assert process.poll() is None, log.read_text()
        finally:
            process.terminate()
            assert process.wait(START_S_MAX) == 0, log.read_text()


def answers(ports: dict[str, int]) -> None:
    rest = httpx.post(f"http://127.0.0.1:{ports['8501']}/v1/models/my_model:predict", json={"instances": [4.0]})
    assert rest.json() == {"predictions": [2.0]}
    request = message("tensorflow.serving.PredictRequest")(model_spec={"name": "my_model"})
    request.inputs["input"].dtype = 1
    request.inputs["input"].tensor_shape.dim.add(size=1)
    request.inputs["input"].float_val.append(4.0)
    with grpc.insecure_channel(f"127.0.0.1:{ports['8500']}") as channel:
        call = channel.unary_unary("/tensorflow.serving.PredictionService/Predict")
        answer = message("tensorflow.serving.PredictResponse").FromString(call(request.SerializeToString(), timeout=20))
    assert list(answer.outputs["output"].float_val) == [2.0]


def serves(stages: list[Stage], root: Path, pip: bool) -> None:
    image = Image(root, ROOT)
    *before, last = stages
    for stage in before:
        image.run(stage, pip)

    def health(check: list[str]) -> int:
        return subprocess.run(
            check, env=image.environment(), cwd=root, check=False, stderr=subprocess.DEVNULL, timeout=60
        ).returncode

    with running(image, last) as (ports, check):
        eventually(lambda: health(check) == 0, "healthy", START_S_MAX)
        answers(ports)
    assert health(check) != 0


@pytest.mark.slow
def test_the_steps_make_what_the_command_serves(stages: list[Stage], tmp_path: Path) -> None:
    serves(stages, tmp_path, pip=False)


@pytest.mark.soak
def test_the_steps_with_what_pip_installs(stages: list[Stage], tmp_path: Path) -> None:
    """A new environment from the package index, as the image has it: minutes."""
    serves(stages, tmp_path, pip=True)


# -- compose -----------------------------------------------------------------------------------------------------------


def test_compose_publishes_to_this_machine_alone_and_keeps_the_data(stages: list[Stage]) -> None:
    told = yaml.safe_load((ROOT / "compose.yaml").read_text())
    service = told["services"]["tidemill"]
    assert service["build"] == "."
    assert [port.split(":") for port in service["ports"]] == [["127.0.0.1", port, port] for port in PORTS]
    (volume,) = stages[-1].of("VOLUME")
    assert service["volumes"] == [f"data:{volume.rest}"]
    assert "data" in told["volumes"]
    (env,) = stages[-1].of("ENV")
    assert f"TIDEMILL_DATA_DIR={volume.rest}" in env.rest
    assert int(service["stop_grace_period"].removesuffix("s")) * 1000 > Settings().drain_ms
    assert service["ulimits"]["nofile"] > Settings().connections_max


def test_prometheus_scrapes_a_port_that_is_exposed() -> None:
    told = yaml.safe_load((ROOT / "compose.yaml").read_text())
    prometheus = told["services"]["prometheus"]
    assert prometheus["profiles"]
    (config,) = prometheus["configs"]
    (job,) = yaml.safe_load(told["configs"][config["source"]]["content"])["scrape_configs"]
    assert job["static_configs"] == [{"targets": [f"tidemill:{PORTS[1]}"]}]
    assert os.path.basename(config["target"]) == "prometheus.yml"
