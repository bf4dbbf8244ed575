/**
 * The one interface behind which inference happens: on this device, or on the board that serves the
 * page. Both return the document that `run.py predict --json` prints.
 */

/** @typedef {import("./decision.js").OperatingPoint} OperatingPoint */
/** @typedef {import("./decision.js").Prediction} Prediction */
/** @typedef {{image: string, message: string, reason?: string}} Failure */
/**
 * @typedef {object} Answer
 * @property {string} bundle
 * @property {string} [bundle_sha256] of the files of a board
 * @property {string} engine_sha256
 * @property {string | null} research_override
 * @property {string[]} labels
 * @property {OperatingPoint | null} operating_point
 * @property {(Prediction & {image: string})[]} predictions
 * @property {Failure[]} failures
 * @property {string} notice
 */
/**
 * What the page reads of bundle.json.
 *
 * @typedef {object} Bundle
 * @property {string} name
 * @property {string} recipe
 * @property {{file: string, precision: string, content_sha256: string}} engine
 * @property {string[]} labels
 * @property {OperatingPoint | null} operating_point
 * @property {number | null} temperature
 * @property {{image_size: number, crop_mode: string}} preprocessing
 * @property {{pictures: Record<string, string>, min_agreement: number, max_mean_drift: number}} golden
 * @property {string} licence
 * @property {string} notice
 * @property {string | null} research_override which gates were not passed
 * @property {string | null} input_checks
 * @property {WebContract} [web] absent where the board that serves the page does the inference
 */
/**
 * @typedef {object} WebContract
 * @property {"local"} inference
 * @property {string} golden_images
 * @property {string} golden_probabilities
 * @property {string | null} golden_statuses of engines with input checks
 */
/**
 * @typedef {object} Engine
 * @property {string} place where the inference happens, for the reader
 * @property {(file: Blob, name: string) => Promise<Answer>} predict
 * @property {(onProgress: (done: number, all: number) => void) => Promise<Findings>} [selfTest]
 */
/**
 * @typedef {object} Findings
 * @property {number} n golden images
 * @property {number} agreement share of them with the expected class
 * @property {number} mean_drift mean difference of a probability
 * @property {number} status_agreement share of them with the expected status of the input checks
 * @property {string[]} differ pictures whose crop and resize give other bytes
 * @property {boolean} as_expected
 */

/** @param {Bundle} bundle @returns {Promise<Engine>} */
export async function openEngine(bundle) {
  if (bundle.web) {
    const { openLocalEngine } = await import("./engine_local.js");
    return openLocalEngine(bundle);
  }
  const { serverEngine } = await import("./engine_server.js");
  return serverEngine;
}
