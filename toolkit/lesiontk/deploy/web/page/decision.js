/** The prediction and decision from an engine's probabilities, as in the toolkit's decision.py. */

const SUM_TOLERANCE = 1e-2; // int8 probabilities have steps of 1/256

/** @typedef {{rule: string, threshold: number, positive: string[]}} OperatingPoint */
/**
 * @typedef {object} Prediction
 * @property {string} label the most probable class
 * @property {Record<string, number>} probabilities label -> probability, rounded to six digits
 * @property {number} [confidence] largest of the probabilities scaled by the temperature
 * @property {number} [score] summed probability of the positive labels
 * @property {boolean} [positive] whether the score reaches the threshold
 * @property {{status: string, reasons: string[]}} [input] "accepted", or why the picture is not
 */

/** @param {ArrayLike<number>} values */
export function areProbabilities(values) {
  const list = Array.from(values);
  const sum = list.reduce((total, value) => total + value, 0);
  return list.every((value) => value >= 0 && value < Infinity) && Math.abs(sum - 1) <= SUM_TOLERANCE;
}

/**
 * @param {ArrayLike<number>} values probability of each label
 * @param {string[]} labels
 * @param {OperatingPoint | null} point
 * @param {number | null} temperature
 * @returns {Prediction}
 */
export function decide(values, labels, point, temperature) {
  const list = Array.from(values);
  /** @type {Prediction} */
  const prediction = {
    label: labels[list.indexOf(Math.max(...list))],
    probabilities: Object.fromEntries(labels.map((name, at) => [name, round(list[at])])),
  };
  if (temperature) {
    const powers = list.map((value) => Math.max(value, 2 ** -23) ** (1 / temperature));
    prediction.confidence = round(Math.max(...powers) / powers.reduce((a, b) => a + b, 0));
  }
  if (point) {
    const chosen = list.filter((_, at) => point.positive.includes(labels[at]));
    const score = chosen.reduce((total, value) => total + value, 0);
    prediction.score = round(score);
    prediction.positive = score >= point.threshold;
  }
  return prediction;
}

/**
 * Round to six digits, ties to even as Python does. Only multiples of 1/128 are ties, and int8
 * engines return them.
 *
 * @param {number} value
 */
export function round(value) {
  const scaled = value * 1e6;
  const isTie = Number.isInteger(value * 128) && scaled % 1 === 0.5;
  return isTie ? (2 * Math.round(scaled / 2)) / 1e6 : Number(value.toFixed(6));
}
