"""The owner process: holds the engines and decides; from its settings to its last drained request."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import uvloop

from tidemill import __version__
from tidemill.account.group_commit import GroupCommit
from tidemill.account.keys import Keys, Open
from tidemill.account.ledger import DurableLedger, FreeLedger
from tidemill.assemble.choice import entries
from tidemill.assemble.console_process import ConsoleProcess
from tidemill.assemble.exposure import check_exposure
from tidemill.assemble.fronts import Fronts
from tidemill.assemble.here import Entry, Here
from tidemill.assemble.inside import Inside
from tidemill.assemble.key_file import follow_key_file
from tidemill.assemble.readiness import unready
from tidemill.assemble.view import View
from tidemill.assemble.warming import warm_ups
from tidemill.core import certificates, registry
from tidemill.core.collector import quieten_collector
from tidemill.core.errors import InvalidSetting, LedgerUnavailable
from tidemill.core.heap import keep_freed
from tidemill.core.package import ModelEntry, VersionPolicy
from tidemill.core.settings import Settings
from tidemill.deploy.aside import at_work
from tidemill.deploy.config_file import ConfigFile
from tidemill.deploy.controller import Controller, ControlPolicy
from tidemill.deploy.local import FleetPolicy, LocalFleet
from tidemill.deploy.steps import StepPolicy
from tidemill.doors import application, grpc_server
from tidemill.doors.grpc_call import Calls
from tidemill.doors.head import ASGIApp
from tidemill.doors.listen import bind
from tidemill.doors.openai import rest as openai
from tidemill.doors.openai.batch.desk import Desk
from tidemill.observe.metrics import Exposition
from tidemill.repository import text_proto
from tidemill.serve.answer import Service
from tidemill.serve.queue import BoundedQueue
from tidemill.steps.step import Bounds
from tidemill.store import accounts, database
from tidemill.store import ledger as charges

log = logging.getLogger(__name__)

KEYS_REFRESH_S = 0.5
"""A key revoked by another process is refused after this at the latest."""
WRITER_PATIENCE_S = 2.0
"""How long a charge waits for another process that holds the database; then its request is answered 503."""
COUNT_S = 5.0
"""How long after one adding-up of all charges, for the overview, the next begins."""
STAGE_CALLS_AT_ONCE = 16
"""Calls that one request makes of one model at once: enough to fill a batch, few enough to leave places to others."""
ENGINE_STOP_S = 1.0
"""What an engine that nobody waits for any more may take to end its batch."""


def serve(settings: Settings, models: Iterable[str], on_ready: Callable[[Owner], None]) -> None:
    """Run a service in this process until SIGTERM or SIGINT. Raises `InvalidSetting`, `UnknownModel`."""
    check_exposure(settings)
    named = list(models)
    wanted = entries(settings, named)
    traces = registry.load("trace.otlp")(settings, __version__) if settings.otlp_endpoint else None

    async def main() -> None:
        owner = Owner(settings, wanted, whole=not named and not settings.model_config_file)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, owner.stop)
        await owner.run(on_ready)
        if owner.left_behind:
            # An engine still computes on its thread; the interpreter's own end would trip over it.
            logging.shutdown()
            sys.stdout.flush()
            os._exit(0)

    try:
        uvloop.run(main())
    finally:
        if traces is not None:
            traces.close()


def fleet_policy(settings: Settings) -> FleetPolicy:
    return FleetPolicy(
        engine=settings.engine,
        threads=settings.threads,
        instances=settings.instances,
        rows_max=settings.max_batch,
        waiting_max=settings.queue_max,
        inline_s_max=settings.inline_us_max / 1e6,
        call_nanos=settings.call_nanos,
        delay_ms_max=settings.batch_delay_ms,
        steps=StepPolicy(
            threads=settings.step_threads,
            bounds=Bounds(settings.image_pixels_max, settings.audio_s_max, settings.text_bytes_max),
            elements_max=settings.elements_max,
            at_once=min(STAGE_CALLS_AT_ONCE, settings.queue_max),
            texts_max=settings.embed_texts_max,
        ),
        load_s_max=settings.load_timeout_s,
        drain_s_max=settings.drain_ms / 1000,
        signatures_max=settings.signatures_max,
        openvino_precision=settings.openvino_precision,
        providers=tuple(each.strip() for each in settings.providers.split(",") if each.strip()),
        settings=settings,
        warm_ups=warm_ups(settings),
        prompt_token_nanos=settings.prompt_token_nanos,
        completion_token_nanos=settings.completion_token_nanos,
        cached_token_nanos=None if settings.cached_token_nanos < 0 else settings.cached_token_nanos,
        batch_percent=settings.batch_percent,
    )


def control_policy(settings: Settings, whole: bool) -> ControlPolicy:
    return ControlPolicy(
        versions=VersionPolicy.parse(settings.version_policy),
        whole=whole,
        settle_s=settings.watch_s,
        look_s_max=settings.load_timeout_s,
        loads_max=settings.loads_max,
        free_labels=settings.allow_version_labels_for_unavailable_models,
    )


class Owner:
    """Holds everything of one running service. `run` returns when it has drained."""

    def __init__(self, settings: Settings, wanted: Sequence[ModelEntry], whole: bool) -> None:
        """`whole`: `wanted` is all of the repository, and what comes into it later is served too.

        Raises `InvalidSetting` for a data folder or an address that cannot be used.
        """
        self.settings = settings
        self.started_at = time.time()
        self.draining = False
        self.loading = True
        self.left_behind = False
        self._stop = asyncio.Event()
        self.reader = database.connect(settings.data_dir)
        self._writer = database.connect(settings.data_dir, WRITER_PATIENCE_S)
        paths = certificates.paths_of(settings)
        self.renewal = None if paths is None else certificates.Renewal(paths)
        self.inside = None if paths is None else Inside()
        shared = settings.fronts > 0
        aliases = {settings.rest_api_port: "--rest_api_port", settings.port: "--port"}
        flag = aliases.get(settings.http_port or -1, "--http-port")
        self._listener = bind(settings.host, settings.http_port, flag, shared=shared)
        self.http_port: int = self._listener.getsockname()[1]
        self.alias_ports = [port for port in aliases if port not in {0, self.http_port}]
        self._listeners = [
            self._listener,
            *(bind(settings.host, port, aliases[port], shared=shared) for port in self.alias_ports),
        ]
        self.console = ConsoleProcess(settings, paths)
        if not settings.no_auth:
            follow_key_file(self._writer, settings.auth_key_file)
        self.keys = (
            Open()
            if settings.no_auth
            else Keys(lambda: accounts.epoch(self.reader), lambda: accounts.all_keys(self.reader))
        )
        self.gate = BoundedQueue(settings.queue_max, lambda: self.draining)
        self.commits = GroupCommit(
            lambda rows: charges.book(self._writer, rows),
            settings.commit_queue_max,
            settings.commit_delay_ms / 1000,
        )
        self.fleet = LocalFleet(fleet_policy(settings))
        self.models = Controller(self.fleet, settings.models, wanted, control_policy(settings, whole))
        ledger = FreeLedger() if settings.no_charge else DurableLedger(self.commits, self.fleet.tariff)
        self.service = Service(self.keys, self.gate, ledger, self.fleet, self.models)
        asked = openai.kinds(self.service)
        kinds = {path: asked[path] for path in openai.BATCHED}
        self.desk = Desk(self.service, settings, kinds, self.gate.held)
        self.view = View(self)
        doors = application.build(
            self.service,
            self.view,
            Exposition(self.view.sample).render,
            self.not_ready,
            lambda: self.console.port,
            settings,
            self.desk,
        )
        self._doors = doors
        self.entry = self._entry(doors)

    def _entry(self, app: ASGIApp) -> Entry:
        def is_ready() -> bool:
            return not self.not_ready()

        settings, service = self.settings, self.service
        if not settings.fronts:
            return Here(service, app, settings, self._listeners, is_ready, self.renewal, self.inside)
        methods = grpc_server.handlers(Calls(service, settings, is_ready))
        return Fronts(
            service,
            self.fleet,
            app,
            methods,
            settings,
            self._listeners,
            is_ready,
            lambda: self.draining,
            self.inside,
        )

    async def run(self, on_ready: Callable[[Owner], None]) -> None:
        """Serve until `stop`. `on_ready` is called once, when every model is loaded or refused."""
        beside = [
            asyncio.create_task(self._refresh_keys()),
            asyncio.create_task(self._count_charges()),
            asyncio.create_task(self._renew_certificates()),
        ]
        try:
            inside = self.inside
            if inside is not None:
                await inside.serve(self._doors, self.settings, self.service.failures)
            await self.desk.open()
            await self.entry.start()
            self.console.start(self.http_url, None if inside is None else inside.http)
            starting = asyncio.create_task(self._begin())
            serving = asyncio.create_task(self.entry.ended())
            beside += [starting, serving]
            await self._until_stopped(serving, starting)
            if starting.done():
                starting.result()
                self.loading = False
                quieten_collector()
                keep_freed(self.settings.heap_keep_bytes)
                on_ready(self)
                beside.append(asyncio.create_task(self.desk.run()))
                if self.settings.watch_s:
                    beside.append(asyncio.create_task(self.models.watch(self.settings.watch_s)))
                if self.settings.model_config_file and self.settings.model_config_poll_s:
                    file = Path(self.settings.model_config_file).expanduser()
                    listed = ConfigFile(file, self.models, text_proto.text_of(file))
                    beside.append(asyncio.create_task(listed.watch(self.settings.model_config_poll_s)))
                await self._until_stopped(serving)
        finally:
            self.draining = True
            log.info("draining", extra={"in_flight": self.gate.in_flight})
            await self.entry.drain()
            for task in beside:
                task.cancel()
            await asyncio.gather(*beside, return_exceptions=True)
            await self.models.close()
            await self._close_fleet()
            await self.commits.close()
            await self.desk.close()
            self.console.stop()
            if self.inside is not None:
                await self.inside.close()
            self.reader.close()
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
        if self.loading:
            return ["models are being loaded"]
        return unready(self.fleet.replicas(), self.settings.readiness)

    @property
    def grpc_port(self) -> int:
        return self.entry.grpc_port

    @property
    def http_url(self) -> str:
        host, scheme = self.settings.host, "http" if self.renewal is None else "https"
        return f"{scheme}://{f'[{host}]' if ':' in host else host}:{self.http_port}"

    async def _begin(self) -> None:
        """Load every model, and wait until requests can come."""
        await self.models.start()
        await self.entry.ready()

    async def _until_stopped(self, *others: asyncio.Task[None]) -> None:
        """Return when `stop` was called, or one of `others` is done."""
        stopping = asyncio.create_task(self._stop.wait())
        await asyncio.wait([stopping, *others], return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()

    async def _close_fleet(self) -> None:
        try:
            await asyncio.wait_for(self.fleet.close(), ENGINE_STOP_S)
        except TimeoutError:
            self.left_behind = True
        if at_work():
            self.left_behind = True
        if self.left_behind:
            log.warning("an engine is still at work for nobody; it is left behind")

    async def _count_charges(self) -> None:
        while not self.settings.no_charge:
            try:
                await asyncio.to_thread(self.view.count)
            except (InvalidSetting, LedgerUnavailable) as error:
                log.warning("charges could not be added up: %s", error.message)
            await asyncio.sleep(COUNT_S)

    async def _renew_certificates(self) -> None:
        while self.renewal is not None:
            await asyncio.sleep(certificates.LOOK_S)
            self.renewal.look()

    async def _refresh_keys(self) -> None:
        while True:
            await asyncio.sleep(KEYS_REFRESH_S)
            try:
                if self.keys.refresh():
                    self.entry.keys_changed()
            except database.DatabaseError as error:
                log.warning("keys could not be read again: %s", error)
