"""The playground: ask a model as any caller would, and read the answer; runs in the console's process."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from nicegui import events, ui

from tidemill.console import answers, curl
from tidemill.console import format as form
from tidemill.console.acts import Acts, Tried
from tidemill.console.catalogue import Known
from tidemill.console.kinds import Kind, ways
from tidemill.console.pages import answer
from tidemill.console.pages.chat import Chat
from tidemill.console.pages.parts import box, choices, press, words
from tidemill.console.pages.question import Given, Question
from tidemill.console.snapshot import Model, Service

NEWEST = ""
CHOSEN = "event => emit(event.target.value)"


class Playground:
    """Built once a page. It is laid out anew when another model is shown, or the model takes something else."""

    def __init__(self, acts: Callable[[], Acts], bytes_max: int, changed: Callable[[], None]) -> None:
        self._acts, self._bytes_max, self._changed = acts, bytes_max, changed
        self._model: Known | None = None
        self._service: Service | None = None
        self._laid: tuple[object, ...] = ()
        self._offered: list[str] = []
        self._way: Kind | None = None
        self._question: Question | None = None
        self._chat: Chat | None = None
        self._turn = 0
        with box("card wide-card playground", "section") as self._card:
            with box("top"):
                words("Try it", "title", "h2")
                self._ways = ui.element("div").classes("ways").props('role=group aria-label="what is given"')
                self._pick = ui.element("select").classes("pick").props('aria-label="version to be asked"')
            self._pick.on("change", self._choose, js_handler=CHOSEN)
            self._none = words("Nothing of this model serves: load it to try it.", "bare soft")
            with box("sides") as self._sides:
                self._left = ui.element("div")
                self._right = ui.element("div").classes("answer").props("aria-live=polite")
            self._talk = ui.element("div")
        ui.context.client.on_delete(self._hang_up)
        self._chosen = NEWEST

    def show(self, model: Known | None, service: Service | None) -> None:
        """Fit `model`, None where it is gone."""
        self._model, self._service = model, service
        running = self._asked()
        self._card.set_visibility(model is not None)
        self._none.set_visibility(running is None)
        talks = running is not None and running.speaks is not None
        self._sides.set_visibility(running is not None and not talks)
        self._talk.set_visibility(talks)
        self._ways.set_visibility(running is not None)
        numbers = [str(version.number) for version in model.serving] if model else []
        self._pick.set_visibility(len(numbers) > 1)
        if self._chosen not in numbers:
            self._chosen = NEWEST
        if model is None or running is None:
            return
        if numbers != self._offered:
            self._offered = numbers
            named = [(NEWEST, "the newest"), *((number, f"v{number}") for number in numbers)]
            choices(self._pick, named, self._chosen)
        laid = (model.name, running.inputs, running.accepts, running.speaks)
        if laid != self._laid:
            self._laid = laid
            self._lay(running, ways(running)[0])

    def _asked(self) -> Model | None:
        """The version that would answer."""
        if self._model is None:
            return None
        serving = {str(version.number): version.running for version in self._model.serving}
        return serving.get(self._chosen) or next(iter(serving.values()), None)

    def _lay(self, model: Model, way: Kind) -> None:
        self._way = way
        self._turn += 1
        self._ways.clear()
        with self._ways:
            for each in ways(model):
                button = press(str(each), partial(self._lay, model, each), "way")
                button.props(f"aria-pressed={'true' if each is way else 'false'}")
        self._left.clear()
        self._right.clear()
        self._hang_up()
        self._talk.clear()
        if way is Kind.CHAT:
            with self._talk:
                self._chat = Chat(
                    lambda: self._asked() or model, self._acts, self._version, lambda: self._service, self._changed
                )
            return
        with self._left:
            self._question = Question(model, way, self._bytes_max, self._ask)
        with self._right:
            words("The answer will stand here.", "soft")

    def _version(self) -> int | None:
        return int(self._chosen) if self._chosen else None

    def _hang_up(self) -> None:
        """Nobody reads on: the answer under way is given up."""
        if self._chat is not None:
            self._chat.stop()
            self._chat = None

    def _choose(self, event: events.GenericEventArguments) -> None:
        self._chosen = str(event.args)
        self.show(self._model, self._service)

    async def _ask(self, given: Given) -> None:
        model, asked, question, turn = self._model, self._asked(), self._question, self._turn
        if model is None or asked is None or question is None:
            return
        question.wait(True)
        question.mark([])
        self._right.clear()
        with self._right:
            words("asking …", "soft")
        version = self._version()
        tried = await self._acts().attempt(model.name, version, given.media, given.data)
        question.wait(False)
        self._changed()
        if turn != self._turn:  # the page shows another model by now
            return
        self._right.clear()
        with self._right:
            self._told(model, asked, version, given, tried, question)

    def _told(
        self, model: Known, asked: Model, version: int | None, given: Given, tried: Tried, question: Question
    ) -> None:
        service = self._service
        if tried.message:
            words(tried.message, "message bad")
            words(f"after {form.latency(tried.seconds)}, not charged", "soft cost")
        else:
            charged = service is not None and service.charging
            price = f"{form.money(asked.price_nanos)} charged" if charged else "nothing is booked here"
            words(f"{form.latency(tried.seconds)} from here and back · {price}", "soft cost")
            found = answers.read(tried.body)
            answer.draw(found, given)
            if isinstance(found, answers.Lines):
                question.mark([corners for _, _, corners in found.rows])
        if tried.body:
            answer.raw(tried)
        if service is not None:
            line = curl.predict(
                model.name, version, service.http_url, service.auth, given.media, given.data, given.file
            )
            answer.call(line)
