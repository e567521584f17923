"""The head of the page: what the service is, how it is, and where; runs in the console's process."""

from __future__ import annotations

from collections.abc import Callable

from nicegui import ui

from tidemill.console import format as form
from tidemill.console.api import State, View
from tidemill.console.charts import label
from tidemill.console.pages.parts import box, copy_button, say, tint, words
from tidemill.console.snapshot import Service

TimeOfDay = Callable[[float], str]
"""Unix time -> hh:mm:ss where the reader is."""


class Head:
    """Built once a page, then told of every view."""

    def __init__(self, mark: str, api: str, time_of_day: TimeOfDay) -> None:
        self._api = api
        self._time_of_day = time_of_day
        self._addresses_shown: tuple[str, str] | None = None
        with box("head", "header"):
            with box("brand"):
                ui.html(mark, sanitize=False)
                words("Tidemill")
            self._state = words("", "state")
            self._about = words("", "soft")
            words("", "spring")
            self._addresses = ui.element("div").classes("head")
        self._banner = words("", "banner")
        self._banner.set_visibility(False)

    def show(self, view: View) -> None:
        """Write `view` down."""
        service = view.overview.service if view.overview else None
        word, tone = summary(view)
        say(self._state, word)
        tint(self._state, tone)
        text, tone = banner(view, self._api, self._time_of_day)
        say(self._banner, text)
        tint(self._banner, tone)
        self._banner.set_visibility(bool(text))
        if service:
            say(self._about, about(service))
            self._show_addresses(service)

    def _show_addresses(self, service: Service) -> None:
        found = (service.http_url, service.grpc_address)
        if found == self._addresses_shown:
            return
        self._addresses_shown = found
        self._addresses.clear()
        with self._addresses:
            for what, address in zip(("HTTP", "gRPC"), found, strict=True):
                if address:
                    with box("address"):
                        words(what, "what soft")
                        words(address, "value")
                        copy_button(address)


def summary(view: View) -> tuple[str, str]:
    """The state in a word or two, and its tone."""
    if view.state is State.WAITING:
        return "asking …", "soft"
    if view.state is State.UNREACHABLE:
        return "unreachable", "bad"
    if view.state is State.REFUSED:
        return "key wanted", "warn"
    if view.state is State.STRANGE or view.overview is None:
        return "not understood", "bad"
    service = view.overview.service
    if service.draining:
        return "draining", "warn"
    return ("ready", "good") if service.ready else ("not ready", "bad")


def banner(view: View, api: str, time_of_day: TimeOfDay) -> tuple[str, str]:
    """What needs a sentence, and its tone; empty when nothing does."""
    if view.state is State.UNREACHABLE:
        shown = " Below is what was last known." if view.overview else ""
        return f"The service at {api} does not answer since {time_of_day(view.since)}: {view.message}.{shown}", "bad"
    if view.state is State.STRANGE:
        return f"The service at {api} answers, but not as expected: {view.message}", "bad"
    if view.state is not State.LIVE or view.overview is None:
        return "", ""
    service = view.overview.service
    reasons = "; ".join(service.reasons)
    if service.draining:
        return f"Draining: running requests end, new ones are refused. {reasons}".strip(), "warn"
    if not service.ready:
        return f"Not ready: {reasons or 'the service gives no reason'}", "bad"
    failed = [model for model in view.overview.models if model.state == "FAILED"]
    if len(failed) == 1:
        return f"Not served: {label(failed[0].key)}: {failed[0].reason or 'no reason is given'}", "bad"
    if failed:
        return f"Not served: {', '.join(label(model.key) for model in failed)}. The table says why.", "bad"
    return reasons, "warn" if reasons else ""


def about(service: Service) -> str:
    """Version, age, what it takes of the machine, and how it is guarded."""
    parts = [service.version, f"up {form.age(service.uptime_s)}"]
    if service.rss_bytes:
        parts.append(form.size(service.rss_bytes))
    parts.append("keys wanted" if service.auth else "open to all: no keys")
    return " · ".join(parts)
