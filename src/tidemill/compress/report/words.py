"""Numbers as a reader of a report wants them; pure. A missing value is a dash."""

from __future__ import annotations

from tidemill.core import text

NOTHING = "–"


def size(count: float | None) -> str:
    return NOTHING if count is None else text.size(count)


def time(value_s: float | None) -> str:
    """850 µs, 7.1 ms, 120 ms, 2.50 s, 3 min 20 s."""
    if value_s is None:
        return NOTHING
    if value_s < 120:
        return text.duration(value_s)
    minutes, seconds = divmod(round(value_s), 60)
    return f"{minutes} min {seconds} s"


def share(value: float | None) -> str:
    """0.2487 -> 24.9 %."""
    if value is None:
        return NOTHING
    return f"{value * 100:.0f} %" if value >= 0.9995 and value == round(value, 2) else f"{value * 100:.1f} %"


def kept(value: float) -> str:
    """With a digit more, because 0.9896 is not 0.99: 98.96 %."""
    return f"{value * 100:.2f} %"


def times(ratio: float | None) -> str:
    """How much faster: .23 -> 4.3×."""
    if not ratio:
        return NOTHING
    factor = 1 / ratio
    return f"{factor:.0f}×" if factor >= 9.95 else f"{factor:.2g}×" if factor < 0.995 else f"{factor:.1f}×"


def metric(value: float | None) -> str:
    """Four digits, so that a loss of a thousandth shows."""
    return NOTHING if value is None else f"{value:.4f}"


def signed(value: float) -> str:
    return f"{value:+.4f}".replace("-", "−")


def error(value: float | None) -> str:
    """A share of energy: 2.1e-05, 0.013."""
    if value is None:
        return NOTHING
    if value == 0:
        return "0"
    return f"{value:.1e}" if value < 0.001 else f"{value:.2g}"


def bits(value: float) -> str:
    return f"{value:.0f}" if abs(value - round(value)) < 0.05 else f"{value:.1f}"


def count(value: int) -> str:
    return f"{value:,}"
