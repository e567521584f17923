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

MINILM: Final = """# A text in, its vector out. Texts of different lengths run in one batch.
[batching.padding]
mask = "attention_mask"

[embed]
output = "sentence_embedding"
tokens_max = 256

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

_LETTERS = """[[pre]]
step = "image"
mode = "bgr"

"""
_SMALL = """[[pre]]
step = "resize"
mode = "letterbox"
{size}

[[pre]]
step = "normalise"
mean = [0.5]
std = [0.5]
output = "x"

"""

OCR_DET: Final = (
    "# A picture out of which the areas come that hold text.\n"
    + _LETTERS
    + """[[pre]]
step = "resize"
mode = "multiple-of"
side_min = 736
side_max = 2016
output = "small"

[[pre]]
step = "normalise"
mean = [0.5]
std = [0.5]
input = "small"
output = "x"

[[post]]
step = "boxes"
input = "sigmoid_0.tmp_0"

[[post]]
step = "show"
values = ["boxes", "box_scores"]
"""
)

OCR_CLS: Final = (
    "# A picture of one line of text: does it stand upright?\n"
    + _LETTERS
    + _SMALL.format(size="width = 192\nheight = 48\nfill = 127")
    + """[[post]]
step = "top"
input = "save_infer_model/scale_0.tmp_1"
k = 2
"""
)

_REC_SIZE = "width = 3200\nheight = 48\nfit = true\nmultiple = 160\nwidth_min = 320\nfill = 127"
OCR_REC: Final = (
    "# A picture of one line of text, and what it says.\n[batching]\nmax_batch = 8\n\n"
    + _LETTERS
    + _SMALL.format(size=_REC_SIZE)
    + """[[post]]
step = "ctc"
input = "softmax_11.tmp_0"

[[post]]
step = "lines"
boxes = ""
"""
)

OCR: Final = """# A picture in, the lines of text in it out: find them, set them upright, read them.
engine = "ensemble"

[[inputs]]
name = "image"
datatype = "UINT8"
shape = [-1, -1, 3]

[[outputs]]
name = "boxes"
datatype = "FP32"
shape = [-1, 4, 2]

[[outputs]]
name = "text"
datatype = "BYTES"
shape = [-1]

[[outputs]]
name = "score"
datatype = "FP32"
shape = [-1]

[[pre]]
step = "image"
mode = "bgr"

[[post]]
step = "lines"

[[stage]]
model = "ocr-det"
before = [
    {step = "resize", mode = "multiple-of", side_min = 736, side_max = 2016, output = "small"},
    {step = "normalise", mean = [0.5], std = [0.5], input = "small", output = "x"},
]
after = [{step = "boxes", input = "sigmoid_0.tmp_0"}, {step = "crops"}]

[[stage]]
model = "ocr-cls"
for_each = "crops"
after = [{step = "turn", input = "element", scores = "save_infer_model/scale_0.tmp_1"}]
collect = {crops = "element"}

[[stage.before]]
step = "resize"
mode = "letterbox"
width = 192
height = 48
fill = 127
input = "element"
output = "small"

[[stage.before]]
step = "normalise"
mean = [0.5]
std = [0.5]
input = "small"
output = "x"

[[stage]]
model = "ocr-rec"
for_each = "crops"
after = [{step = "ctc", input = "softmax_11.tmp_0"}]
join = {text = "text", score = "score"}

[[stage.before]]
step = "resize"
mode = "letterbox"
width = 3200
height = 48
fit = true
multiple = 160
width_min = 320
fill = 127
input = "element"
output = "small"

[[stage.before]]
step = "normalise"
mean = [0.5]
std = [0.5]
input = "small"
output = "x"
"""

CO2_FORECAST: Final = """# Two years of weeks or more in, the year that follows out.
[[pre]]
step = "csv"
columns = ["co2"]
index = "date"
missing = "interpolate"

[[pre]]
step = "window"
input = "co2"
output = "series"
size = 104
each = "last"

[[post]]
step = "forecast"
input = "forecast"
"""
