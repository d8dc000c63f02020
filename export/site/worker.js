// Runs the networks away from the page, so that it never stands still.

import * as ort from "./ort.wasm.bundle.min.mjs";
import { innerSize, letterboxed } from "./pixels.js";

ort.env.wasm.wasmPaths = { wasm: new URL("ort-wasm-simd-threaded.wasm", import.meta.url).href };
ort.env.wasm.numThreads = 1; // more need headers that few web servers send

let site;
let sessions = [];

async function load(description) {
  site = description;
  sessions = [];
  for (const model of site.models) {
    const options = { executionProviders: ["wasm"], graphOptimizationLevel: "all" };
    sessions.push(await ort.InferenceSession.create(new URL(model.file, import.meta.url).href, options));
  }
}

async function segment(rgba, size) {
  const pixels = letterboxed(rgba, size, site.size, site.fill);
  const tensor = new ort.Tensor("uint8", pixels, [1, ...site.size, 3]);
  const found = [];
  for (const session of sessions) {
    const began = performance.now();
    const output = await session.run({ [session.inputNames[0]]: tensor });
    const labels = output[session.outputNames[0]];
    found.push({ labels: Uint8Array.from(labels.data), ms: performance.now() - began });
  }
  return { found, pixels, inner: innerSize(size, site.size) };
}

self.onmessage = async ({ data }) => {
  try {
    const answer = data.site ? await load(data.site) : await segment(data.rgba, data.size);
    self.postMessage({ answer: answer ?? null });
  } catch (error) {
    self.postMessage({ error: String(error?.message ?? error) });
  }
};
