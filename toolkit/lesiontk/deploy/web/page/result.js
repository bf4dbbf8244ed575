/** An answer as elements of the page. */

/** @typedef {import("./engine.js").Failure} Failure */
/** @typedef {import("./engine.js").OperatingPoint} OperatingPoint */
/** @typedef {import("./engine.js").Prediction} Prediction */

/** The labels of HAM10000 in words; other labels are shown as they are. */
const NAMES = new Map([
  ["akiec", "Actinic keratosis, Bowen's disease"],
  ["bcc", "Basal cell carcinoma"],
  ["bkl", "Benign keratosis"],
  ["df", "Dermatofibroma"],
  ["mel", "Melanoma"],
  ["nv", "Nevus"],
  ["vasc", "Vascular lesion"],
]);

/**
 * @param {string} tag
 * @param {Record<string, string>} [attributes]
 * @param {(Node | string)[]} children
 */
export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

/** @param {Prediction} prediction @returns {string} */
export function headline(prediction) {
  if (prediction.positive === undefined) return nameOf(prediction.label);
  return prediction.positive ? "Positive" : "Negative";
}

/**
 * @param {Prediction} prediction
 * @param {OperatingPoint | null} point
 * @param {string[]} facts
 */
export function renderPrediction(prediction, point, facts) {
  const kind = prediction.positive ? "positive" : "negative";
  const verdict = element("div", { class: "verdict", "data-kind": kind });
  verdict.append(element("strong", {}, headline(prediction)));
  const parts = [verdict];
  if (point && prediction.score !== undefined) {
    const relation = prediction.positive ? "reaches" : "is below";
    const sum = point.positive.join(" + ");
    verdict.append(
      `The score of ${sum}, ${digits(prediction.score)}, ${relation} the threshold of ` +
        `${digits(point.threshold)}.`,
    );
    parts.push(bar(prediction.score, point.threshold));
  } else {
    verdict.append("The most probable class. No threshold was frozen for this engine.");
  }
  const rows = Object.entries(prediction.probabilities)
    .sort(([, a], [, b]) => b - a)
    .map(([label, value]) =>
      element(
        "tr",
        label === prediction.label ? { class: "top" } : {},
        element("th", { scope: "row" }, nameOf(label), ...(NAMES.has(label) ? code(label) : [])),
        element("td", {}, bar(value)),
        element("td", {}, digits(value)),
      ),
    );
  parts.push(
    element("table", {}, element("caption", {}, "Probabilities"), element("tbody", {}, ...rows)),
    element("p", { class: "muted" }, facts.join(" · ")),
  );
  return parts;
}

/** @param {string} title @param {string} message */
export const renderRefusal = (title, message) => [
  element("div", { class: "verdict", "data-kind": "refused" }, element("strong", {}, title), message),
];

/** @param {string} label */
const nameOf = (label) => NAMES.get(label) ?? label;

/** @param {string} label */
const code = (label) => [" ", element("small", {}, label)];

/** @param {number} value */
const digits = (value) => value.toFixed(3);

/** A bar beside its number, for the eye alone. @param {number} value @param {number} [threshold] */
function bar(value, threshold) {
  const made = element("div", { class: "bar", "aria-hidden": "true" }, element("span"));
  made.style.setProperty("--value", String(Math.min(1, value)));
  if (threshold !== undefined) {
    made.append(element("i"));
    made.style.setProperty("--threshold", String(threshold));
  }
  return made;
}
