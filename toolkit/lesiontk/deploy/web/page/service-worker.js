/**
 * Serves the bundle's files from the cache, each verified by its SHA-256.
 *
 * `files.js` is written with the bundle: another version of the bundle is another worker, which
 * waits until the page asks for it, so that no page ever runs with files of two versions.
 */

const worker = /** @type {ServiceWorkerGlobalScope} */ (/** @type {unknown} */ (self));

importScripts("files.js");
/** @type {{id: string, files: Record<string, string>}} name -> SHA-256 */
const BUNDLE = /** @type {any} */ (self).BUNDLE;
const FILES = BUNDLE.files;
const CACHE = `lesiontk-${BUNDLE.id}`;
const SCOPE = new URL(".", location.href).href;
// Of LiteRT's variants a browser needs one: what it asks for is kept.
const AT_ONCE = Object.keys(FILES).filter((name) => !name.startsWith("runtime/"));

worker.addEventListener("install", (event) => {
  event.waitUntil(Promise.all(AT_ONCE.map(fetchVerified)).catch(report));
});

worker.addEventListener("activate", (event) => {
  event.waitUntil(
    (async () => {
      for (const name of await caches.keys()) {
        if (name.startsWith("lesiontk-") && name !== CACHE) await caches.delete(name);
      }
      await worker.clients.claim();
    })(),
  );
});

worker.addEventListener("message", (event) => {
  if (event.data === "activate") worker.skipWaiting();
  if (event.data === "claim") event.waitUntil(worker.clients.claim());
});

worker.addEventListener("fetch", (event) => {
  const url = event.request.url.split(/[?#]/)[0];
  const name = url.slice(SCOPE.length) || "index.html";
  if (event.request.method === "GET" && name === "files.js") {
    // The page must see the list of its worker, whatever is on the server by now.
    const text = `self.BUNDLE = ${JSON.stringify(BUNDLE)};`;
    event.respondWith(new Response(text, { headers: { "Content-Type": "text/javascript" } }));
    return;
  }
  if (event.request.method !== "GET" || !url.startsWith(SCOPE) || !(name in FILES)) return;
  event.respondWith(
    (async () => {
      const kept = await (await caches.open(CACHE)).match(SCOPE + name);
      return kept ?? fetchVerified(name).catch(report);
    })(),
  );
});

/** Fetch a file, verify it, keep it, and return it. @param {string} name */
async function fetchVerified(name) {
  const response = await fetch(SCOPE + name, { cache: "no-cache" });
  if (!response.ok) throw new Error(`${name} cannot be loaded (status ${response.status}).`);
  const digest = await crypto.subtle.digest("SHA-256", await response.clone().arrayBuffer());
  const found = Array.from(new Uint8Array(digest), (b) => b.toString(16).padStart(2, "0")).join("");
  if (found !== FILES[name]) {
    throw new Error(`${name} was changed. A bundle with changed files does not run: copy it again.`);
  }
  const result = response.clone();
  await (await caches.open(CACHE)).put(SCOPE + name, response);
  return result;
}

/** Tell the pages why this worker cannot serve, and fail. */
/** @param {Error} error @returns {Promise<never>} */
async function report(error) {
  const pages = await worker.clients.matchAll({ includeUncontrolled: true, type: "window" });
  for (const page of pages) page.postMessage({ failed: error.message });
  throw error;
}
