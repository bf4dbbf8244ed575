/** Compares this device's answers to the bundle's golden images with the desktop engine's. */

import { areProbabilities } from "./decision.js";
import { sha256 } from "./digest.js";
import { STATUSES } from "./input_checks.js";

/** @typedef {import("./engine.js").Bundle} Bundle */
/** @typedef {import("./engine.js").Findings} Findings */

/**
 * @param {Bundle} bundle
 * @param {(file: Blob) => Promise<{input: Uint8Array<ArrayBuffer>}>} prepare
 * @param {import("./engine_local.js").Infer} infer
 * @param {import("./engine_local.js").Check | null} check
 * @param {(done: number, all: number) => void} onProgress
 * @returns {Promise<Findings>}
 */
export async function runSelfTest(bundle, prepare, infer, check, onProgress) {
  if (!bundle.web) throw new Error("bundle.json has no entry web; expected a web bundle.");
  const differ = [];
  for (const [name, expected] of Object.entries(bundle.golden.pictures)) {
    const { input } = await prepare(await (await fetch(name)).blob());
    if ((await sha256(input)) !== expected) differ.push(name);
  }

  const packed = (await fetch(bundle.web.golden_images)).body;
  if (!packed) throw new Error(`${bundle.web.golden_images} is empty.`);
  const unpacked = packed.pipeThrough(new DecompressionStream("deflate"));
  const images = new Uint8Array(await new Response(unpacked).arrayBuffer());
  const expected = new Float32Array(
    await (await fetch(bundle.web.golden_probabilities)).arrayBuffer(),
  );

  const statuses = check && bundle.web.golden_statuses;
  const places = statuses && new Uint8Array(await (await fetch(statuses)).arrayBuffer());

  const classes = bundle.labels.length;
  const n = expected.length / classes;
  const bytes = images.length / n;
  let [agreeing, drift, valid, judged] = [0, 0, true, 0];
  for (let at = 0; at < n; at++) {
    const input = images.slice(at * bytes, (at + 1) * bytes);
    const signals = await infer(input);
    const received = signals.probabilities;
    const wanted = expected.subarray(at * classes, (at + 1) * classes);
    valid &&= areProbabilities(received);
    agreeing += Number(argmax(received) === argmax(wanted));
    wanted.forEach((value, column) => (drift += Math.abs(value - received[column])));
    if (check && places) {
      const { status } = check(input, bundle.preprocessing.image_size, signals);
      judged += Number(status === STATUSES[places[at]]);
    }
    onProgress(at + 1, n);
    if (at % 8 === 0) await new Promise((resolve) => setTimeout(resolve)); // let the page draw
  }

  const { min_agreement: least, max_mean_drift: most } = bundle.golden;
  const [agreement, mean_drift] = [agreeing / n, drift / expected.length];
  const status_agreement = places ? judged / n : 1;
  const as_expected =
    valid &&
    !differ.length &&
    agreement >= least &&
    status_agreement >= least &&
    mean_drift <= most;
  return { n, agreement, mean_drift, status_agreement, differ, as_expected };
}

/** @param {Float32Array} values */
const argmax = (values) => values.indexOf(Math.max(...values));
