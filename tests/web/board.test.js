/** The same page with inference on the board that serves it. */

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { choose, exportHistory, FOLDER, openApp, openPage, started } from "./browser.js";

const [{ jpeg, probabilities }] = JSON.parse(readFileSync(join(FOLDER, "expected.json"), "utf8"));
const IMAGE = join(FOLDER, "images", jpeg);
const BOARD = join(FOLDER, "board");
const TOKEN = "a token of sixteen characters or more".replaceAll(" ", "-");

/** Start the bundle's own runner as a board does; return its address. */
async function serveBoard(t, token) {
  const words = [join(BOARD, "run.py"), "serve", "--listen", "127.0.0.1:0"];
  const env = { ...process.env, ...(token ? { LESIONTK_TOKEN: token } : {}) };
  const runner = spawn(process.env.PYTHON ?? "python3", words, { env });
  t.after(async () => {
    runner.kill();
    await once(runner, "exit");
  });
  let text = "";
  for await (const part of runner.stderr) {
    text += part;
    const [url] = text.match(/http:\S+\n/) ?? [];
    if (url) return url.trim();
  }
  throw new Error(text);
}

for (const [name, token] of [
  ["this machine alone", null],
  ["whoever has the token", TOKEN],
]) {
  test(`a board answers ${name} on the same page`, async (t) => {
    const url = await serveBoard(t, token);
    const context = token ? { httpCredentials: { username: "any", password: token } } : {};
    const { page, errors, elsewhere } = await openPage(t, url, context);
    assert.equal(await started(page), "ready");
    assert.match(await choose(page, IMAGE), new RegExp(`on ${new URL(url).host}$`));
    const [{ prediction }] = await exportHistory(page);
    assert.deepEqual(prediction.probabilities, probabilities);
    assert.equal(prediction.image, jpeg);
    const refused = await choose(page, join(FOLDER, "refused", "not_an_image.jpg"));
    assert.match(refused, /^Refused.*not an image/s);
    assert.ok(await page.isHidden("#self-test"));
    assert.deepEqual([errors, elsewhere], [[], []]);
  });
}

for (const [status, says] of [
  [503, /board is busy/],
  [413, /too large for the board/],
  [401, /requires its token/],
]) {
  test(`status ${status} is explained`, async (t) => {
    const refuse = (request, response) => {
      if (request.method !== "POST") return false;
      response.writeHead(status, { "Content-Type": "application/json" }).end('{"error": "no"}');
      return true;
    };
    const { page } = await openApp(t, { folder: join(BOARD, "web"), server: { handle: refuse } });
    await started(page);
    assert.match(await choose(page, IMAGE), says);
  });
}
