/** Inference on the board that serves this page. */

/** @typedef {import("./engine.js").Answer} Answer */
/** @typedef {import("./engine.js").Engine} Engine */

/** @type {Engine} */
export const serverEngine = {
  place: `on ${location.host}`,
  async predict(file, name) {
    const headers = { "Content-Type": file.type || "application/octet-stream" };
    const response = await fetch("predict", { method: "POST", body: file, headers });
    const answer = await response.json().catch(() => null);
    if (!Array.isArray(answer?.predictions)) {
      throw new Error(explain(response.status) ?? answer?.error ?? `Status ${response.status}.`);
    }
    for (const entry of [...answer.predictions, ...answer.failures]) entry.image = name;
    return answer;
  },
};

/** @param {number} status */
function explain(status) {
  if (status === 401) return "The board requires its token. Load this page again to give it.";
  if (status === 413) return "The picture is too large for the board. Scale it down.";
  if (status === 503) return "The board is busy. Try again in a moment.";
  return null;
}
