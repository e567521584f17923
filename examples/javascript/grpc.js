// Asks the model `half` over gRPC, TensorFlow Serving's and V2's: npm install, then node grpc.js

import { fileURLToPath } from "node:url";
import grpc from "@grpc/grpc-js";
import protoLoader from "@grpc/proto-loader";

const address = process.env.GRPC_ADDRESS ?? "127.0.0.1:8001";
const protos = protoLoader.loadSync(["prediction_service.proto", "inference.proto"], {
  includeDirs: [fileURLToPath(new URL("../proto", import.meta.url))],
  keepCase: true,
  longs: Number,
  enums: String,
});
const { tensorflow, inference } = grpc.loadPackageDefinition(protos);

const metadata = new grpc.Metadata();
if (process.env.TIDEMILL_KEY) metadata.set("authorization", `Bearer ${process.env.TIDEMILL_KEY}`);

function call(client, method, request) {
  return new Promise((resolve, reject) => {
    const options = { deadline: Date.now() + 10_000 };
    client[method](request, metadata, options, (error, answer) => (error ? reject(error) : resolve(answer)));
  });
}

const credentials = grpc.credentials.createInsecure();
const prediction = new tensorflow.serving.PredictionService(address, credentials);
const predicted = await call(prediction, "Predict", {
  model_spec: { name: "half" },
  inputs: { input: { dtype: "DT_FLOAT", tensor_shape: { dim: [{ size: 2 }] }, float_val: [1.0, 2.0] } },
});
console.log(predicted.outputs.output.float_val);

const service = new inference.GRPCInferenceService(address, credentials);
const values = new Float32Array([1.0, 2.0]); // little-endian on every machine that Node runs on
const inferred = await call(service, "ModelInfer", {
  model_name: "half",
  inputs: [{ name: "input", datatype: "FP32", shape: [2] }],
  raw_input_contents: [Buffer.from(values.buffer)],
});
const raw = inferred.raw_output_contents[0];
console.log(Array.from({ length: raw.length / 4 }, (_, place) => raw.readFloatLE(4 * place)));

try {
  await call(service, "ModelInfer", { model_name: "halve" });
} catch (error) {
  console.log(grpc.status[error.code], error.metadata.get("tidemill-code")[0]);
}
prediction.close();
service.close();
