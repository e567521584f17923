// Asks the model `half` over REST in both dialects, with nothing but Node's own fetch (18 and later; browsers alike).

const url = process.env.TIDEMILL_URL ?? "http://127.0.0.1:8000";
const key = process.env.TIDEMILL_KEY;

async function ask(path, body) {
  const answer = await fetch(url + path, {
    method: "POST",
    headers: { "content-type": "application/json", ...(key ? { authorization: `Bearer ${key}` } : {}) },
    body: JSON.stringify(body),
    signal: AbortSignal.timeout(10_000),
  });
  const told = await answer.json();
  if (!answer.ok) {
    // The code stays as it is from version to version, the message may change.
    throw Object.assign(new Error(told.error), { status: answer.status, code: told.code });
  }
  return told;
}

console.log((await ask("/v1/models/half:predict", { instances: [1.0, 2.0] })).predictions);

const tensor = { name: "input", datatype: "FP32", shape: [2], data: [1.0, 2.0] };
console.log((await ask("/v2/models/half/infer", { inputs: [tensor] })).outputs[0].data);

try {
  await ask("/v1/models/halve:predict", { instances: [1.0] });
} catch (error) {
  console.log(error.status, error.code);
}
