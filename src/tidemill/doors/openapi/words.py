"""The shapes of what language models are asked and say; plain values, used in the owner process."""

from __future__ import annotations

from tidemill.doors.openapi.basics import ANY, FLAG, NUMBER, TEXT, WHOLE, Schema, items, record

OBJECT: Schema = {"type": "object"}
NULLABLE: Schema = {"type": ["string", "null"]}
STRINGS = items(TEXT)
TOKENS = items({"type": "integer", "minimum": 0})
USAGE = record({"prompt_tokens": WHOLE, "total_tokens": WHOLE}, {"completion_tokens": WHOLE})
SAMPLING: dict[str, Schema] = {
    "max_tokens": {"type": "integer", "minimum": 1},
    "temperature": {"type": "number", "minimum": 0, "maximum": 2},
    "top_p": {"type": "number", "minimum": 0, "maximum": 1},
    "top_k": {"type": "integer", "minimum": -1},
    "min_p": {"type": "number", "minimum": 0, "maximum": 1},
    "presence_penalty": {"type": "number", "minimum": -2, "maximum": 2},
    "frequency_penalty": {"type": "number", "minimum": -2, "maximum": 2},
    "repetition_penalty": {"type": "number", "exclusiveMinimum": 0, "maximum": 10},
    "seed": WHOLE,
    "stop": {"anyOf": [TEXT, items(TEXT, maxItems=4)]},
    "logit_bias": OBJECT,
    "ignore_eos": FLAG,
}
STREAM: dict[str, Schema] = {"stream": FLAG, "stream_options": record({}, {"include_usage": FLAG})}
COMMON: dict[str, Schema] = {"user": TEXT, "metadata": OBJECT, "store": FLAG}
TOOLS: dict[str, Schema] = {"tools": items(OBJECT, maxItems=128), "tool_choice": ANY, "parallel_tool_calls": FLAG}
CONTENT: Schema = {"anyOf": [TEXT, items(record({"type": TEXT, "text": TEXT})), {"type": "null"}]}
MESSAGE = record(
    {"role": {"enum": ["system", "developer", "user", "assistant", "tool"]}},
    {"content": CONTENT, "name": TEXT, "tool_calls": items(OBJECT), "tool_call_id": TEXT},
)
TEXTS: Schema = {"anyOf": [TEXT, STRINGS, TOKENS, items(TOKENS)]}

WORDS: dict[str, Schema] = {
    "OpenAIError": record(
        {"error": record({"message": TEXT, "type": TEXT, "param": NULLABLE, "code": NULLABLE}), "code": TEXT}
    ),
    "ChatRequest": record(
        {"model": TEXT, "messages": items(MESSAGE, minItems=1)},
        {
            **SAMPLING,
            "max_completion_tokens": SAMPLING["max_tokens"],
            "n": {"type": "integer", "minimum": 1},
            "logprobs": FLAG,
            "top_logprobs": WHOLE,
            "response_format": OBJECT,
            **TOOLS,
            **STREAM,
            **COMMON,
        },
    ),
    "ChatCompletion": record(
        {
            "id": TEXT,
            "object": {"const": "chat.completion"},
            "created": WHOLE,
            "model": TEXT,
            "choices": items(record({"index": WHOLE, "message": OBJECT, "finish_reason": TEXT})),
            "usage": USAGE,
        }
    ),
    "CompletionRequest": record(
        {"model": TEXT, "prompt": TEXTS},
        {
            **SAMPLING,
            "n": {"type": "integer", "minimum": 1},
            "best_of": WHOLE,
            "echo": FLAG,
            "logprobs": WHOLE,
            **STREAM,
            **COMMON,
        },
    ),
    "Completion": record(
        {
            "id": TEXT,
            "object": {"const": "text_completion"},
            "created": WHOLE,
            "model": TEXT,
            "choices": items(record({"index": WHOLE, "text": TEXT, "finish_reason": TEXT})),
            "usage": USAGE,
        }
    ),
    "ResponseRequest": record(
        {"model": TEXT, "input": {"anyOf": [TEXT, items(OBJECT, minItems=1)]}},
        {
            "instructions": TEXT,
            "max_output_tokens": SAMPLING["max_tokens"],
            "temperature": SAMPLING["temperature"],
            "top_p": SAMPLING["top_p"],
            "text": OBJECT,
            **TOOLS,
            "stream": FLAG,
            **COMMON,
        },
    ),
    "Response": record(
        {
            "id": TEXT,
            "object": {"const": "response"},
            "created_at": WHOLE,
            "status": TEXT,
            "model": TEXT,
            "output": items(OBJECT),
            "usage": OBJECT,
        }
    ),
    "EmbeddingRequest": record(
        {"model": TEXT, "input": TEXTS},
        {
            "encoding_format": {"enum": ["float", "base64"]},
            "dimensions": {"type": "integer", "minimum": 1},
            "user": TEXT,
        },
    ),
    "Embeddings": record(
        {
            "object": {"const": "list"},
            "model": TEXT,
            "data": items(record({"index": WHOLE, "embedding": {"anyOf": [items(NUMBER), TEXT]}})),
            "usage": USAGE,
        }
    ),
    "File": record(
        {
            "id": TEXT,
            "object": {"const": "file"},
            "bytes": WHOLE,
            "created_at": WHOLE,
            "filename": TEXT,
            "purpose": {"enum": ["batch", "batch_output"]},
        }
    ),
    "Deleted": record({"id": TEXT, "deleted": FLAG}),
    "List": record({"object": {"const": "list"}, "data": items(OBJECT), "has_more": FLAG}),
    "BatchRequest": record(
        {
            "input_file_id": TEXT,
            "endpoint": {"enum": ["/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses"]},
            "completion_window": {"type": "string", "pattern": "^[0-9]{1,9}[smhd]$"},
        },
        {"metadata": OBJECT},
    ),
    "Batch": record(
        {
            "id": TEXT,
            "object": {"const": "batch"},
            "endpoint": TEXT,
            "input_file_id": TEXT,
            "completion_window": TEXT,
            "status": {
                "enum": [
                    "validating",
                    "in_progress",
                    "finalizing",
                    "completed",
                    "failed",
                    "cancelling",
                    "cancelled",
                    "expired",
                ]
            },
            "created_at": WHOLE,
            "expires_at": WHOLE,
            "request_counts": record({"total": WHOLE, "completed": WHOLE, "failed": WHOLE}),
        }
    ),
    "TokenizeRequest": record(
        {"model": TEXT}, {"prompt": TEXT, "messages": items(MESSAGE), "add_special_tokens": FLAG}
    ),
    "Tokens": record({"count": WHOLE, "max_model_len": WHOLE, "tokens": TOKENS}),
    "DetokenizeRequest": record({"model": TEXT, "tokens": TOKENS}),
    "Prompt": record({"prompt": TEXT}),
    "GenerateRequest": record({"text_input": TEXT}, {"id": TEXT, "parameters": record({}, SAMPLING)}),
    "Generated": record(
        {"model_name": TEXT, "model_version": TEXT, "text_output": TEXT, "finish_reason": TEXT},
        {"id": TEXT, "prompt_tokens": WHOLE, "completion_tokens": WHOLE},
    ),
}
