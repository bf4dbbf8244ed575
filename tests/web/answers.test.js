/** The app answers as the desktop engine does, and keeps doing so. */

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { choose, exportHistory, FOLDER, ISOLATED, openApp, started } from "./browser.js";

const EXPECTED = JSON.parse(readFileSync(join(FOLDER, "expected.json"), "utf8"));
const N = EXPECTED.length;
const TOLERANCE = 1e-3; // of a probability; an int8 step is 1/256

const differences = (answer, expected) =>
  Object.entries(expected.probabilities).map(([label, value]) =>
    Math.abs(value - answer.probabilities[label]),
  );

test("200 pictures: the desktop's answers, no leak", { timeout: 600_000 }, async (t) => {
  const { page, errors } = await openApp(t);
  assert.equal(await started(page), "ready");
  const client = await page.context().newCDPSession(page);
  const heldBytes = async () => {
    await client.send("HeapProfiler.collectGarbage");
    const usage = await client.send("Runtime.getHeapUsage");
    return usage.usedSize + (usage.backingStorageSize ?? 0);
  };
  for (const { png } of EXPECTED) await choose(page, join(FOLDER, "images", png));
  const half = await heldBytes();
  for (const { jpeg } of EXPECTED) await choose(page, join(FOLDER, "images", jpeg));
  const growth = (await heldBytes()) - half;

  const answers = new Map(
    (await exportHistory(page)).map(({ prediction }) => [prediction.image, prediction]),
  );
  const pixels = EXPECTED.map((entry) => ({ entry, answer: answers.get(entry.png) }));
  const files = EXPECTED.map((entry) => ({ entry, answer: answers.get(entry.jpeg) }));
  const agreeing = (pairs) => pairs.filter(({ entry, answer }) => entry.label === answer.label);
  const largest = (pairs) =>
    Math.max(...pairs.flatMap(({ entry, answer }) => differences(answer, entry)));
  t.diagnostic(`top-1 from pixels ${agreeing(pixels).length}, from JPEG ${agreeing(files).length}`);
  t.diagnostic(`largest difference: pixels ${largest(pixels)}, JPEG ${largest(files)}`);
  t.diagnostic(`held after 200 pictures and not after 100: ${growth} bytes`);
  const shifted = pixels.map(({ answer }, at) => ({ entry: EXPECTED[(at + 1) % N], answer }));
  assert.ok(agreeing(shifted).length < N && largest(shifted) > TOLERANCE); // wrong ones would show
  assert.equal(agreeing(pixels).length, N);
  assert.ok(largest(pixels) <= TOLERANCE, `difference ${largest(pixels)}`);
  assert.ok(agreeing(files).length >= 0.99 * N);
  assert.ok(growth < 4 * 2 ** 20, `${growth} bytes`);
  assert.deepEqual(errors, []);
});

test("input checks find what the bundle's runner finds", { timeout: 300_000 }, async (t) => {
  const expected = JSON.parse(readFileSync(join(FOLDER, "statuses.json"), "utf8"));
  const { page, errors } = await openApp(t, { folder: join(FOLDER, "checked") });
  assert.equal(await started(page), "ready");
  assert.match(await page.textContent("#self-test-result"), /input checks 100 %/);
  const statuses = [];
  for (const [at, { png }] of EXPECTED.entries()) {
    const text = await choose(page, join(FOLDER, "images", png));
    const { status, reasons } = expected[at];
    statuses.push(status);
    if (status === "accepted") assert.match(text, /Probabilities/, png);
    else assert.ok(text.startsWith("Refused") && text.includes(reasons.join("; ")), `${png}: ${text}`);
  }
  for (const status of ["accepted", "poor_quality", "out_of_domain"]) {
    const n = statuses.filter((found) => found === status).length;
    t.diagnostic(`${status}: ${n}`);
    assert.ok(n > 4);
  }
  const accepted = statuses.filter((status) => status === "accepted").length;
  assert.equal((await exportHistory(page)).length, accepted);
  assert.deepEqual(errors, []);
});

for (const [name, headers, expected] of [
  ["one thread without", {}, /on this device, 1 thread$/],
  ["threads with", ISOLATED, /on this device, [2-4] threads$/],
]) {
  test(`${name} COOP and COEP headers`, async (t) => {
    const { page, errors } = await openApp(t, { server: { headers } });
    assert.equal(await started(page), "ready");
    await choose(page, join(FOLDER, "images", EXPECTED[0].png));
    const cores = await page.evaluate(() => navigator.hardwareConcurrency);
    if (cores > 1 || headers !== ISOLATED) {
      assert.match(await page.textContent("#result > p"), expected);
    }
    const [{ prediction }] = await exportHistory(page);
    assert.ok(Math.max(...differences(prediction, EXPECTED[0])) <= TOLERANCE);
    assert.deepEqual(errors, []);
  });
}

test("the camera's square is classified", async (t) => {
  const { page } = await openApp(t);
  await started(page);
  await page.click("#camera");
  await page.locator("#capture").waitFor();
  await page.waitForFunction(() => document.querySelector("video").videoWidth > 0);
  await page.click("#capture");
  await page.locator("#result table").waitFor();
  assert.equal(await page.getAttribute("#stage", "data-show"), "picture");
  assert.equal(await page.evaluate(() => document.querySelector("video").srcObject), null);
});

test("a browser that computes otherwise does not answer", async (t) => {
  const { page, profile, site } = await openApp(t);
  await profile.addInitScript(() => {
    const original = OffscreenCanvasRenderingContext2D.prototype.getImageData;
    OffscreenCanvasRenderingContext2D.prototype.getImageData = function (...place) {
      const pixels = original.apply(this, place); // as protection against fingerprinting does
      for (let at = 0; at < pixels.data.length; at += 997) pixels.data[at] ^= 1;
      return pixels;
    };
  });
  await started(page);
  await page.evaluate(() => localStorage.clear());
  await page.goto(site.url);
  assert.equal(await started(page), "failed");
  assert.match(await page.textContent("#result"), /protection against fingerprinting/);
  assert.ok(await page.isDisabled("#file"));
});
