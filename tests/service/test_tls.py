"""TLS on every port of the real server: stock clients, with certificates and without, and files that change."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
import psutil
import pytest
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http

from authority import Authority, Pair, ssl_config
from serving import Server, Wire, eventually, post, tidemill
from tidemill.console.api import Poller, State
from tidemill.console.asking import client
from tidemill.core.schemas import message

PREDICT = "/v1/models/half:predict"
BODY = b'{"instances":[4.0]}'
ANSWER = {"predictions": [2.0]}
PUBLIC = "0.0.0.0"  # noqa: S104 - what is refused, or served over TLS for a moment
OPEN = ("--no-auth", "--no-charge")


class Secured(Server):
    """A server whose `client` trusts `ca`, and shows `shown` where there is one."""

    def __init__(self, ca: Path, *arguments: Any, shown: Pair | None = None, **extra: str) -> None:
        _, data_dir, *_ = arguments
        super().__init__(*arguments, **{"TMPDIR": str(data_dir), **extra})  # sockets that a kill leaves behind go too
        self._ca = ca
        self._shown = shown

    def context(self, *protocols: str) -> ssl.SSLContext:
        made = ssl.create_default_context(cafile=self._ca)
        if self._shown is not None:
            made.load_cert_chain(self._shown.cert, self._shown.key)
        if protocols:
            made.set_alpn_protocols(list(protocols))
        return made

    def start(self) -> Secured:
        super().start()
        self.client.close()
        self.client = httpx.Client(base_url=self.url, timeout=30, verify=self.context())
        return self

    @property
    def address(self) -> tuple[str, int]:
        host, _, port = self.url.removeprefix("https://").rpartition(":")
        return host, int(port)

    @property
    def grpc_port(self) -> int:
        return int(self.told["grpc_address"].rpartition(":")[2])

    def credentials(self) -> grpc.ChannelCredentials:
        shown = self._shown
        if shown is None:
            return grpc.ssl_channel_credentials(self._ca.read_bytes())
        return grpc.ssl_channel_credentials(self._ca.read_bytes(), shown.key.read_bytes(), shown.cert.read_bytes())

    def served_at(self, port: int) -> str:
        """Who the certificate at `port` is of."""
        with (
            socket.create_connection(("127.0.0.1", port), 20) as plain,
            self.context().wrap_socket(plain, server_hostname="localhost") as secured,
        ):
            subject: Any = (secured.getpeercert() or {})["subject"]
            return str(subject[0][0][1])


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def pair(authority: Authority) -> Pair:
    return authority.sign("server")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


@pytest.fixture(scope="module")
def aliases() -> tuple[int, int]:
    return free_port(), free_port()


@pytest.fixture(scope="module")
def secured(
    authority: Authority, pair: Pair, repository: Path, aliases: tuple[int, int], tmp_path_factory: Any
) -> Iterator[Secured]:
    """No keys, TLS, both of TensorFlow Serving's ports, small limits."""
    flags = [*OPEN, *pair.flags, "--header-timeout-ms", "400", "--connections-max", "30"]
    ports = {"TIDEMILL_REST_API_PORT": str(aliases[0]), "TIDEMILL_PORT": str(aliases[1])}
    with Secured(authority.ca, repository, tmp_path_factory.mktemp("data"), *flags, **ports) as running:
        yield running


@pytest.fixture(scope="module")
def mutual(authority: Authority, pair: Pair, repository: Path, tmp_path_factory: Any) -> Iterator[Secured]:
    """Takes clients of the authority alone."""
    flags = [*OPEN, *pair.flags, "--tls-client-ca", str(authority.ca)]
    known = authority.sign("known")
    with Secured(authority.ca, repository, tmp_path_factory.mktemp("data"), *flags, shown=known) as running:
        yield running


def predict_over_grpc(port: int, credentials: grpc.ChannelCredentials, values: list[float]) -> list[float]:
    request = message("tensorflow.serving.PredictRequest")()
    request.model_spec.name = "half"
    tensor = request.inputs["input"]
    tensor.dtype = 1
    tensor.tensor_shape.dim.add(size=len(values))
    tensor.tensor_content = np.array(values, np.float32).tobytes()
    with grpc.secure_channel(f"localhost:{port}", credentials, [("grpc.max_receive_message_length", -1)]) as channel:
        call = channel.unary_unary("/tensorflow.serving.PredictionService/Predict")
        answer = message("tensorflow.serving.PredictResponse").FromString(call(request.SerializeToString(), timeout=20))
    output = answer.outputs["output"]
    return list(output.float_val) or np.frombuffer(output.tensor_content, np.float32).tolist()


# -- stock clients -----------------------------------------------------------------------------------------------------


def test_it_says_https(secured: Secured) -> None:
    assert secured.url.startswith("https://127.0.0.1:")
    assert secured.client.get("/readyz").json() == {"status": "ready", "reasons": []}


def test_rest_is_answered_on_every_port(secured: Secured, aliases: tuple[int, int]) -> None:
    for port in (secured.address[1], *aliases):
        for _ in range(5):
            url = f"https://localhost:{port}{PREDICT}"
            assert httpx.post(url, content=BODY, verify=secured.context()).json() == ANSWER


def test_grpc_is_answered_on_every_port(secured: Secured, aliases: tuple[int, int]) -> None:
    for port in (secured.grpc_port, secured.address[1], *aliases):
        for value in range(3):
            assert predict_over_grpc(port, secured.credentials(), [value]) == [value / 2]


def test_large_messages_go_through_both_ways(secured: Secured) -> None:
    values = np.arange(2**20, dtype=np.float32)
    for port in (secured.grpc_port, secured.address[1]):
        assert predict_over_grpc(port, secured.credentials(), values.tolist()) == (values / 2).tolist()
    body = b'{"instances":' + json.dumps(values[:500_000].tolist()).encode() + b"}"
    assert secured.client.post(PREDICT, content=body).json()["predictions"][-1] == values[499_999] / 2


def test_curl_which_offers_http2_first_is_answered_rest(secured: Secured, authority: Authority) -> None:
    url = f"https://localhost:{secured.address[1]}{PREDICT}"
    said = subprocess.check_output(["curl", "-s", "--cacert", authority.ca, "-d", BODY, url], timeout=30)
    assert json.loads(said) == ANSWER


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [(["h2", "http/1.1"], "http/1.1"), (["h2"], "h2"), (["http/1.1"], "http/1.1"), ([], None)],
    ids=str,
)
def test_the_protocol_is_agreed_on_in_the_handshake(secured: Secured, offered: list[str], chosen: str | None) -> None:
    context = secured.context(*offered)
    with (
        socket.create_connection(secured.address, 20) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as wrapped,
    ):
        assert wrapped.selected_alpn_protocol() == chosen


def test_tritons_clients_are_served(secured: Secured, authority: Authority) -> None:
    host, port = secured.address
    given = triton_http.InferInput("input", [2], "FP32")
    given.set_data_from_numpy(np.array([1, 2], np.float32))
    with triton_http.InferenceServerClient(
        f"{host}:{port}", ssl=True, ssl_context_factory=lambda: secured.context()
    ) as client:
        assert client.infer("half", [given]).as_numpy("output").tolist() == [0.5, 1]
    asked = triton_grpc.InferInput("input", [2], "FP32")
    asked.set_data_from_numpy(np.array([1, 2], np.float32))
    with triton_grpc.InferenceServerClient(
        f"localhost:{secured.grpc_port}", ssl=True, root_certificates=str(authority.ca)
    ) as other:
        assert other.infer("half", [asked]).as_numpy("output").tolist() == [0.5, 1]


def test_a_client_that_does_not_know_the_authority_refuses_it(secured: Secured) -> None:
    with pytest.raises(httpx.ConnectError, match="certificate verify failed"):
        httpx.get(f"{secured.url}/healthz")


# -- what is no TLS ----------------------------------------------------------------------------------------------------


def test_a_request_in_the_clear_is_told_to_come_by_https(secured: Secured) -> None:
    with secured.connect() as wire:
        answer = wire.ask(post(PREDICT, BODY))
        assert (answer.status, answer.code) == (400, "request.malformed")
        assert b"https://" in answer.body
        assert wire.closed


@pytest.mark.parametrize("begun", [b"", b"\x16", b"\x16\x03\x01\x02\x00\x01"], ids=["silence", "a byte", "a beginning"])
def test_a_slow_handshake_is_hung_up_on_and_counted(secured: Secured, begun: bytes) -> None:
    name = 'tidemill_failures_total{code="connection.tls",model=""}'
    before = secured.metrics().get(name, 0)
    with secured.connect() as wire:
        wire.send(begun)
        assert wire.closed
    eventually(lambda: secured.metrics()[name] == before + 1, "it is counted")


@pytest.mark.parametrize("garbage", [b"\x16" + b"\0" * 50, b"\x16\x03\x01" + b"\xff" * 300, b"\x16" * 5000], ids=len)
def test_garbage_that_begins_as_tls_does_is_hung_up_on(secured: Secured, garbage: bytes) -> None:
    with secured.connect() as wire:
        wire.send(garbage)
        wire.socket.settimeout(5)
        while wire.socket.recv(1000):
            pass
    assert secured.predict("half", BODY).json() == ANSWER


def test_a_handshake_in_single_bytes_with_the_request_behind_it(secured: Secured) -> None:
    """The client's side in memory, so that the test decides what goes over the wire in which pieces."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = secured.context().wrap_bio(incoming, outgoing, server_hostname="localhost")
    with secured.connect() as wire:
        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                for byte in outgoing.read():
                    wire.send(bytes([byte]))
                incoming.write(wire.socket.recv(65536))
        tls.write(post(PREDICT, BODY))
        wire.send(outgoing.read())  # the end of the handshake and the request in one piece
        said = b""
        while b"2.0" not in said:
            try:
                said += tls.read()
            except ssl.SSLWantReadError:
                incoming.write(wire.socket.recv(65536))
    assert said.startswith(b"HTTP/1.1 200 OK")


def test_old_versions_of_tls_are_not_spoken(secured: Secured) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("ALL:@SECLEVEL=0")
    with socket.create_connection(secured.address, 20) as plain, context.wrap_socket(plain) as wrapped:
        assert wrapped.version() == "TLSv1.2"
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    with socket.create_connection(secured.address, 20) as plain, pytest.raises(ssl.SSLError):
        context.wrap_socket(plain)


def test_connections_on_their_way_to_tls_count_among_the_most_allowed(secured: Secured) -> None:
    eventually(lambda: secured.metrics()["tidemill_connections"] == 1, "only our own is open")
    silent = [secured.connect() for _ in range(29)]
    with secured.connect() as one_more:
        one_more.socket.settimeout(0.2)
        assert one_more.closed
    for wire in silent:
        wire.socket.close()
    eventually(lambda: secured.metrics()["tidemill_connections"] == 1, "all are gone")
    assert httpx.post(secured.url + PREDICT, content=BODY, verify=secured.context()).json() == ANSWER


def test_clients_that_vanish_leave_nothing_behind(secured: Secured) -> None:
    for sent in (b"", b"\x16\x03\x01", b"GET"):
        for _ in range(5):
            wire = secured.connect()
            wire.send(sent)
            wire.reset()
    eventually(lambda: secured.metrics()["tidemill_connections"] == 1, "none is open")
    assert secured.predict("half", BODY).json() == ANSWER


def test_nothing_was_unforeseen(secured: Secured, mutual: Secured) -> None:
    for each in (secured, mutual):
        strange = [line for line in each.stderr().splitlines() if "Traceback" in line or '"error"' in line]
        assert strange == []


# -- certificates of clients -------------------------------------------------------------------------------------------


def test_a_client_with_a_certificate_is_served_by_rest_and_grpc(mutual: Secured) -> None:
    assert mutual.predict("half", BODY).json() == ANSWER
    for port in (mutual.grpc_port, mutual.address[1]):
        assert predict_over_grpc(port, mutual.credentials(), [4]) == [2]


def test_curl_with_a_certificate_is_served(mutual: Secured, authority: Authority) -> None:
    known = authority.sign("curl")
    command = ["curl", "-s", "--cacert", authority.ca, "--cert", known.cert, "--key", known.key, "-d", BODY]
    said = subprocess.check_output([*command, f"https://localhost:{mutual.address[1]}{PREDICT}"], timeout=30)
    assert json.loads(said) == ANSWER


@pytest.mark.parametrize("shown", ["nothing", "a stranger's", "an expired one"])
def test_a_client_without_a_good_certificate_reaches_nothing(
    mutual: Secured, authority: Authority, shown: str, tmp_path: Path
) -> None:
    stranger = Secured(authority.ca, tmp_path, tmp_path)
    if shown == "a stranger's":
        stranger._shown = Authority(tmp_path, "strange").sign("stranger")
    elif shown == "an expired one":
        stranger._shown = authority.sign("expired", days=-1)
    with pytest.raises((httpx.ReadError, httpx.ConnectError, httpx.WriteError, httpx.RemoteProtocolError)):
        httpx.get(f"{mutual.url}/healthz", verify=stranger.context())
    for port in (mutual.grpc_port, mutual.address[1]):
        with pytest.raises(grpc.RpcError) as refused:
            predict_over_grpc(port, stranger.credentials(), [4])
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE


# -- renewal -----------------------------------------------------------------------------------------------------------


def put(source: Path, target: Path) -> None:
    fresh = target.with_suffix(".new")
    shutil.copy(source, fresh)
    os.replace(fresh, target)


def test_a_renewed_certificate_serves_new_connections_and_the_old_ones_go_on(
    authority: Authority, repository: Path, tmp_path: Path
) -> None:
    old, new = authority.sign("old"), authority.sign("new")
    placed = Pair(tmp_path / "cert.pem", tmp_path / "key.pem")
    put(old.cert, placed.cert)
    put(old.key, placed.key)
    with Secured(authority.ca, repository, tmp_path / "data", "half", *OPEN, *placed.flags) as server:
        ports = (server.address[1], server.grpc_port)
        assert [server.served_at(port) for port in ports] == ["old", "old"]
        with grpc.secure_channel(f"localhost:{ports[1]}", server.credentials()) as channel:
            live = channel.unary_unary("/inference.GRPCInferenceService/ServerLive")
            live(b"", timeout=20)
            placed.cert.write_text("garbage")
            eventually(lambda: "serve on" in server.stderr(), "the garbage is told of")
            assert [server.served_at(port) for port in ports] == ["old", "old"]
            assert server.metrics()["tidemill_tls_renewal_failed"] == 1
            put(new.key, placed.key)
            put(new.cert, placed.cert)
            eventually(lambda: server.served_at(ports[0]) == "new", "the new one is shown by REST")
            assert server.served_at(ports[1]) == "new"
            live(b"", timeout=20)
        assert server.predict("half", BODY).json() == ANSWER  # on the connection of the beginning
        counted = server.metrics()
        assert counted["tidemill_tls_renewal_failed"] == 0
        assert counted["tidemill_tls_expiry_timestamp_seconds"] > 1.7e9


def test_clients_of_a_renewed_authority_are_taken_and_those_of_the_old_are_not(
    authority: Authority, pair: Pair, repository: Path, tmp_path: Path
) -> None:
    later = Authority(tmp_path, "later")
    clients = tmp_path / "clients.pem"
    put(authority.ca, clients)
    known, coming = authority.sign("known"), later.sign("coming")
    flags = ["half", *OPEN, *pair.flags, "--tls-client-ca", str(clients)]
    with Secured(authority.ca, repository, tmp_path / "data", *flags, shown=known) as server:
        assert predict_over_grpc(server.grpc_port, server.credentials(), [4]) == [2]
        put(later.ca, clients)
        server._shown = coming

        def taken() -> bool:
            try:
                answer = httpx.post(server.url + PREDICT, content=BODY, verify=server.context())
            except httpx.TransportError:
                return False
            return bool(answer.json() == ANSWER)

        eventually(taken, "the new authority's client is served")
        assert predict_over_grpc(server.grpc_port, server.credentials(), [4]) == [2]
        server._shown = known
        assert not taken()
        with pytest.raises(grpc.RpcError):
            predict_over_grpc(server.grpc_port, server.credentials(), [4])


# -- the start ---------------------------------------------------------------------------------------------------------


def refused(*flags: str | Path) -> str:
    ran = tidemill("serve", "--http-port", "0", "--grpc-port", "0", "--no-console", *flags)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert "Traceback" not in ran.stderr
    return ran.stderr


def test_a_start_with_wrong_certificates_is_refused_with_the_reason(
    authority: Authority, pair: Pair, repository: Path, tmp_path: Path
) -> None:
    where = ("--models", repository, "--data-dir", tmp_path, *OPEN)
    other = authority.sign("other")
    assert "does not belong" in refused(*where, "--tls-cert", pair.cert, "--tls-key", other.key)
    assert "expired on" in refused(*where, *authority.sign("past", days=-1).flags)
    assert "cannot be read" in refused(*where, "--tls-cert", tmp_path / "none", "--tls-key", pair.key)
    assert "--tls-key is missing" in refused(*where, "--tls-cert", pair.cert)


@pytest.mark.parametrize(
    ("flags", "lacks"),
    [
        ([], ["no TLS"]),
        (["--no-auth"], ["no keys", "no TLS"]),
        (["tls", "--no-auth"], ["no keys"]),
    ],
    ids=str,
)
def test_a_public_address_wants_keys_and_tls(
    pair: Pair, repository: Path, tmp_path: Path, flags: list[str], lacks: list[str]
) -> None:
    where = ["--models", repository, "--data-dir", tmp_path, "--host", PUBLIC]
    said = refused(*where, *[flag for flag in flags if flag != "tls"], *(pair.flags if "tls" in flags else []))
    assert all(word in said for word in lacks)
    assert ("no TLS" in said) == ("no TLS" in lacks)
    assert "--insecure" in said


def test_a_public_address_with_keys_and_tls_serves_those_with_a_key(
    authority: Authority, pair: Pair, repository: Path, tmp_path: Path
) -> None:
    made = json.loads(tidemill("keys", "create", "--tenant", "t", "--admin", "--data-dir", tmp_path, "--json").stdout)
    with Secured(authority.ca, repository, tmp_path, "half", "--host", PUBLIC, *pair.flags) as server:
        server.client.base_url = url = f"https://localhost:{server.address[1]}"
        bearer = {"authorization": f"Bearer {made['key']}"}
        assert server.predict("half", BODY).status_code == 401
        assert server.predict("half", BODY, **bearer).json() == ANSWER
        ask = ("keys", "ls", "--url", url, "--key", made["key"], "--json")
        trusted = tidemill(*ask, "--ca", authority.ca)
        assert [each["id"] for each in json.loads(trusted.stdout)] == [made["id"]]
        assert tidemill(*ask, SSL_CERT_FILE=str(authority.ca)).stdout == trusted.stdout
        distrusted = tidemill(*ask)
        assert (distrusted.returncode, distrusted.stdout) == (1, "")
        assert "certificate verify failed" in distrusted.stderr
        odd = tidemill(*ask, "--ca", tmp_path / "none")
        assert (odd.returncode, odd.stdout) == (2, "")


def test_a_folder_too_deep_for_sockets_is_told(pair: Pair, repository: Path, tmp_path: Path) -> None:
    deep = tmp_path / ("x" * 100)
    deep.mkdir()
    where = ("--models", repository, "--data-dir", tmp_path, *OPEN, *pair.flags)
    ran = tidemill("serve", "--http-port", "0", "--grpc-port", "0", "--no-console", *where, TMPDIR=str(deep))
    assert (ran.returncode, ran.stdout) == (2, "")
    assert "TMPDIR names another folder" in ran.stderr
    assert "Traceback" not in ran.stderr
    assert list(deep.glob("tidemill-*")) == []


def test_the_command_line_shows_its_certificate(mutual: Secured, authority: Authority) -> None:
    mine = authority.sign("operator")
    flags = ["--url", mutual.url, "--ca", authority.ca]
    shown = tidemill("usage", *flags, "--client-cert", mine.cert, "--client-key", mine.key, "--json")
    assert (shown.returncode, shown.stdout) == (0, "[]\n")
    assert tidemill("usage", *flags, "--json").returncode == 1


def test_tensorflow_servings_start_line_with_its_ssl_config_file(
    authority: Authority, pair: Pair, repository: Path, tmp_path: Path
) -> None:
    """The printed words, and its gRPC client with and without a certificate."""
    config, rest, port = tmp_path / "ssl.txt", free_port(), free_port()
    config.write_text(ssl_config(pair, authority.ca))
    line = ["--model_name=half", f"--model_base_path={repository / 'half'}", f"--ssl_config_file={config}"]
    line += [f"--rest_api_port={rest}", f"--port={port}", f"--data_dir={tmp_path / 'data'}"]
    server = Secured(authority.ca, repository, tmp_path / "data", shown=authority.sign("caller"))
    server.command = [*server.command[:3], "serve", *line]
    server.spawn()
    try:
        assert server.process.stdout is not None
        assert any(said.startswith(b"model ") for said in iter(server.process.stdout.readline, b""))
        assert predict_over_grpc(port, server.credentials(), [4]) == [2]
        assert predict_over_grpc(rest, server.credentials(), [4]) == [2]
        url = f"https://localhost:{rest}{PREDICT}"
        assert httpx.post(url, content=BODY, verify=server.context()).json() == ANSWER
        server._shown = None
        with pytest.raises(grpc.RpcError):
            predict_over_grpc(port, server.credentials(), [4])
        assert "secures REST too" in server.stderr()
    finally:
        server.process.terminate()
        assert server.ended() == 0


def test_draining_over_tls_answers_what_runs(
    authority: Authority, pair: Pair, repository: Path, tmp_path: Path
) -> None:
    """And nothing of the sockets inside is left."""
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    flags = ("slow", *OPEN, *pair.flags)
    with Secured(authority.ca, repository, tmp_path / "data", *flags, TMPDIR=str(temporary)) as server:
        (inside,) = temporary.glob("tidemill-*")
        assert inside.stat().st_mode & 0o077 == 0
        plain = Wire(server.address)
        with server.context().wrap_socket(plain.socket, server_hostname="localhost") as wire:
            wire.sendall(post("/v1/models/slow:predict", b'{"inputs": 3000}'))
            eventually(lambda: server.in_flight == 1, "it runs")
            silent = server.connect()
            server.process.terminate()
            assert wire.recv(100).startswith(b"HTTP/1.1 200 OK")
        assert server.ended() == 0
        silent.socket.close()
    assert list(temporary.glob("tidemill-*")) == []


@pytest.mark.slow
def test_the_console_speaks_tls_and_reaches_a_service_that_asks_for_certificates(
    authority: Authority, pair: Pair, repository: Path, tmp_path: Path
) -> None:
    """Its own port with a client's certificate and without; the admin API where its process is told to ask."""
    known = authority.sign("known")
    flags = ["half", *OPEN, *pair.flags, "--tls-client-ca", str(authority.ca), "--console-port", str(free_port())]
    server = Secured(authority.ca, repository, tmp_path / "data", *flags, shown=known, TMPDIR=str(tmp_path))
    server.command.remove("--no-console")
    server._environment.pop("PYTEST_CURRENT_TEST", None)  # by which NiceGUI thinks itself under test
    with server:
        leads = server.client.get("/console")
        assert leads.status_code == 307
        url = leads.headers["location"]
        assert url.startswith(f"https://127.0.0.1:{server.told['console_port']}")

        def shown() -> bool:
            try:
                return "Tidemill" in httpx.get(url, verify=server.context()).text
            except httpx.ConnectError:
                return False

        eventually(shown, "the console's page", 30)
        with pytest.raises(httpx.TransportError):
            httpx.get(url, verify=Secured(authority.ca, tmp_path, tmp_path).context())
        (inside,) = tmp_path.glob("tidemill-*/http")
        (console,) = psutil.Process(server.process.pid).children()
        assert console.cmdline()[console.cmdline().index("--inside") + 1] == str(inside)
        assert asyncio.run(asked_by_the_console(server.url, inside)) is State.LIVE


async def asked_by_the_console(url: str, inside: Path) -> State:
    async with client(url, inside) as http:
        poller = Poller(http)
        await poller.ask()
        return poller.view.state
