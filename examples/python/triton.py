"""Asks the model `half` with Triton's client, over HTTP and gRPC: pip install 'tritonclient[http,grpc]'."""

import os

import numpy as np
import tritonclient.grpc
import tritonclient.http

http_address = os.environ.get("TIDEMILL_URL", "http://127.0.0.1:8000").partition("://")[2]
grpc_address = os.environ.get("GRPC_ADDRESS", "127.0.0.1:8001")
key = os.environ.get("TIDEMILL_KEY")
headers = {"authorization": f"Bearer {key}"} if key else {}
values = np.array([1.0, 2.0], np.float32)

for library, address in ((tritonclient.http, http_address), (tritonclient.grpc, grpc_address)):
    with library.InferenceServerClient(address) as client:
        asked = library.InferInput("input", list(values.shape), "FP32")
        asked.set_data_from_numpy(values)
        answer = client.infer("half", [asked], headers=dict(headers))  # a copy: the client writes into it
        print(answer.as_numpy("output").tolist())
