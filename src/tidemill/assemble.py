"""Settings to objects: the one composition root. `Owner` is the process that holds the engines and decides."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import ipaddress
import logging
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from importlib.util import find_spec
from typing import Any

import msgspec
import psutil
import uvloop
from starlette.applications import Starlette
from starlette.exceptions import HTTPException

from tidemill import __version__
from tidemill.account.group_commit import GroupCommit
from tidemill.account.keys import Keys, Open, checked_name, make
from tidemill.account.ledger import DurableLedger, FreeLedger
from tidemill.core.errors import InvalidSetting, RefusedModel, TidemillError
from tidemill.core.package import ModelPackage
from tidemill.core.settings import Settings
from tidemill.deploy.local import FleetPolicy, LocalFleet, Replica, State
from tidemill.doors import admin, framework, grpc_server, operations
from tidemill.doors.hot import Doors
from tidemill.doors.kserve import rest as kserve_rest
from tidemill.doors.listen import HttpServer, bind
from tidemill.doors.tfserving import rest as tfserving_rest
from tidemill.observe.metrics import Exposition, ModelSample, ServiceSample
from tidemill.repository import layout
from tidemill.serve.answer import Service
from tidemill.serve.queue import BoundedQueue
from tidemill.store import accounts, database
from tidemill.store import ledger as charges

log = logging.getLogger(__name__)

KEYS_REFRESH_S = 0.5
"""A key revoked by another process is refused after this at the latest."""
CONSOLE_STOP_S = 3.0
GC_ALLOCATIONS = 20_000


class Choice(msgspec.Struct, frozen=True):
    """A version to serve: checked, or refused with the reason."""

    name: str
    version: int
    package: ModelPackage | None
    reason: str = ""


def choose(settings: Settings, models: Sequence[str]) -> list[Choice]:
    """What `serve MODEL ...` serves; all of the repository when none is named. Raises `UnknownModel`."""
    wanted = models or layout.names(settings.models)
    chosen = []
    for model in wanted:
        name, versions = layout.locate(settings.models, model)
        numbers = list(versions)[-1:] if settings.version_policy == "latest" else list(versions)
        for number in numbers:
            try:
                chosen.append(Choice(name, number, layout.package(name, number, versions[number])))
            except RefusedModel as error:
                chosen.append(Choice(name, number, None, error.message))
    return chosen


def check_exposure(settings: Settings) -> None:
    """A public address without keys and TLS is refused. Raises `InvalidSetting`."""
    if is_loopback(settings.host) or settings.insecure:
        return
    lack = "without keys (--no-auth) and " if settings.no_auth else ""
    raise InvalidSetting(
        f"--host {settings.host} is reachable by others, {lack}without TLS; put a TLS proxy before --host 127.0.0.1,"
        " or say --insecure"
    )


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def quieten_collector() -> None:
    """What is loaded by now stays, and requests leave few cycles behind: look for them less often, among less."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_ALLOCATIONS, 50, 50)


def fleet_policy(settings: Settings) -> FleetPolicy:
    return FleetPolicy(
        engine=settings.engine,
        threads=settings.threads,
        rows_max=settings.max_batch,
        waiting_max=settings.queue_max,
        inline_s_max=settings.inline_us_max / 1e6,
        call_nanos=settings.call_nanos,
    )


class Owner:
    """Holds everything of one running service. `run` returns when it has drained."""

    def __init__(self, settings: Settings, choices: Sequence[Choice]) -> None:
        self.settings = settings
        self._choices = choices
        self.started_at = time.time()
        self.draining = False
        self.loading = True
        self._stop = asyncio.Event()
        self._sockets = {
            "http": bind(settings.host, settings.http_port, "--http-port"),
        }
        self.http_port: int = self._sockets["http"].getsockname()[1]
        self.grpc_port = 0
        self.console_port = 0
        self._console: subprocess.Popen[bytes] | None = None
        self._reader = database.connect(settings.data_dir)
        self._writer = database.connect(settings.data_dir)
        self.keys = (
            Open()
            if settings.no_auth
            else Keys(lambda: accounts.epoch(self._reader), lambda: accounts.all_keys(self._reader))
        )
        self.gate = BoundedQueue(settings.queue_max, lambda: self.draining)
        self.commits = GroupCommit(
            lambda rows: charges.book(self._writer, rows),
            settings.commit_queue_max,
            settings.commit_delay_ms / 1000,
        )
        self.fleet = LocalFleet(fleet_policy(settings))
        ledger = FreeLedger() if settings.no_charge else DurableLedger(self.commits, self.fleet.price_nanos)
        self.service = Service(self.keys, self.gate, ledger, self.fleet)
        self.metrics = Exposition(self._sample)
        self.http = HttpServer(self._doors(), settings, self.service.failures)

    async def run(self, on_ready: Callable[[Owner], None]) -> None:
        """Serve until `stop`. `on_ready` is called once, when every model is loaded or refused."""
        settings = self.settings
        self._spawn_console()
        background = [
            asyncio.create_task(self.http.serve(sockets=[self._sockets["http"]])),
            asyncio.create_task(self.http.sweep()),
            asyncio.create_task(self._refresh_keys()),
        ]
        grpc, self.grpc_port = await grpc_server.start(self.service, settings.host, settings.grpc_port, settings, lambda: not self.not_ready())
        try:
            await self._load()
            self.loading = False
            on_ready(self)
            await self._wait_for_stop(background[0])
        finally:
            self.draining = True
            log.info("draining", extra={"in_flight": self.gate.in_flight})
            await asyncio.gather(grpc.stop(settings.drain_ms / 1000), self._drain_http(background[0]))
            for task in background[1:]:
                task.cancel()
            await asyncio.gather(*background, return_exceptions=True)
            await self.fleet.close()
            await self.commits.close()
            self._stop_console()
            self._reader.close()
            self._writer.close()
            log.info("stopped")

    def stop(self) -> None:
        """Drain and end; safe to call from a signal handler of the loop, and again."""
        self.draining = True
        self._stop.set()

    def not_ready(self) -> list[str]:
        """Why this service does not take traffic; empty when it does."""
        if self.draining:
            return ["draining"]
        reasons = [f"model {each.name} version {each.version} is {each.state}" for each in self.fleet.replicas()
                   if each.state is not State.AVAILABLE]
        if self.loading and not reasons:
            reasons = ["models are being loaded"]
        return reasons

    # -- the admin API's view ------------------------------------------------------------------------------------------

    def overview(self) -> dict[str, Any]:
        reasons = self.not_ready()
        process = psutil.Process()
        times = process.cpu_times()
        calls, nanos = charges.total(self._reader)
        return {
            "service": {
                "version": __version__,
                "started_at": self.started_at,
                "uptime_s": time.time() - self.started_at,
                "ready": not reasons,
                "draining": self.draining,
                "reasons": reasons,
                "http_url": self.http_url,
                "grpc_address": f"{self.settings.host}:{self.grpc_port}",
                "auth": not self.settings.no_auth,
                "charging": not self.settings.no_charge,
                "in_flight": self.gate.in_flight,
                "connections": self.http.connection_count,
                "cpu_s": times.user + times.system,
                "rss_bytes": process.memory_info().rss,
            },
            "models": [_told(replica) for replica in self.fleet.replicas()],
            "usage": {"calls": calls, "nanos": nanos},
        }

    def usage(self, tenant: str | None, since_ms: int) -> Sequence[msgspec.Struct]:
        return charges.usage(self._reader, tenant, since_ms)

    def keys_listed(self) -> Sequence[dict[str, Any]]:
        return [told_key(each) for each in accounts.all_keys(self._reader)]

    @property
    def http_url(self) -> str:
        host = self.settings.host
        return f"http://{f'[{host}]' if ':' in host else host}:{self.http_port}"

    # -- inside --------------------------------------------------------------------------------------------------------

    def _doors(self) -> Doors:
        routes = [
            *kserve_rest.routes(self.service, self.not_ready),
            *tfserving_rest.routes(self.service),
            *operations.routes(self.metrics.render, self.not_ready, lambda: self.console_port),
            *admin.routes(self.service, Administration(self)),
        ]
        others = Starlette(
            routes=routes,
            exception_handlers={
                TidemillError: framework.on_tidemill_error,
                HTTPException: framework.on_http_exception,
                Exception: framework.on_any_error,
            },
        )
        settings = self.settings
        return Doors(
            self.service, others, settings.body_bytes_max, settings.request_timeout_ms / 1000, settings.access_log
        )

    async def _load(self) -> None:
        for choice in self._choices:
            if self._stop.is_set():
                return
            if choice.package is None:
                self.fleet.refuse(choice.name, choice.version, choice.reason)
            else:
                await self.fleet.load(choice.package)

    async def _wait_for_stop(self, serving: asyncio.Task[None]) -> None:
        stopping = asyncio.create_task(self._stop.wait())
        await asyncio.wait([stopping, serving], return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()

    async def _drain_http(self, serving: asyncio.Task[None]) -> None:
        self.http.should_exit = True
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(serving, self.settings.drain_ms / 1000 + 5)

    async def _refresh_keys(self) -> None:
        while True:
            await asyncio.sleep(KEYS_REFRESH_S)
            try:
                self.keys.refresh()
            except sqlite3.Error as error:
                log.warning("keys could not be read again: %s", error)

    def _sample(self) -> ServiceSample:
        models = [
            ModelSample(each.name, each.version, each.state is State.AVAILABLE, each.waiting, each.stats)
            for each in self.fleet.replicas()
        ]
        return ServiceSample(
            models,
            self.service.failures,
            self.gate.in_flight,
            self.http.connection_count,
            self.commits.row_count,
            self.commits.group_count,
        )

    def _spawn_console(self) -> None:
        settings = self.settings
        if settings.no_console:
            return
        if find_spec("nicegui") is None:
            log.info("no console: pip install 'tidemill[console]' brings it")
            return
        probe = bind(settings.host, settings.console_port, "--console-port")
        self.console_port = probe.getsockname()[1]
        probe.close()
        self._console = subprocess.Popen(
            [sys.executable, "-m", "tidemill.console", "--api", self.http_url, "--host", settings.host,
             "--port", str(self.console_port), "--parent", str(os.getpid())],
            stdin=subprocess.DEVNULL,
        )

    def _stop_console(self) -> None:
        if self._console is None:
            return
        self._console.terminate()
        try:
            self._console.wait(CONSOLE_STOP_S)
        except subprocess.TimeoutExpired:
            self._console.kill()
            self._console.wait()


class Administration:
    """`doors.admin.Administration` over the owner."""

    def __init__(self, owner: Owner) -> None:
        self._owner = owner
        self.overview = owner.overview
        self.usage = owner.usage
        self.keys = owner.keys_listed

    def create_key(self, tenant: str, label: str, admin: bool) -> dict[str, Any]:
        with contextlib.closing(database.connect(self._owner.settings.data_dir)) as connection:
            made = create_key(connection, tenant, label, admin)
        self._owner.keys.refresh()
        return made

    def revoke_key(self, key_id: str) -> bool:
        with contextlib.closing(database.connect(self._owner.settings.data_dir)) as connection:
            found = accounts.revoke_key(connection, key_id)
        self._owner.keys.refresh()
        return found


def create_key(connection: sqlite3.Connection, tenant: str, label: str, admin: bool) -> dict[str, Any]:
    """Make and keep a key; the answer holds it in the clear, for the only time. Raises `InvalidSetting`."""
    checked_name("tenant", tenant)
    if label:
        checked_name("label", label)
    made = make()
    accounts.add_key(connection, made.id, made.digest, tenant, label, admin)
    return {"id": made.id, "key": made.key, "tenant": tenant, "label": label, "admin": admin}


def told_key(record: accounts.KeyRecord) -> dict[str, Any]:
    """A key as it may be shown: without its digest."""
    told = msgspec.structs.asdict(record)
    del told["digest"]
    return told


def _told(replica: Replica) -> dict[str, Any]:
    stats, package = replica.stats, replica.package
    return {
        "name": replica.name,
        "version": replica.version,
        "state": str(replica.state),
        "reason": replica.reason,
        "engine": replica.engine_name,
        "format": package.format,
        "source": package.source,
        "size_bytes": package.size_bytes,
        "batched": replica.batched,
        "max_batch": replica.rows_max if replica.batched else 1,
        "inputs": [msgspec.to_builtins(spec) for spec in replica.signature.inputs],
        "outputs": [msgspec.to_builtins(spec) for spec in replica.signature.outputs],
        "price_nanos": replica.price_nanos,
        "requests": stats.requests,
        "failures": dict(stats.failures),
        "waiting": replica.waiting,
        "batches": stats.batch_rows.count,
        "rows": stats.rows,
        "queue_s_sum": stats.queue.total,
        "compute_s_sum": stats.compute.total,
        "latency_s": {f"p{share}": stats.latency.quantile(share / 100) for share in (50, 90, 99)},
    }


def serve(settings: Settings, models: Iterable[str], on_ready: Callable[[Owner], None]) -> None:
    """Run a service in this process until SIGTERM or SIGINT. Raises what `choose` and `Owner` raise."""
    check_exposure(settings)
    choices = choose(settings, list(models))

    async def main() -> None:
        owner = Owner(settings, choices)
        quieten_collector()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, owner.stop)
        await owner.run(on_ready)

    uvloop.run(main())

