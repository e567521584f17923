"""Asks the model `half` over REST in both dialects: pip install httpx."""

import os

import httpx

url = os.environ.get("TIDEMILL_URL", "http://127.0.0.1:8000")
key = os.environ.get("TIDEMILL_KEY")
headers = {"authorization": f"Bearer {key}"} if key else {}

with httpx.Client(base_url=url, headers=headers, timeout=10) as client:  # one client: its connection is used again
    answer = client.post("/v1/models/half:predict", json={"instances": [1.0, 2.0]})
    answer.raise_for_status()
    print(answer.json()["predictions"])

    tensor = {"name": "input", "datatype": "FP32", "shape": [2], "data": [1.0, 2.0]}
    answer = client.post("/v2/models/half/infer", json={"inputs": [tensor]})
    answer.raise_for_status()
    print(answer.json()["outputs"][0]["data"])

    answer = client.post("/v1/models/halve:predict", json={"instances": [1.0]})
    print(answer.status_code, answer.json()["code"])  # the code stays, the message may change
