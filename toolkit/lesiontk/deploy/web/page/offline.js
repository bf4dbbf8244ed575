/** The service worker's side of the page: verified files, offline, and updates when asked for. */

/**
 * Return once a service worker serves this page. Throws an error for the reader if a file of the
 * bundle is damaged, or the browser has no service workers.
 *
 * @param {(message: string, apply: (() => void) | null) => void} onUpdate called with a new version
 *   that waits, or with why one was refused
 */
export async function serveOffline(onUpdate) {
  const workers = navigator.serviceWorker;
  if (!workers) {
    throw new Error(
      "This page needs HTTPS or localhost, and a browser window that is not private: only then are " +
        "its files verified and kept for use offline.",
    );
  }
  /** @type {Promise<never>} */
  const failed = new Promise((_, reject) => {
    workers.addEventListener("message", ({ data, source }) => {
      reject(new Error(data.failed));
      const isUpdate = workers.controller && source !== workers.controller;
      onUpdate(`${isUpdate ? "An update was refused: " : ""}${data.failed}`, null);
    });
  });
  failed.catch(() => {}); // an update's refusal is no error of this version
  workers.startMessages();
  const isFirst = !workers.controller;
  const registration = await workers.register("service-worker.js", { updateViaCache: "none" });
  const announce = () => {
    const waiting = registration.waiting;
    if (waiting && registration.active) {
      onUpdate("A new version of this app is ready.", () => {
        workers.addEventListener("controllerchange", () => location.reload());
        waiting.postMessage("activate");
      });
    }
  };
  announce();
  registration.addEventListener("updatefound", () => {
    registration.installing?.addEventListener("statechange", announce);
  });
  if (isFirst) await Promise.race([takeControl(registration), failed]);
}

/** @param {ServiceWorkerRegistration} registration */
async function takeControl(registration) {
  const workers = navigator.serviceWorker;
  await workers.ready;
  if (workers.controller) return;
  const controlled = new Promise((resolve) => {
    workers.addEventListener("controllerchange", resolve, { once: true });
  });
  registration.active?.postMessage("claim"); // after a reload that bypassed the worker
  await controlled;
}
