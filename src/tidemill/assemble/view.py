"""What the admin API and `/metrics` see of a running owner, and what the admin API may change; runs on its loop."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import msgspec
import psutil

from tidemill import __version__
from tidemill.assemble.keys import create_key, told_key
from tidemill.core.aliases import names_for
from tidemill.core.contracts import Relays
from tidemill.core.errors import LedgerUnavailable
from tidemill.deploy.local import Replica, State
from tidemill.observe.metrics import ModelSample, ServiceSample, UpstreamSample
from tidemill.repository import lineage
from tidemill.store import accounts, database
from tidemill.store import ledger as charges

if TYPE_CHECKING:
    from tidemill.assemble.owner import Owner

BATCHES_MAX = 100


class View:
    """`doors.admin.Administration` over the owner, and the sample that `/metrics` shows."""

    def __init__(self, owner: Owner) -> None:
        self._owner = owner
        self._process = psutil.Process()
        self.booked = (0, 0)

    def overview(self) -> dict[str, Any]:
        owner, settings = self._owner, self._owner.settings
        reasons = owner.not_ready()
        times = self._process.cpu_times()
        calls, nanos = self.booked
        fronts = owner.entry.sample()
        return {
            "service": {
                "version": __version__,
                "started_at": owner.started_at,
                "uptime_s": time.time() - owner.started_at,
                "ready": not reasons,
                "draining": owner.draining,
                "reasons": reasons,
                "http_url": owner.http_url,
                "grpc_address": f"{settings.grpc_host or settings.host}:{owner.grpc_port}",
                "auth": not settings.no_auth,
                "charging": not settings.no_charge,
                "in_flight": owner.gate.in_flight,
                "connections": owner.entry.connection_count,
                "cpu_s": times.user + times.system + sum(each.cpu_s for each in fronts),
                "rss_bytes": self._process.memory_info().rss + sum(each.rss_bytes for each in fronts),
                "fronts": [each._asdict() for each in fronts],
            },
            "models": [_told(replica) for replica in owner.fleet.replicas()],
            "usage": {"calls": calls, "nanos": nanos},
        }

    def models(self) -> Sequence[dict[str, Any]]:
        about = self._owner.models.about()
        sizes = {(each.name, each.version): each.package.size_bytes for each in self._owner.fleet.replicas()}
        told: dict[str, dict[str, Any]] = {
            name: {"name": name, **each._asdict(), "versions": []} for name, each in about.items()
        }
        for each in self._owner.models.index():
            unknown = {"name": each.name, "policy": "", "labels": {}, "unloaded": False, "versions": []}
            version = {**msgspec.to_builtins(each), "size_bytes": sizes.get((each.name, each.version), 0)}
            del version["name"]
            told.setdefault(each.name, unknown)["versions"].append(version)
        for name, model in told.items():
            model["aliases"] = names_for(name, self._owner.fleet.aliases)
        return [told[name] for name in sorted(told)]

    async def label(self, name: str, label: str, version: int) -> None:
        await self._owner.models.label(name, label, version)

    def count(self) -> None:
        """Add up all charges ever booked; blocks, so a thread calls it."""
        with self._database() as connection:
            self.booked = charges.total(connection)

    def usage(self, tenant: str | None, since_ms: int) -> Sequence[msgspec.Struct]:
        with self._database() as connection:
            return charges.usage(connection, tenant, since_ms)

    async def batches(self) -> Sequence[dict[str, Any]]:
        return [
            {
                "id": row.id,
                "tenant": row.tenant,
                "endpoint": row.endpoint,
                "status": row.state,
                "created_at": row.times["validating"],
                "expires_at": row.expires_at,
                "total": row.total,
                "completed": row.completed,
                "failed": row.failed,
            }
            for row in await self._owner.desk.list(None, "", BATCHES_MAX)
        ]

    def lineage(self) -> Sequence[dict[str, Any]]:
        return [_descended(manifest) for manifest, _ in lineage.all_of(self._owner.settings.models)]

    def report(self, name: str, version: int, file: str) -> bytes:
        return lineage.report(self._owner.settings.models, name, version, file)

    def keys(self) -> Sequence[dict[str, Any]]:
        return [told_key(each) for each in accounts.all_keys(self._owner.reader)]

    def create_key(self, tenant: str, label: str, admin: bool) -> dict[str, Any]:
        with self._database() as connection:
            return create_key(connection, tenant, label, admin)

    def revoke_key(self, key_id: str) -> bool:
        with self._database() as connection:
            return accounts.revoke_key(connection, key_id)

    def keys_changed(self) -> None:
        if self._owner.keys.refresh():
            self._owner.entry.keys_changed()

    @contextlib.contextmanager
    def _database(self) -> Iterator[database.Connection]:
        """A connection of the calling thread's own. Raises `LedgerUnavailable` when the database stays locked."""
        try:
            with contextlib.closing(database.connect(self._owner.settings.data_dir)) as connection:
                yield connection
        except database.DatabaseError as error:
            raise LedgerUnavailable(f"the database cannot be used now: {error}", retry_after_s=1.0) from error

    def sample(self) -> ServiceSample:
        owner = self._owner
        renewal = owner.renewal
        models = [
            ModelSample(
                each.name,
                each.version,
                each.state is State.AVAILABLE,
                each.waiting,
                each.stats,
                str(each.state),
                each.busy,
            )
            for each in owner.fleet.replicas()
        ]
        return ServiceSample(
            models,
            owner.service.failures,
            owner.gate.in_flight,
            owner.entry.connection_count,
            owner.commits.row_count,
            owner.commits.group_count,
            None if renewal is None else (renewal.current.not_after, renewal.failed),
            ready=not owner.not_ready(),
            draining=owner.draining,
            started_at=owner.started_at,
            fronts=owner.entry.sample(),
            upstreams=_upstreams(owner.fleet.replicas()),
            jobs=owner.desk.sample(),
        )


def _upstreams(replicas: Sequence[Replica]) -> list[UpstreamSample]:
    found: list[UpstreamSample] = []
    for each in replicas:
        generator: object = each.generator
        if isinstance(generator, Relays):
            counted = enumerate(generator.upstreams(), 1)
            found += [UpstreamSample(each.name, each.version, str(number), *counts) for number, counts in counted]
    return found


def _descended(manifest: lineage.Manifest) -> dict[str, Any]:
    told = manifest.lineage
    weights = [record.size_bytes for name, record in manifest.files.items() if name.startswith("model.onnx")]
    return {
        "name": manifest.name,
        "version": manifest.version,
        "size_bytes": sum(weights),
        "methods": told.methods,
        "report": f"{lineage.REPORT_FOLDER}/report.html" in manifest.files,
        **msgspec.to_builtins(told),
    }


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
        "singly": "" if replica.lane is None else replica.singly,
        "inputs": [msgspec.to_builtins(spec) for spec in replica.signature.inputs],
        "outputs": [msgspec.to_builtins(spec) for spec in replica.signature.outputs],
        "signatures": [each.name for each in (replica.signature, *replica.signature.further)],
        "left_out_signatures": dict(replica.signature.left_out),
        "accepts": replica.accepts,
        "embeds": replica.embeds,
        "speaks": None if replica.speaks is None else msgspec.to_builtins(replica.speaks),
        "price_nanos": replica.tariff.call_nanos,
        "prompt_token_nanos": replica.tariff.prompt_token_nanos,
        "completion_token_nanos": replica.tariff.completion_token_nanos,
        "cached_token_nanos": replica.tariff.cached_token_nanos,
        "batch_percent": replica.tariff.batch_percent,
        "requests": stats.requests,
        "failures": dict(stats.failures),
        "waiting": replica.waiting,
        "batches": stats.batch_rows.count,
        "rows": stats.rows,
        "queue_s_sum": stats.queue.total,
        "compute_s_sum": stats.compute.total,
        "latency_s": {f"p{share}": stats.latency.quantile(share / 100) for share in (50, 90, 99)},
    }
