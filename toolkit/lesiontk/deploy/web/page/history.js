/** Earlier answers, on this device alone (IndexedDB). */

/** @typedef {import("./engine.js").Prediction} Prediction */
/**
 * @typedef {object} Entry
 * @property {number} [id] order of entries: a device's clock may jump
 * @property {string} time ISO 8601, by the device's clock
 * @property {string} bundle
 * @property {string} bundle_sha256
 * @property {string} engine_sha256
 * @property {Prediction & {image: string}} prediction
 * @property {import("./engine.js").OperatingPoint | null} operating_point
 * @property {number} latency_ms
 * @property {string} thumbnail data URL
 */

const STORE = "answers";

/** @returns {Promise<IDBDatabase>} */
function open() {
  const request = indexedDB.open("lesiontk", 1);
  request.onupgradeneeded = () => {
    request.result.createObjectStore(STORE, { keyPath: "id", autoIncrement: true });
  };
  return settle(request);
}

/** @template T @param {IDBRequest<T>} request @returns {Promise<T>} */
const settle = (request) =>
  new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });

/**
 * @template T
 * @param {IDBTransactionMode} mode
 * @param {(store: IDBObjectStore) => IDBRequest<T>} act
 * @returns {Promise<T>}
 */
async function transact(mode, act) {
  const database = await open();
  try {
    const transaction = database.transaction(STORE, mode);
    const done = new Promise((resolve, reject) => {
      transaction.oncomplete = () => resolve(undefined);
      transaction.onabort = () => reject(transaction.error);
    });
    const [result] = await Promise.all([settle(act(transaction.objectStore(STORE))), done]);
    return result;
  } finally {
    database.close();
  }
}

/** @param {Entry} entry */
export const addEntry = (entry) => transact("readwrite", (store) => store.add(entry));

/** @returns {Promise<Entry[]>} latest first */
export const listEntries = async () =>
  (await transact("readonly", (store) => store.getAll())).reverse();

/** @param {number} id */
export const deleteEntry = (id) => transact("readwrite", (store) => store.delete(id));

export const deleteAll = () => transact("readwrite", (store) => store.clear());

/** Save all entries as a JSON file of the reader's. */
export async function exportEntries() {
  const document_ = { format: 1, exported: new Date().toISOString(), answers: await listEntries() };
  const link = document.createElement("a");
  const blob = new Blob([JSON.stringify(document_, null, 1)], { type: "application/json" });
  link.href = URL.createObjectURL(blob);
  link.download = "lesiontk-history.json";
  link.click();
  URL.revokeObjectURL(link.href);
}
