"""Asks the model `half` over gRPC, TensorFlow Serving's and V2's, without TensorFlow: pip install grpcio-tools.

The .proto files are read at the start; `python -m grpc_tools.protoc` writes modules of them for those who want some.
"""

import os
import struct
import sys
from pathlib import Path

import grpc

sys.path.append(str(Path(__file__).parents[1] / "proto"))  # where grpc looks for .proto files
predict_pb2, predict_pb2_grpc = grpc.protos_and_services("prediction_service.proto")
tensorflow_pb2 = grpc.protos("tensorflow.proto")
inference_pb2, inference_pb2_grpc = grpc.protos_and_services("inference.proto")

address = os.environ.get("GRPC_ADDRESS", "127.0.0.1:8001")
key = os.environ.get("TIDEMILL_KEY")
metadata = [("authorization", f"Bearer {key}")] if key else []

with grpc.insecure_channel(address) as channel:
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "half"
    tensor = request.inputs["input"]
    tensor.dtype = tensorflow_pb2.DT_FLOAT
    tensor.tensor_shape.dim.add(size=2)
    tensor.float_val.extend([1.0, 2.0])
    stub = predict_pb2_grpc.PredictionServiceStub(channel)
    answer = stub.Predict(request, timeout=10, metadata=metadata)
    print(list(answer.outputs["output"].float_val))

    request = inference_pb2.ModelInferRequest(model_name="half")
    request.inputs.add(name="input", datatype="FP32", shape=[2])
    request.raw_input_contents.append(struct.pack("<2f", 1.0, 2.0))
    stub = inference_pb2_grpc.GRPCInferenceServiceStub(channel)
    answer = stub.ModelInfer(request, timeout=10, metadata=metadata)
    print(list(struct.unpack("<2f", answer.raw_output_contents[0])))

    try:
        stub.ModelInfer(inference_pb2.ModelInferRequest(model_name="halve"), timeout=10, metadata=metadata)
    except grpc.RpcError as error:
        print(error.code().name, dict(error.trailing_metadata())["tidemill-code"])
