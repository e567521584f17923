"""The step from probabilities of speech to the stretches in which somebody speaks; pure, on the steps' threads."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta

from tidemill.steps.step import ANSWER, Name, Step, Values, take


class Segments(Step, frozen=True, kw_only=True):
    """Probabilities of windows one after the other to the stretches in which somebody speaks.

    One begins where `least` is reached, and ends when it has stayed `slack` below it for `silence_ms`.
    """

    input: Name
    window_ms: Annotated[float, Meta(gt=0)] = 32.0
    least: Annotated[float, Meta(ge=0, le=1)] = 0.5
    slack: Annotated[float, Meta(ge=0, le=1)] = 0.15
    speech_ms: Annotated[float, Meta(ge=0, description="what is shorter is no speech")] = 250.0
    silence_ms: Annotated[float, Meta(ge=0, description="what is shorter is no end")] = 100.0
    output: Name = ANSWER

    def apply(self, values: Values) -> Values:
        probabilities = take(values, self.input).ravel()
        end_s = float(values.get("seconds", len(probabilities) * self.window_ms / 1000))
        found: list[dict[str, Any]] = []
        start: int | None = None
        quiet = 0
        for place, probability in enumerate((*probabilities.tolist(), None)):
            if probability is not None and probability >= self.least:
                start, quiet = place if start is None else start, 0
                continue
            if start is None or (probability is not None and probability >= self.least - self.slack):
                continue
            quiet += 1
            if probability is not None and quiet * self.window_ms < self.silence_ms:
                continue
            last = place + 1 - quiet
            if (last - start) * self.window_ms >= self.speech_ms:
                mean = float(probabilities[start:last].mean())
                span = {"start_s": start * self.window_ms / 1000, "end_s": min(last * self.window_ms / 1000, end_s)}
                found.append({**{key: round(value, 3) for key, value in span.items()}, "score": round(mean, 4)})
            start, quiet = None, 0
        return {self.output: found}
