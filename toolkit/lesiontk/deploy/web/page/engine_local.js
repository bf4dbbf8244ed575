/** Inference on this device: LiteRT.js runs the bundle's .tflite file on WebAssembly. */

import { PictureError } from "./container.js";
import { areProbabilities, decide } from "./decision.js";
import { checkInput, loadChecks } from "./input_checks.js";
import { decodePicture } from "./picture.js";
import { cropAndResize } from "./resize.js";
import { runSelfTest } from "./self_test.js";

/** @typedef {import("./engine.js").Answer} Answer */
/** @typedef {import("./engine.js").Bundle} Bundle */
/** @typedef {import("./engine.js").Engine} Engine */
/** @typedef {import("./input_checks.js").Signals} Signals */
/** @typedef {(input: Uint8Array<ArrayBuffer>) => Promise<Signals>} Infer */
/** @typedef {(input: Uint8Array, shorterSide: number, signals: Signals) => any} Check */

/** @param {Bundle} bundle @returns {Promise<Engine>} */
export async function openLocalEngine(bundle) {
  const { infer, threads } = await loadModel(bundle);
  const { image_size: size, crop_mode: cropMode } = bundle.preprocessing;

  const checks = bundle.input_checks ? await loadChecks() : null;
  /** @type {Check | null} */
  const check = checks && ((...parts) => checkInput(checks, ...parts));

  /** @param {Blob} file */
  const prepare = async (file) => {
    const pixels = await decodePicture(file);
    const shorterSide = Math.min(pixels.width, pixels.height);
    return { input: cropAndResize(pixels, size, cropMode), shorterSide };
  };

  return {
    place: `on this device, ${threads === 1 ? "1 thread" : `${threads} threads`}`,
    selfTest: (onProgress) => runSelfTest(bundle, prepare, infer, check, onProgress),
    async predict(file, image) {
      /** @type {Answer} */
      const answer = {
        bundle: bundle.name,
        engine_sha256: bundle.engine.content_sha256,
        research_override: bundle.research_override,
        labels: bundle.labels,
        operating_point: bundle.operating_point,
        predictions: [],
        failures: [],
        notice: bundle.notice,
      };
      try {
        const { input, shorterSide } = await prepare(file);
        const signals = await infer(input);
        const values = signals.probabilities;
        if (values.length !== bundle.labels.length || !areProbabilities(values)) {
          throw new Error(
            `The engine returns ${Array.from(values)}; expected ${bundle.labels.length} ` +
              "probabilities that sum to 1. Run the self-test.",
          );
        }
        const { labels, operating_point: point, temperature } = bundle;
        const prediction = { image, ...decide(values, labels, point, temperature) };
        const verdict = check && { input: check(input, shorterSide, signals) };
        answer.predictions.push({ ...prediction, ...verdict });
      } catch (error) {
        if (!(error instanceof PictureError)) throw error;
        answer.failures.push({ image, message: error.message, reason: error.reason });
      }
      return answer;
    },
  };
}

/**
 * Threads need shared memory, which browsers give to pages that are served with COOP and COEP
 * headers.
 *
 * @param {Bundle} bundle
 * @returns {Promise<{infer: Infer, threads: number}>}
 */
async function loadModel(bundle) {
  const { loadAndCompile, loadLiteRt, supportsFeature, Tensor } = await import("@litertjs/core");
  const canShare = crossOriginIsolated && (await supportsFeature("relaxedSimd"));
  const threads = canShare ? Math.min(4, navigator.hardwareConcurrency || 1) : 1;
  // The path must be absolute: scripts are loaded relative to the page, workers to the script.
  const runtime = new URL("runtime/core/wasm/", document.baseURI);
  await loadLiteRt(/** @type {any} */ (runtime.href), { threads: threads > 1 });
  const response = await fetch(bundle.engine.file);
  if (!response.ok) throw new Error(`${bundle.engine.file} cannot be loaded.`);
  const model = await loadAndCompile(new Uint8Array(await response.arrayBuffer()), {
    accelerator: "wasm",
    cpuOptions: { numThreads: threads },
  });
  const shape = Array.from(model.getInputDetails()[0].shape);

  /** @type {Infer} */
  const infer = async (input) => {
    const tensor = new Tensor(input, shape);
    try {
      const tensors = await model.run([tensor]);
      try {
        const copies = tensors.map(async (output) => Float32Array.from(await output.data(), Number));
        const [probabilities, features, logits] = await Promise.all(copies);
        return { probabilities, features, logits };
      } finally {
        tensors.forEach((output) => output.delete());
      }
    } finally {
      tensor.delete();
    }
  };
  return { infer, threads };
}
