#!/usr/bin/env bash
# Asks the model `half` over REST, in both dialects, with nothing but curl.
# TIDEMILL_URL is where the service is, TIDEMILL_KEY a key where it wants one.
set -euo pipefail

url=${TIDEMILL_URL:-http://127.0.0.1:8000}
headers=(-H 'Content-Type: application/json')
if [ -n "${TIDEMILL_KEY:-}" ]; then
  headers+=(-H "Authorization: Bearer $TIDEMILL_KEY")
fi

ask() { # PATH BODY: the answer; what the service says of an error, and exit code 22
  curl --silent --show-error --fail-with-body --max-time 10 "${headers[@]}" "$url$1" --data "$2"
  echo
}

ask /v1/models/half:predict '{"instances": [1.0, 2.0]}'
ask /v2/models/half/infer '{"inputs": [{"name": "input", "datatype": "FP32", "shape": [2], "data": [1.0, 2.0]}]}'
