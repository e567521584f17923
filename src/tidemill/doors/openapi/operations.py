"""Every address of the REST doors and what is said there, in one table; a test holds it against the routes."""

from __future__ import annotations

from tidemill.doors.openapi.document import EVENTS, JSON, MULTIPART, Operation

V2, TFS, OPENAI = "KServe V2", "TensorFlow Serving", "OpenAI"
ADMIN, OPERATION = "admin", "operation"
PLAIN = "text/plain"
STREAMED = f"{JSON},{EVENTS}"
"""Whole, or as events where the body says so."""
RAW = ("image/png", "image/jpeg", "audio/wav", "text/csv", "text/plain", "application/octet-stream")
"""What models with steps read; each model reads some of these."""


def _versioned(method: str, path: str, tag: str, summary: str, **more: object) -> list[Operation]:
    """At a model's address and at that of each version: `path` holds `*` where the version goes."""
    return [
        Operation(method, path.replace("*", ""), tag, summary, **more),  # type: ignore[arg-type]
        Operation(method, path.replace("*", "/versions/{version}"), tag, f"{summary}, of one version", **more),  # type: ignore[arg-type]
    ]


def _labelled(method: str, path: str, tag: str, summary: str, **more: object) -> list[Operation]:
    """At a label's address too, as TensorFlow Serving has it."""
    labelled = Operation(method, path.replace("*", "/labels/{label}"), tag, f"{summary}, by label", **more)  # type: ignore[arg-type]
    return [*_versioned(method, path, tag, summary, **more), labelled]


def _openai(path: str, summary: str, reply: str, body: str, media: str = JSON) -> Operation:
    return Operation("POST", path, OPENAI, summary, reply, body, media, refusal="OpenAIError")


def _kept(method: str, path: str, summary: str, reply: str = "", **more: object) -> Operation:
    return Operation(method, path, OPENAI, summary, reply, refusal="OpenAIError", **more)  # type: ignore[arg-type]


OPERATIONS: tuple[Operation, ...] = (
    Operation("GET", "/v2", V2, "What this server is", "ServerMetadata", key=False),
    Operation("GET", "/v2/health/live", V2, "Whether it lives", "Live", key=False),
    Operation("GET", "/v2/health/ready", V2, "Whether it takes traffic", "Ready", key=False, unready=True),
    *_versioned("GET", "/v2/models/{name}*", V2, "A model's inputs and outputs", reply="ModelMetadata"),
    *_versioned("GET", "/v2/models/{name}*/ready", V2, "Whether a model serves", reply="Ready"),
    *_versioned("GET", "/v2/models/{name}*/config", V2, "A model's configuration in force", reply="ModelConfig"),
    *_versioned("GET", "/v2/models/{name}*/stats", V2, "What was counted of a model", reply="Statistics"),
    Operation("GET", "/v2/models/stats", V2, "What was counted of every model", "Statistics"),
    Operation("POST", "/v2/repository/index", V2, "Every version that is known", "Index", "IndexRequest"),
    Operation("POST", "/v2/repository/models/{name}/load", V2, "Load a model, or again", "", "RepositoryRequest", ""),
    Operation("POST", "/v2/repository/models/{name}/unload", V2, "Unload a model", "", "RepositoryRequest", ""),
    *_versioned("POST", "/v2/models/{name}*/infer", V2, "Ask a model", reply="InferResponse", body="InferRequest"),
    *_versioned(
        "POST", "/v2/models/{name}*/generate", V2, "Have a text written", reply="Generated", body="GenerateRequest"
    ),
    *_versioned(
        "POST",
        "/v2/models/{name}*/generate_stream",
        V2,
        "Have a text written, word by word",
        media=EVENTS,
        body="GenerateRequest",
    ),
    _openai("/v1/chat/completions", "Answer a chat", "ChatCompletion", "ChatRequest", STREAMED),
    _openai("/v1/completions", "Write after a prompt", "Completion", "CompletionRequest", STREAMED),
    _openai("/v1/responses", "Answer a chat, as a response", "Response", "ResponseRequest", STREAMED),
    _openai("/v1/embeddings", "Embed texts", "Embeddings", "EmbeddingRequest"),
    _openai("/v1/tokenize", "Tell the tokens of a text or chat", "Tokens", "TokenizeRequest"),
    _openai("/v1/detokenize", "Tell the text of tokens", "Prompt", "DetokenizeRequest"),
    _kept("POST", "/v1/files", "Bring a file for a batch", "File", sends=(MULTIPART,)),
    _kept("GET", "/v1/files", "The files, newest first", "List", query=("after", "limit", "order", "purpose")),
    _kept("GET", "/v1/files/{file_id}", "What a file is", "File"),
    _kept("GET", "/v1/files/{file_id}/content", "What a file holds", media="application/octet-stream"),
    _kept("DELETE", "/v1/files/{file_id}", "Delete a file", "Deleted"),
    _kept("POST", "/v1/batches", "Have a file of requests answered", "Batch", body="BatchRequest"),
    _kept("GET", "/v1/batches", "The batches, newest first", "List", query=("after", "limit")),
    _kept("GET", "/v1/batches/{batch_id}", "How far a batch is", "Batch"),
    _kept("POST", "/v1/batches/{batch_id}/cancel", "Begin no further line of a batch", "Batch"),
    Operation("GET", "/v1/models", TFS, "The models that can be asked, as OpenAI lists them", "ModelList"),
    *_labelled("GET", "/v1/models/{name}*", TFS, "A model's versions and their states", reply="ModelStatus"),
    *_labelled("GET", "/v1/models/{name}*/metadata", TFS, "A model's signature", reply="SignatureMetadata"),
    *_labelled(
        "POST",
        "/v1/models/{name}*:predict",
        TFS,
        "Predict",
        reply="PredictResponse",
        body="PredictRequest",
        sends=RAW,
    ),
    *_labelled(
        "POST", "/v1/models/{name}*:classify", TFS, "Classify", reply="ClassifyResponse", body="ExamplesRequest"
    ),
    *_labelled("POST", "/v1/models/{name}*:regress", TFS, "Regress", reply="RegressResponse", body="ExamplesRequest"),
    Operation("GET", "/healthz", OPERATION, "Whether the process answers", "Health", key=False),
    Operation("GET", "/readyz", OPERATION, "Whether it takes traffic, and why not", "Health", key=False, unready=True),
    Operation("GET", "/metrics", OPERATION, "Prometheus' text", media=PLAIN, key=False),
    Operation("GET", "/admin/v1/overview", ADMIN, "What runs", "Overview"),
    Operation("GET", "/admin/v1/models", ADMIN, "The models, their versions, policies and labels", "Models"),
    Operation("POST", "/admin/v1/models/{name}/load", ADMIN, "Load a model, or again", "ModelTold"),
    Operation("POST", "/admin/v1/models/{name}/unload", ADMIN, "Unload a model", "ModelTold"),
    Operation(
        "PUT", "/admin/v1/models/{name}/labels/{label}", ADMIN, "Move a label to a version", "Label", body="Pointing"
    ),
    Operation("GET", "/admin/v1/usage", ADMIN, "What was used", "Usage", query=("tenant", "since_ms")),
    Operation("GET", "/admin/v1/batches", ADMIN, "The newest batches of every tenant", "Jobs"),
    Operation("GET", "/admin/v1/lineage", ADMIN, "Where models come from", "Lineage"),
    Operation(
        "GET",
        "/admin/v1/lineage/{name}/{version}/{file}",
        ADMIN,
        "The report of a compressed model",
        media="text/html,application/json,image/png",
    ),
    Operation(
        "POST",
        "/admin/v1/models/{name}/try",
        ADMIN,
        "Predict, for the console",
        "PredictResponse",
        "PredictRequest",
        query=("version",),
    ),
    Operation(
        "POST",
        "/admin/v1/models/{name}/chat",
        ADMIN,
        "Answer a chat, for the console",
        "ChatCompletion",
        "ChatRequest",
        STREAMED,
        query=("version",),
    ),
    Operation("GET", "/admin/v1/keys", ADMIN, "The keys, without their secrets", "Keys"),
    Operation("POST", "/admin/v1/keys", ADMIN, "Make a key", "Key", body="KeyWish", status=201),
    Operation("DELETE", "/admin/v1/keys/{key_id}", ADMIN, "Revoke a key", "Revoked"),
)
