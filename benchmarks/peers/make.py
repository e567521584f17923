"""Lets another tool compress one model; run by `peers_compress.py` with the Python of .venvs/compress-peers.

usage: make.py JOB.json, with the function's name, its options, the model, the folder of the rows to learn from (a file
.npz a batch), the most rows, and the folder for what comes out: model.onnx or model.xml.
"""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

Feeds = dict[str, Any]

# These tools report their use to their makers unless they are told not to.
os.environ |= {"NNCF_CI": "1", "OLIVE_DISABLE_TELEMETRY": "1"}
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]


class Job:
    def __init__(self, told: dict[str, Any]) -> None:
        self.model = Path(told["model"])
        self.out = Path(told["out"])
        self.text = bool(told["text"])
        self.rows: int = told["rows"]
        self._learn = Path(told["learn"])

    def batches(self) -> Iterator[Feeds]:
        left = self.rows or sys.maxsize
        for file in sorted(self._learn.glob("*.npz")):
            if left <= 0:
                return
            with np.load(file, allow_pickle=False) as held:
                feeds = {name: held[name] for name in held.files}
            left -= len(next(iter(feeds.values())))
            yield feeds

    def alike(self) -> Iterator[Feeds]:
        """Those of the commonest shape: histograms are not taken over batches that differ."""
        found = list(self.batches())
        shapes = [tuple(array.shape for array in feeds.values()) for feeds in found]
        ((commonest, _),) = Counter(shapes).most_common(1)
        return (feeds for feeds, shape in zip(found, shapes, strict=True) if shape == commonest)

    def onnx(self) -> str:
        return str(self.out / "model.onnx")


# -- onnxruntime.quantization ------------------------------------------------------------------------------------------


def _prepared(job: Job) -> str:
    """By the tool's own pre-processing: the graph optimised, shapes inferred, but not those of free dimensions by the
    symbolic inference, which gives up on MiniLM's graph."""
    from onnxruntime.quantization.shape_inference import quant_pre_process

    path = str(job.out / "prepared.onnx")
    quant_pre_process(str(job.model), path, skip_symbolic_shape=True)
    return path


def ort_static(job: Job, method: str, per_channel: bool, ops: list[str] | None = None) -> None:
    from onnxruntime import quantization as tool

    class Reader(tool.CalibrationDataReader):  # type: ignore[misc,unused-ignore]
        def __init__(self) -> None:
            self._left = job.batches() if method == "MinMax" else job.alike()

        def get_next(self) -> Feeds | None:
            return next(self._left, None)

    extra: dict[str, Any] = {"MatMulConstBOnly": True} if ops else {}
    if method == "MinMax":
        extra["CalibMaxIntermediateOutputs"] = 8
    tool.quantize_static(
        _prepared(job), job.onnx(), Reader(), quant_format=tool.QuantFormat.QDQ, op_types_to_quantize=ops,
        per_channel=per_channel, activation_type=tool.QuantType.QUInt8, weight_type=tool.QuantType.QInt8,
        calibrate_method=tool.CalibrationMethod[method], extra_options=extra,
    )  # fmt: skip


def ort_dynamic(job: Job, per_channel: bool, fuse: bool = False) -> None:
    from onnxruntime import quantization as tool

    source = str(job.model)
    if fuse:
        from onnxruntime.transformers.optimizer import optimize_model

        source = str(job.out / "fused.onnx")
        optimize_model(str(job.model), "bert", num_heads=12, hidden_size=384).save_model_to_file(source)
    else:
        source = _prepared(job)
    # Shapes are not inferred through the fused operators, so the tool wants to be told what flows there: float32.
    extra = {"DefaultTensorType": 1} if fuse else {}
    tool.quantize_dynamic(
        source, job.onnx(), per_channel=per_channel, weight_type=tool.QuantType.QInt8, extra_options=extra
    )


def ort_nbits(job: Job, bits: int, block: int, hqq: bool = False) -> None:
    import onnx
    from onnxruntime.quantization import matmul_nbits_quantizer as tool

    model = onnx.load(str(job.model))
    tables, products = ("Gather",), ("MatMul",)
    axes = (("MatMul", 0), ("Gather", 1))
    made = tool.MatMulNBitsQuantizer(
        model, bits=bits, block_size=block, is_symmetric=False, accuracy_level=4,
        op_types_to_quantize=tables if hqq else (*products, *tables), quant_axes=axes,
    )  # fmt: skip
    if hqq:  # which knows no tables
        made.process()
        config = tool.HQQWeightOnlyQuantConfig(block_size=block, bits=bits, op_types_to_quantize=products)
        made = tool.MatMulNBitsQuantizer(made.model.model, accuracy_level=4, algo_config=config)
    made.process()
    if hqq:  # its nodes come without the level, and compute in float32 then
        for node in made.model.model.graph.node:
            if node.op_type == "MatMulNBits" and not any(each.name == "accuracy_level" for each in node.attribute):
                node.attribute.append(onnx.helper.make_attribute("accuracy_level", 4))
    made.model.save_model_to_file(job.onnx(), False)


# -- NNCF and OpenVINO -------------------------------------------------------------------------------------------------


def openvino_ir(job: Job, float16: bool) -> None:
    import openvino as ov

    ov.save_model(ov.convert_model(str(job.model)), str(job.out / "model.xml"), compress_to_fp16=float16)


def nncf_int8(job: Job, onnx: bool = False, fast: bool = True) -> None:
    import nncf  # type: ignore[import-not-found,unused-ignore]

    count = sum(1 for _ in job.batches())
    options: dict[str, Any] = {"subset_size": count, "fast_bias_correction": fast}
    if job.text:
        options["model_type"] = nncf.ModelType.TRANSFORMER
    rows = nncf.Dataset(list(job.batches()))
    if onnx:
        from onnx import load, save

        save(nncf.quantize(load(str(job.model)), rows, **options), job.onnx())
        return
    import openvino as ov

    _save(job, nncf.quantize(ov.Core().read_model(str(job.model)), rows, **options))


def nncf_weights(job: Job, mode: str, group: int = 0, all_layers: bool = False, learn: list[str] | None = None) -> None:
    import nncf
    import openvino as ov

    options: dict[str, Any] = {"mode": nncf.CompressWeightsMode[mode]}
    if group:
        options |= {"group_size": group, "ratio": 1.0, "all_layers": all_layers}
    if learn:
        batches = list(job.batches())
        options |= {"dataset": nncf.Dataset(batches), "subset_size": len(batches), **dict.fromkeys(learn, True)}
    _save(job, nncf.compress_weights(ov.Core().read_model(str(job.model)), **options))


def _save(job: Job, model: Any) -> None:
    import openvino as ov

    # Halving what is left in float32 is the tool's own default when a model is saved.
    ov.save_model(model, str(job.out / "model.xml"), compress_to_fp16=True)


# -- Olive -------------------------------------------------------------------------------------------------------------


def olive_pass(job: Job, data: bool = False, **config: Any) -> None:
    import olive  # type: ignore[import-not-found,unused-ignore]
    from olive.data.registry import Registry  # type: ignore[import-not-found,unused-ignore]

    told: dict[str, Any] = {
        "input_model": {"type": "ONNXModel", "model_path": str(job.model)},
        "passes": {"only": dict(config)},
        "output_dir": str(job.out / "olive"),
        "cache_dir": str(job.out / "cache"),
    }
    if data:

        @Registry.register_dataset("learned_from")  # type: ignore[untyped-decorator,unused-ignore]
        def learned_from(**_: Any) -> list[tuple[Feeds, int]]:
            return [(feeds, 0) for feeds in job.batches()]

        told["data_configs"] = [
            {
                "name": "rows",
                "type": "DataContainer",
                "load_dataset_config": {"type": "learned_from"},
                "pre_process_data_config": {"type": "skip_pre_process"},
                "post_process_data_config": {"type": "skip_post_process"},
                "dataloader_config": {"type": "no_auto_batch_dataloader"},
            }
        ]
        told["passes"]["only"]["data_config"] = "rows"
    olive.run(told)
    (made,) = (job.out / "olive").rglob("*.onnx")
    for file in made.parent.iterdir():
        if file.suffix in {".onnx", ".data"}:
            file.rename(job.out / ("model.onnx" if file == made else file.name))


FUNCTIONS: dict[str, Callable[..., None]] = {
    each.__name__: each
    for each in (ort_static, ort_dynamic, ort_nbits, openvino_ir, nncf_int8, nncf_weights, olive_pass)
}


def main() -> None:
    told = json.loads(Path(sys.argv[1]).read_text("utf-8"))
    FUNCTIONS[told["function"]](Job(told), **told["options"])


if __name__ == "__main__":
    main()
