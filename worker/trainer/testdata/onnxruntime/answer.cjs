// Answers requests, a line of JSON each, with onnxruntime: {model, input, shape} names an ONNX file and a file
// of little-endian float32 values; the answer has the logits, the file's inputs and outputs.
const fs = require('node:fs');
const readline = require('node:readline');
const ort = require('onnxruntime-node');

async function answer({ model, input, shape }) {
  const session = await ort.InferenceSession.create(model, { intraOpNumThreads: 1, logSeverityLevel: 3 });
  const raw = fs.readFileSync(input);
  const values = new Float32Array(raw.buffer, raw.byteOffset, raw.length / 4);
  const feeds = { [session.inputNames[0]]: new ort.Tensor('float32', values, shape) };
  const out = (await session.run(feeds))[session.outputNames[0]];
  const result = { inputs: session.inputNames, outputs: session.outputNames, shape: out.dims, logits: Array.from(out.data) };
  await session.release();
  return result;
}

(async () => {
  for await (const line of readline.createInterface({ input: process.stdin })) {
    let result;
    try {
      result = await answer(JSON.parse(line));
    } catch (e) {
      result = { error: String(e) };
    }
    process.stdout.write(JSON.stringify(result) + '\n');
  }
})();
