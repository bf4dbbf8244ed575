/** Whether a picture is good enough, and like the training images: the toolkit's input_checks.py. */

/** @typedef {Record<string, {low?: number, high?: number}>} Bounds */
/**
 * @typedef {object} Domain
 * @property {"probability" | "energy" | "distance"} score
 * @property {number} threshold
 * @property {Record<string, number[]>} arrays name -> shape, in the order of the file
 * @property {boolean} [unit_length]
 * @property {number} [rest_variance]
 */
/** @typedef {{quality: Bounds, domain: Domain, arrays: Record<string, Float32Array>}} Checks */
/**
 * An engine's outputs; those without input checks have the first alone.
 *
 * @typedef {{probabilities: Float32Array, features: Float32Array, logits: Float32Array}} Signals
 */
/** @typedef {{status: string, reasons: string[], measures: Record<string, number>}} Verdict */

export const STATUSES = ["accepted", "poor_quality", "out_of_domain"];
const [ACCEPTED, POOR_QUALITY, OUT_OF_DOMAIN] = STATUSES;
const [BRIGHT, DARK] = [250, 5];
const STRANGE = "the picture is unlike the dermoscopic images that the network was trained on";
const REASONS = /** @type {const} */ ([
  ["sharpness", "low", "the picture is blurred"],
  ["brightness", "low", "the picture is too dark"],
  ["brightness", "high", "the picture is too bright"],
  ["overexposed", "high", "too much of the picture is overexposed"],
  ["underexposed", "high", "too much of the picture is black"],
  ["shorter_side", "low", "the picture has too few pixels"],
]);

/** @returns {Promise<Checks>} */
export async function loadChecks() {
  const document_ = await (await fetch("input_checks.json")).json();
  const values = new Float32Array(await (await fetch("input_checks.bin")).arrayBuffer());
  /** @type {Record<string, Float32Array>} */
  const arrays = {};
  let at = 0;
  for (const [name, shape] of Object.entries(/** @type {Domain} */ (document_.domain).arrays)) {
    const size = shape.reduce((product, length) => product * length, 1);
    arrays[name] = values.subarray(at, (at += size));
  }
  return { quality: document_.quality, domain: document_.domain, arrays };
}

/**
 * @param {Checks} checks
 * @param {Uint8Array} input RGB bytes [S, S, 3] of the engine's input
 * @param {number} shorterSide pixels of the picture that it was made of
 * @param {Signals} signals the engine's outputs
 * @returns {Verdict}
 */
export function checkInput(checks, input, shorterSide, signals) {
  const measures = { ...measureQuality(input), shorter_side: shorterSide };
  /** @type {string[]} */
  const reasons = [];
  for (const [name, side, reason] of REASONS) {
    const bound = checks.quality[name]?.[side];
    if (bound === undefined) continue;
    if (side === "low" ? measures[name] < bound : measures[name] > bound) reasons.push(reason);
  }
  const domain = scoreDomain(checks, signals);
  let status = reasons.length ? POOR_QUALITY : ACCEPTED;
  if (!reasons.length && !(domain <= checks.domain.threshold)) {
    status = OUT_OF_DOMAIN;
    reasons.push(STRANGE);
  }
  return { status, reasons, measures: { ...measures, domain } };
}

/** @param {Uint8Array} input */
function measureQuality(input) {
  const size = Math.sqrt(input.length / 3);
  const luma = new Int32Array(size * size);
  let [sum, bright, dark] = [0, 0, 0];
  for (let at = 0; at < luma.length; at++) {
    const [r, g, b] = [input[3 * at], input[3 * at + 1], input[3 * at + 2]];
    const value = (77 * r + 150 * g + 29 * b) >> 8;
    luma[at] = value;
    sum += value;
    bright += Number(value >= BRIGHT);
    dark += Number(value <= DARK);
  }
  let [total, squares] = [0, 0]; // whole numbers below 2 ** 53: exact
  for (let y = 1; y < size - 1; y++) {
    for (let x = 1; x < size - 1; x++) {
      const at = y * size + x;
      const around = luma[at - size] + luma[at + size] + luma[at - 1] + luma[at + 1];
      const laplacian = around - 4 * luma[at];
      total += laplacian;
      squares += laplacian * laplacian;
    }
  }
  const n = (size - 2) ** 2;
  return {
    sharpness: squares / n - (total / n) * (total / n),
    brightness: sum / luma.length,
    overexposed: bright / luma.length,
    underexposed: dark / luma.length,
  };
}

/**
 * Return how unlike the training images a picture is; larger is stranger.
 *
 * @param {Checks} checks
 * @param {Signals} signals
 */
function scoreDomain({ domain, arrays }, { probabilities, features, logits }) {
  if (domain.score === "probability") return -Math.max(...probabilities);
  if (domain.score === "energy") {
    const peak = Math.max(...logits);
    return -(peak + Math.log(logits.reduce((sum, value) => sum + Math.exp(value - peak), 0)));
  }
  const { means, axes, variances } = arrays;
  let point = Float64Array.from(features);
  if (domain.unit_length) {
    const length = Math.sqrt(point.reduce((sum, value) => sum + value * value, 0));
    point = point.map((value) => value / Math.max(length, 2 ** -126));
  }
  const width = point.length;
  let nearest = Infinity;
  for (let first = 0; first < means.length; first += width) {
    const difference = point.map((value, at) => value - means[first + at]);
    let rest = difference.reduce((sum, value) => sum + value * value, 0);
    let distance = 0;
    for (let axis = 0; axis < variances.length; axis++) {
      let along = 0;
      for (let at = 0; at < width; at++) along += difference[at] * axes[axis * width + at];
      rest -= along * along;
      distance += (along * along) / variances[axis];
    }
    distance += rest / /** @type {number} */ (domain.rest_variance);
    nearest = Math.min(nearest, distance); // not a number stays so, and is never accepted
  }
  return nearest;
}
