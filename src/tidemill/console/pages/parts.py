"""Small pieces that several parts of the page share; runs in the console's process."""

from __future__ import annotations

import html
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from nicegui import ui

# Outside of localhost and HTTPS a browser has no clipboard to write to; then the text is selected, ready for Ctrl-C.
COPY = """(event) => {
  const text = %s, button = event.target;
  const said = (word) => { button.textContent = word; setTimeout(() => { button.textContent = 'copy'; }, 1200); };
  const select = () => {
    const value = button.parentElement.querySelector('.value');
    if (value) getSelection().selectAllChildren(value);
    said('selected');
  };
  if (navigator.clipboard) navigator.clipboard.writeText(text).then(() => said('copied'), select); else select();
}"""

TONES = ("good", "fine", "warn", "bad", "soft")


@contextmanager
def box(classes: str, tag: str = "div") -> Iterator[ui.element]:
    """An element that holds others."""
    with ui.element(tag).classes(classes) as element:
        yield element


def words(text: str, classes: str = "", tag: str = "div") -> ui.html:
    """A piece of plain text; whatever it holds is shown, never run."""
    return ui.html(html.escape(text), sanitize=False, tag=tag).classes(classes)


def say(element: ui.html, text: str) -> None:
    """Change a piece of plain text."""
    element.set_content(html.escape(text))


def tint(element: ui.element, tone: str) -> None:
    """Give `element` one of `TONES`, or none for ""; its other classes stay."""
    element.classes(add=tone, remove=" ".join(other for other in TONES if other != tone))


def copy_button(text: str) -> ui.element:
    """A button that copies `text`; a sibling of class `value` holds it for browsers without a clipboard."""
    button = ui.element("button").classes("copy").props('type=button title="copy"')
    with button:
        ui.html("copy", sanitize=False, tag="span")
    button.on("click", js_handler=COPY % json.dumps(text))
    return button


def press(text: str, act: Callable[[], Any], classes: str = "copy") -> ui.element:
    """A plain button; `act` may be a coroutine's function."""
    button = ui.element("button").classes(classes).props("type=button")
    with button:
        words(text, tag="span")
    button.on("click", act, args=[])
    return button


def enable(button: ui.element, able: bool) -> None:
    """Let `button` be pressed, or not."""
    if able:
        button.props(remove="disabled")
    else:
        button.props("disabled")


def choices(select: ui.element, offered: list[tuple[str, str]], chosen: str) -> None:
    """Fill a plain `select` with (value, text)."""
    select.clear()
    with select:
        for value, text in offered:
            option = words(text, tag="option")
            option.props["value"] = value
            if value == chosen:
                option.props["selected"] = True


def column(name: str, title: str, *, left: bool = False, hidden: str = "", text: bool = False) -> dict[str, Any]:
    """A column of a table. `hidden` is the class of the widths at which it goes; with `text` the row holds its value
    written out."""
    column: dict[str, Any] = {
        "name": name, "label": title, "field": name, "sortable": True, "align": "left" if left else "right",
        "classes": hidden, "headerClasses": hidden,
    }  # fmt: skip
    if text:
        column[":format"] = f"(value, row) => row.{name}_text"
    return column
