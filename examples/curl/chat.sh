#!/usr/bin/env bash
# Has the model `smollm2` answer word by word, with nothing but curl: one line `data: {...}` for each part, then [DONE].
# TIDEMILL_URL is where the service is, TIDEMILL_KEY a key where it wants one.
set -euo pipefail

url=${TIDEMILL_URL:-http://127.0.0.1:8000}
headers=(-H 'Content-Type: application/json')
if [ -n "${TIDEMILL_KEY:-}" ]; then
  headers+=(-H "Authorization: Bearer $TIDEMILL_KEY")
fi

curl --no-buffer --silent --show-error --fail-with-body --max-time 60 "${headers[@]}" "$url/v1/chat/completions" --data '{
  "model": "smollm2",
  "messages": [{"role": "user", "content": "What is the capital of France?"}],
  "temperature": 0,
  "stream": true,
  "stream_options": {"include_usage": true}
}'
