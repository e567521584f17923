"""The form that asks for an admin key; runs in the console's process.

The key lives in the memory of the page that it was typed into. It is neither stored nor logged, and never written
back into the page.
"""

from __future__ import annotations

from collections.abc import Callable

from nicegui import events, ui

from tidemill.console.pages.parts import box, say, words

KEY_MAX = 512
# The form is read and emptied in the browser, so the key stays in no element's value.
SEND = """event => {
  event.preventDefault();
  const field = event.target.querySelector('input');
  const key = field.value.trim();
  field.value = '';
  if (key) emit(key);
}"""


class KeyForm:
    """Built once a page; `take` gets each key that could be one."""

    def __init__(self, take: Callable[[str], None]) -> None:
        self._take = take
        with box("card ask", "section") as self._card:
            words("This service wants an admin key", "title", "h2")
            self._message = words("", "soft")
            with ui.element("form") as form:
                field = ui.element("input").props('type=password autocomplete=off aria-label="admin key"')
                field.props["placeholder"] = "admin key"
                with ui.element("button").classes("copy").props("type=submit"):
                    words("look", tag="span")
        form.on("submit", self._sent, js_handler=SEND)
        self._card.set_visibility(False)

    def show(self, visible: bool, message: str) -> None:
        """Ask, and say what the service said."""
        self._card.set_visibility(visible)
        if visible:
            say(self._message, message)

    def _sent(self, event: events.GenericEventArguments) -> None:
        key = str(event.args)
        if len(key) > KEY_MAX or not key.isascii() or not key.isprintable() or " " in key:
            say(self._message, "That is no key: a key is one word of plain letters, digits and signs.")
            return
        say(self._message, "asking …")
        self._take(key)
