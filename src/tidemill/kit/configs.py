"""The `tidemill.toml` of each model of the kit: what it reads besides tensors, and what it says; plain text."""

from __future__ import annotations

from typing import Final

HALF: Final = """[batching]
batched = true
"""

MAGIKA: Final = """# Any file in, its type out.
[[pre]]
step = "file-ends"

[[post]]
step = "top"
input = "target_label"
k = 3
"""

MINILM: Final = """# A text in, its vector out.
[[pre]]
step = "text"

[[pre]]
step = "tokenise"
tokens_max = 256

[[post]]
step = "show"
values = ["sentence_embedding"]
row = true
"""

SILERO_VAD: Final = """# A sound in, the stretches out in which somebody speaks. The model hears 32 ms at a
# time, each with the last 4 ms before, and carries a state from one to the next.
[[pre]]
step = "wav"

[[pre]]
step = "resample"
rate_hz = 16000

[[pre]]
step = "window"
size = 576
hop = 512
lead = 64
output = "input"

[[pre]]
step = "constant"
output = "state"
shape = [2, 1, 128]

[[pre]]
step = "constant"
output = "sr"
datatype = "INT64"
value = 16000

[each]
rows = "input"
carry = {state = "stateN"}

[[post]]
step = "segments"
input = "output"
window_ms = 32
"""

_BASIC_PITCH = """# A sound in, the notes out that are played in it: windows of two seconds that overlap.
[batching]
max_batch = 8

[[pre]]
step = "wav"

[[pre]]
step = "resample"
rate_hz = 22050

[[pre]]
step = "window"
size = 43844
hop = 36164
lead = 3840
axis = true
output = "{taken}"

[each]
rows = "{taken}"

[[post]]
step = "notes"
input = "{given}"
size = 43844
hop = 36164
lead = 3840
"""
BASIC_PITCH: Final = _BASIC_PITCH.format(taken="serving_default_input_2:0", given="StatefulPartitionedCall:1")
BASIC_PITCH_SAVEDMODEL: Final = _BASIC_PITCH.format(taken="input_2", given="note")

FASHION_CNN: Final = """# A picture in, what it shows out: clothes, light on a dark ground.
[[pre]]
step = "image"
mode = "grey"

[[pre]]
step = "resize"
width = 28
height = 28

[[pre]]
step = "normalise"

[[post]]
step = "softmax"
input = "logits"

[[post]]
step = "top"
input = "logits"
k = 3
"""
