/** The page: start, pictures, answers, history. Nothing that it holds leaves the device. */

import { Camera } from "./camera.js";
import { openEngine } from "./engine.js";
import { addEntry, deleteAll, deleteEntry, exportEntries, listEntries } from "./history.js";
import { serveOffline } from "./offline.js";
import { element, headline, renderPrediction, renderRefusal } from "./result.js";

/** @typedef {import("./engine.js").Bundle} Bundle */
/** @typedef {import("./engine.js").Engine} Engine */

/** @template {HTMLElement} T @param {string} id @returns {T} */
const $ = (id) => /** @type {T} */ (document.getElementById(id));

const buttons = {
  camera: /** @type {HTMLButtonElement} */ ($("camera")),
  capture: /** @type {HTMLButtonElement} */ ($("capture")),
  torch: /** @type {HTMLButtonElement} */ ($("torch")),
  selfTest: /** @type {HTMLButtonElement} */ ($("self-test")),
  export: /** @type {HTMLButtonElement} */ ($("export")),
  deleteAll: /** @type {HTMLButtonElement} */ ($("delete-all")),
};
const file = /** @type {HTMLInputElement} */ ($("file"));
const preview = /** @type {HTMLCanvasElement} */ ($("preview"));
const camera = new Camera($("video"));

/** @type {Engine} */
let engine;
/** @type {Bundle} */
let bundle;
let bundleHash = ""; // of the files of a web bundle

// ---------------------------------------------------------------------- start

async function start() {
  bundle = await loadBundle();
  if (bundle.web) {
    await serveOffline(showUpdate);
    bundle = await loadBundle(); // now verified
    await import(/** @type {string} */ ("./files.js")); // written with the bundle
    bundleHash = /** @type {any} */ (self).BUNDLE.id;
  }
  showAbout();
  engine = await openEngine(bundle);
  if (engine.selfTest) {
    buttons.selfTest.hidden = false;
    // A device, or a browser of another version, that does not compute as expected must not answer.
    if (localStorage.getItem("self-test") !== testedVersion()) await testDevice();
    else showStatus("ready", "Ready · verified on this device");
  } else {
    showStatus("ready", `Ready · inference ${engine.place}`);
  }
  setBusy(false);
}

/** @returns {Promise<Bundle>} */
async function loadBundle() {
  const response = await fetch("bundle.json");
  if (!response.ok) throw new Error("bundle.json cannot be loaded. Copy the whole bundle.");
  return response.json().catch(() => {
    throw new Error("bundle.json was changed or is incomplete. Copy the whole bundle.");
  });
}

const testedVersion = () => `${bundleHash} ${engine.place} ${navigator.userAgent}`;

async function testDevice() {
  localStorage.removeItem("self-test");
  const found = await engine.selfTest?.((done, all) => {
    showStatus("busy", `Checking this device: ${done} of ${all}`);
  });
  if (!found) return;
  const percent = (100 * found.agreement).toFixed(0);
  const differ = found.differ.length ? `; other pixels in ${found.differ.join(", ")}` : "";
  const statuses = (100 * found.status_agreement).toFixed(0);
  const checked = bundle.input_checks ? `, input checks ${statuses} % as expected` : "";
  $("self-test-result").textContent =
    `Self-test ${found.as_expected ? "passed" : "failed"}: ${percent} % of ${found.n} golden ` +
    `images get the expected class, mean difference ${found.mean_drift.toFixed(5)}${checked}${differ}.`;
  if (!found.as_expected) {
    throw new Error(
      "This browser does not compute as the engine was tested. Update it, or turn off its " +
        "protection against fingerprinting for this page.",
    );
  }
  localStorage.setItem("self-test", testedVersion());
  showStatus("ready", "Ready · verified on this device");
}

/** @param {"busy" | "ready" | "failed"} state @param {string} text */
function showStatus(state, text) {
  $("status").dataset.state = state;
  $("status").textContent = text;
}

/** @param {unknown} error */
function fail(error) {
  const message = error instanceof Error ? error.message : String(error);
  showStatus("failed", "Not running");
  $("result").replaceChildren(...renderRefusal("The app cannot run", message));
}

/** @param {string} message @param {(() => void) | null} apply */
function showUpdate(message, apply) {
  const [text, button] = $("update").children;
  text.textContent = message;
  /** @type {HTMLButtonElement} */ (button).hidden = !apply;
  if (apply) button.addEventListener("click", apply, { once: true });
  $("update").hidden = false;
}

function showAbout() {
  if (bundle.research_override) {
    $("override-reason").textContent = `${bundle.research_override}.`;
    $("override").hidden = false;
  }
  $("recipe").textContent = `${bundle.recipe}, ${bundle.engine.precision}`;
  const point = bundle.operating_point;
  const facts = {
    Engine: bundle.name,
    Bundle: bundleHash.slice(0, 16) || "on the board",
    Classes: bundle.labels.join(", "),
    Decision: point
      ? `${point.positive.join(" + ")} ≥ ${point.threshold.toFixed(4)} (${point.rule})`
      : "none frozen",
    License: bundle.licence,
    Notice: bundle.notice,
  };
  const parts = Object.entries(facts).map(([name, text]) => [
    element("dt", {}, name),
    element("dd", {}, text),
  ]);
  $("about").replaceChildren(...parts.flat());
}

// ------------------------------------------------------------------- pictures

/** One picture at a time. @param {boolean} busy */
function setBusy(busy) {
  buttons.camera.disabled = buttons.capture.disabled = busy;
  buttons.selfTest.disabled = file.disabled = busy;
  $("choose").dataset.disabled = String(busy);
  $("result").setAttribute("aria-busy", String(busy));
}

/** @param {() => Promise<void>} act */
async function alone(act) {
  const focused = document.activeElement;
  setBusy(true);
  try {
    await act();
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error);
    $("result").replaceChildren(...renderRefusal("No answer", message));
  }
  setBusy(false);
  // A disabled control loses the focus: who works by keyboard goes on where they were.
  const lost = document.activeElement === document.body;
  if (lost && focused instanceof HTMLElement) focused.focus({ preventScroll: true });
}

/** @param {Blob} picture @param {string} name */
async function classify(picture, name) {
  const begin = performance.now();
  const answer = await engine.predict(picture, name);
  const latency = performance.now() - begin;
  const [prediction] = answer.predictions;
  if (!prediction) {
    show("empty");
    const refusals = renderRefusal("Refused", answer.failures[0].message);
    $("result").replaceChildren(...refusals);
    return;
  }
  const thumbnail = await drawPicture(picture);
  if (prediction.input && prediction.input.status !== "accepted") {
    // Its probabilities are of a picture that the network does not know: they are not shown.
    const why = `${prediction.input.reasons.join("; ")}. Take the picture again.`;
    $("result").replaceChildren(...renderRefusal(refusalOf(prediction.input.status), why));
    return;
  }
  const facts = [`${latency.toFixed(0)} ms, decoding included`, engine.place];
  if (prediction.confidence !== undefined) {
    facts.unshift(`calibrated confidence ${prediction.confidence.toFixed(3)}`);
  }
  const point = answer.operating_point;
  $("result").replaceChildren(...renderPrediction(prediction, point, facts));
  $("result-title").scrollIntoView({ block: "nearest" });
  try {
    await addEntry({
      time: new Date().toISOString(),
      bundle: answer.bundle,
      bundle_sha256: answer.bundle_sha256 ?? bundleHash,
      engine_sha256: answer.engine_sha256,
      prediction,
      operating_point: point,
      latency_ms: Math.round(latency),
      thumbnail,
    });
    await showHistory();
  } catch (error) {
    const why = error instanceof Error ? error.message : error;
    $("result").append(element("p", {}, `Not saved in the history: ${why}. Delete old entries.`));
  }
}

/** @param {string} status */
const refusalOf = (status) =>
  status === "poor_quality" ? "Refused: poor quality" : "Refused: not a known kind of picture";

/** Draw the square that is classified; return it small. @param {Blob} picture */
async function drawPicture(picture) {
  const options = { imageOrientation: /** @type {const} */ ("from-image") };
  const bitmap = await createImageBitmap(picture, options).catch(() => null);
  if (!bitmap) return ""; // a board decodes more formats than browsers do
  const side = Math.min(bitmap.width, bitmap.height);
  const [left, top] = [(bitmap.width - side) / 2, (bitmap.height - side) / 2];
  const small = document.createElement("canvas");
  small.width = small.height = 96;
  for (const canvas of [preview, small]) {
    const { width: size } = canvas;
    canvas.getContext("2d")?.drawImage(bitmap, left, top, side, side, 0, 0, size, size);
  }
  bitmap.close();
  show("picture");
  return small.toDataURL("image/jpeg", 0.8);
}

/** @param {"empty" | "video" | "picture"} what */
function show(what) {
  $("stage").dataset.show = what;
  if (what !== "video") camera.stop();
  buttons.capture.hidden = what !== "video";
  buttons.torch.hidden = what !== "video" || !camera.hasTorch;
  buttons.camera.classList.toggle("primary", what !== "video");
  showTorch(false);
  buttons.camera.textContent = what === "video" ? "Close camera" : "Open camera";
}

buttons.camera.addEventListener("click", () =>
  alone(async () => {
    if (camera.isOn) return show("empty");
    await camera.start();
    show("video");
  }),
);

buttons.capture.addEventListener("click", () =>
  alone(async () => classify(await camera.capture(), "camera")),
);

buttons.torch.addEventListener("click", async () => {
  const on = buttons.torch.dataset.on !== "true";
  await camera.setTorch(on);
  showTorch(on);
});

/** @param {boolean} on */
function showTorch(on) {
  buttons.torch.dataset.on = String(on);
  buttons.torch.textContent = on ? "Switch light off" : "Switch light on";
}

file.addEventListener("change", () =>
  alone(async () => {
    const [picture] = file.files ?? [];
    file.value = ""; // so that the same file can be chosen again
    if (picture) await classify(picture, picture.name);
  }),
);

buttons.selfTest.addEventListener("click", async () => {
  setBusy(true);
  try {
    await testDevice();
    setBusy(false);
  } catch (error) {
    fail(error); // and no more pictures
  }
});

// -------------------------------------------------------------------- history

async function showHistory() {
  const entries = await listEntries();
  buttons.export.disabled = buttons.deleteAll.disabled = entries.length === 0;
  const items = entries.slice(0, 50).map((entry) => {
    const when = new Date(entry.time).toLocaleString();
    const remove = element("button", { type: "button", class: "quiet" }, "Delete");
    remove.setAttribute("aria-label", `Delete the answer of ${when}`);
    remove.addEventListener("click", async () => {
      await deleteEntry(/** @type {number} */ (entry.id));
      await showHistory();
      buttons.export.focus();
    });
    const { prediction } = entry;
    const score = prediction.score === undefined ? "" : ` · score ${prediction.score.toFixed(3)}`;
    const image = { src: entry.thumbnail || "icon-192.png", alt: "", width: "48", height: "48" };
    return element(
      "li",
      {},
      element("img", image),
      element(
        "div",
        {},
        `${headline(prediction)} · ${prediction.label}${score}`,
        element("br"),
        element("span", { class: "muted" }, when),
      ),
      remove,
    );
  });
  $("history").replaceChildren(...items);
  const more = entries.length > 50 ? ` The latest 50 of ${entries.length} are shown.` : "";
  $("history-where").textContent = `Kept in this browser alone.${more}`;
}

buttons.export.addEventListener("click", exportEntries);

buttons.deleteAll.addEventListener("click", async () => {
  if (!confirm("Delete all answers in this browser? Export them first to keep them.")) return;
  await deleteAll();
  await showHistory();
});

showHistory().catch((error) => {
  $("history-where").textContent = `No history in this browser: ${error.message}`;
});
start().catch(fail);
