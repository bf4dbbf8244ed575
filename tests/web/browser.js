/** The app in a headless Chromium. */

import { after } from "node:test";
import { join } from "node:path";
import { chromium } from "playwright-core";
import { serve } from "./server.js";

export const FOLDER = process.env.LESIONTK_WEB ?? "";
export const BUNDLE = join(FOLDER, "bundle");
export const ISOLATED = {
  "Cross-Origin-Opener-Policy": "same-origin",
  "Cross-Origin-Embedder-Policy": "require-corp",
};

/** @type {Promise<import("playwright-core").Browser> | undefined} */
let browser;
after(async () => (await browser)?.close());

/** Serve a folder and open it; the test's end closes both. */
export async function openApp(t, { folder = BUNDLE, server = {}, context = {} } = {}) {
  const site = await serve(folder, server);
  t.after(() => site.close());
  return { site, ...(await openPage(t, site.url, context)) };
}

/** Open an address in a browser profile of its own; note what it asks of others, and errors. */
export async function openPage(t, url, context = {}) {
  browser ??= chromium.launch({
    executablePath: process.env.CHROMIUM,
    args: [
      "--no-sandbox",
      "--disable-gpu",
      "--disable-background-networking",
      "--use-fake-device-for-media-stream",
      "--use-fake-ui-for-media-stream",
    ],
  });
  const profile = await (await browser).newContext(context);
  const page = await profile.newPage();
  /** @type {string[]} */
  const elsewhere = [];
  profile.on("request", (request) => {
    if (!request.url().startsWith(url)) elsewhere.push(request.url());
  });
  const errors = [];
  page.on("pageerror", (error) => errors.push(error.message));
  page.on("console", (message) => {
    if (/Content Security Policy/.test(message.text())) errors.push(message.text());
  });
  t.after(() => profile.close());
  await page.goto(url);
  return { page, profile, elsewhere, errors };
}

/** Wait for the end of the start; return "ready" or "failed". */
export async function started(page) {
  const status = page.locator("#status:not([data-state=busy])");
  await status.waitFor({ timeout: 120_000 });
  return status.getAttribute("data-state");
}

/** Choose a file, and wait for its answer. */
export async function choose(page, file) {
  await page.evaluate(() => document.querySelector("#result").replaceChildren());
  await page.setInputFiles("#file", file);
  await page.locator("#result .verdict").waitFor();
  await page.waitForFunction(() => !document.querySelector("#file").disabled);
  return page.textContent("#result");
}

/** The history, as the reader exports it. */
export async function exportHistory(page) {
  const [download] = await Promise.all([page.waitForEvent("download"), page.click("#export")]);
  const parts = [];
  for await (const part of await download.createReadStream()) parts.push(part);
  return JSON.parse(Buffer.concat(parts).toString()).answers;
}
