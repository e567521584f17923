"""The JSON Schemas that the document names; plain values, used in the owner process.

They say what a caller may rely on: what a door reads more leniently than it says is not promised here.
"""

from __future__ import annotations

from tidemill.doors.openapi.basics import ANY, FLAG, NUMBER, TEXT, WHOLE, Schema, items, record, ref
from tidemill.doors.openapi.words import WORDS

DATATYPES = [
    "BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP16", "FP32", "FP64", "BF16",
    "BYTES",
]  # fmt: skip

PARAMETERS: Schema = {"type": "object"}
SHAPE = items({"type": "integer", "minimum": 0}, maxItems=32)
TENSOR = record({"name": TEXT, "shape": SHAPE, "datatype": {"enum": DATATYPES}}, {"parameters": PARAMETERS})

SHAPES: dict[str, Schema] = {
    "Error": record({"error": TEXT, "code": TEXT}, {"param": TEXT}),
    **WORDS,
    # KServe V2
    "InferInput": {**TENSOR, "properties": {**TENSOR["properties"], "data": items(ANY)}},
    "InferOutput": {**TENSOR, "properties": {**TENSOR["properties"], "data": items(ANY)}},
    "InferRequest": record(
        {"inputs": items(ref("InferInput"))},
        {
            "id": TEXT,
            "parameters": PARAMETERS,
            "outputs": items(record({"name": TEXT}, {"parameters": PARAMETERS})),
        },
    ),
    "InferResponse": record(
        {"model_name": TEXT, "model_version": TEXT, "outputs": items(ref("InferOutput"))},
        {"id": TEXT, "parameters": PARAMETERS},
    ),
    "TensorMetadata": record({"name": TEXT, "datatype": TEXT, "shape": items(WHOLE)}),
    "ModelMetadata": record(
        {
            "name": TEXT,
            "versions": items(TEXT),
            "platform": TEXT,
            "inputs": items(ref("TensorMetadata")),
            "outputs": items(ref("TensorMetadata")),
        }
    ),
    "ServerMetadata": record({"name": TEXT, "version": TEXT, "extensions": items(TEXT)}),
    "ModelConfig": record({"name": TEXT}),
    "Statistics": record({"model_stats": items(record({"name": TEXT, "version": TEXT}))}),
    "IndexRequest": record({}, {"ready": FLAG}),
    "Index": items(record({"name": TEXT}, {"version": TEXT, "state": TEXT, "reason": TEXT})),
    "RepositoryRequest": record({}, {"parameters": PARAMETERS}),
    "Live": record({"live": FLAG}),
    "Ready": record({"ready": FLAG}, {"reasons": items(TEXT), "name": TEXT}),
    # TensorFlow Serving
    "PredictRequest": {
        "type": "object",
        "properties": {"signature_name": TEXT, "instances": items(ANY), "inputs": ANY},
        "oneOf": [{"required": ["instances"]}, {"required": ["inputs"]}],
    },
    "PredictResponse": {
        "type": "object",
        "properties": {"predictions": ANY, "outputs": ANY},
        "oneOf": [{"required": ["predictions"]}, {"required": ["outputs"]}],
    },
    "ExamplesRequest": record(
        {"examples": items({"type": "object"})}, {"context": {"type": "object"}, "signature_name": TEXT}
    ),
    "ClassifyResponse": record({"results": items(items({"type": "array"}))}),
    "RegressResponse": record({"results": items(NUMBER)}),
    "ModelList": record({"object": {"const": "list"}, "data": items({"type": "object"})}),
    "ModelStatus": record(
        {
            "model_version_status": items(
                record(
                    {
                        "version": TEXT,
                        "state": {"enum": ["START", "LOADING", "AVAILABLE", "UNLOADING", "END"]},
                        "status": record({"error_code": TEXT, "error_message": TEXT}),
                    }
                )
            )
        },
        {"id": TEXT, "object": TEXT, "created": WHOLE, "owned_by": TEXT},
    ),
    "SignatureMetadata": record({"model_spec": record({"name": TEXT}), "metadata": {"type": "object"}}),
    # operation and administration
    "Health": record({"status": TEXT}, {"reasons": items(TEXT)}),
    "Overview": {"type": "object"},
    "Models": record({"models": items(ref("ModelTold"))}),
    "ModelTold": record(
        {
            "name": TEXT,
            "versions": items(record({"version": WHOLE, "state": TEXT, "reason": TEXT, "size_bytes": WHOLE})),
        },
        {"policy": TEXT, "labels": {"type": "object"}, "unloaded": FLAG, "aliases": items(TEXT)},
    ),
    "Pointing": record({"version": WHOLE}, closed=True),
    "Label": record({"name": TEXT, "label": TEXT, "version": WHOLE}),
    "Usage": record({"rows": items({"type": "object"})}),
    "Jobs": record(
        {
            "batches": items(
                record(
                    {"id": TEXT, "tenant": TEXT, "status": TEXT, "total": WHOLE, "completed": WHOLE, "failed": WHOLE}
                )
            )
        }
    ),
    "Lineage": record({"models": items({"type": "object"})}),
    "Keys": record({"keys": items({"type": "object"})}),
    "KeyWish": record({"tenant": TEXT}, {"label": TEXT, "admin": FLAG}, closed=True),
    "Key": {"type": "object"},
    "Revoked": record({"id": TEXT, "revoked": FLAG}),
}
