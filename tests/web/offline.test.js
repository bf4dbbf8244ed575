/** Files: kept for use offline, verified, of one version, from one origin. */

import assert from "node:assert/strict";
import { cpSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { gzipSync } from "node:zlib";
import { BUNDLE, choose, FOLDER, openApp, started } from "./browser.js";
import { flipByte } from "./server.js";

const [{ png: PICTURE }] = JSON.parse(readFileSync(join(FOLDER, "expected.json"), "utf8"));

test("after the first load it works without the server", async (t) => {
  const { page, site, elsewhere } = await openApp(t);
  const begin = performance.now();
  assert.equal(await started(page), "ready");
  const first = await choose(page, join(FOLDER, "images", PICTURE));
  t.diagnostic(`first load to first answer, with the self-test: ${performance.now() - begin} ms`);
  const loaded = [...new Set(site.requests.map(({ name }) => join(BUNDLE, name)))];
  const sizes = loaded.map((file) => statSync(file).size);
  const packed = loaded.map((file) => gzipSync(readFileSync(file)).length);
  const sum = (list) => list.reduce((a, b) => a + b, 0);
  t.diagnostic(`first load: ${sum(sizes)} bytes, ${sum(packed)} with gzip, ${loaded.length} files`);
  assert.ok(sum(sizes) < 20e6);

  await site.close();
  await page.reload();
  assert.equal(await started(page), "ready");
  const verdict = (text) => text.slice(0, text.indexOf("calibrated"));
  assert.equal(verdict(await choose(page, join(FOLDER, "images", PICTURE))), verdict(first));
  assert.deepEqual(elsewhere, []);
});

test("the page's policy forbids other origins, and inline code", async (t) => {
  const { page } = await openApp(t);
  await started(page);
  const refused = await page.evaluate(async () => {
    const seen = [];
    document.addEventListener("securitypolicyviolation", (event) => {
      seen.push(event.effectiveDirective);
    });
    await fetch("https://example.org/").catch(() => {});
    const image = new Image();
    image.src = "https://example.org/pixel.png";
    const script = document.createElement("script");
    script.textContent = "self.escaped = true";
    document.body.append(script, image);
    document.body.setAttribute("style", "color: red");
    // Not at once: what a debugger evaluates may evaluate text, what the page does later may not.
    await new Promise((resolve) => {
      setTimeout(() => {
        try {
          eval("self.escaped = true");
        } catch {}
        setTimeout(resolve, 100);
      });
    });
    return { seen, escaped: "escaped" in self };
  });
  assert.equal(refused.escaped, false);
  for (const directive of ["connect-src", "img-src", "script-src-elem", "style-src-attr", "script-src"]) {
    assert.ok(refused.seen.includes(directive), `${directive} in ${refused.seen}`);
  }
});

const DAMAGED = [
  "tflite_int8.tflite",
  "bundle.json",
  "decision.js",
  "golden_images.zlib",
  "runtime/core/wasm/litert_wasm_internal.wasm",
  "runtime/core/index.js",
];
for (const name of DAMAGED) {
  test(`one flipped byte in ${name}: a clear answer, no prediction`, async (t) => {
    const replace = new Map([[name, flipByte(join(BUNDLE, name), name.endsWith(".js"))]]);
    const { page } = await openApp(t, { server: { replace } });
    assert.equal(await started(page), "failed");
    const text = (await page.textContent("#result")) + (await page.textContent("#update"));
    assert.match(text, new RegExp(`${name.replaceAll(".", "\\.")} was changed`));
    assert.ok(await page.isDisabled("#file"));
  });
}

test("a new version waits until it is asked for, and a damaged one is refused", async (t) => {
  const folder = mkdtempSync(join(tmpdir(), "lesiontk-web-"));
  t.after(() => rmSync(folder, { recursive: true }));
  cpSync(BUNDLE, folder, { recursive: true });
  const { page } = await openApp(t, { folder });
  await started(page);
  const hash = () => page.textContent("#about dd:nth-of-type(2)");
  const before = await hash();

  const list = readFileSync(join(folder, "files.js"), "utf8");
  writeFileSync(join(folder, "files.js"), list.replace(/"id": "\w{8}/, '"id": "00000000'));
  writeFileSync(join(folder, "style.css"), "body {}");
  await page.reload();
  await page.locator("#update").waitFor();
  assert.match(await page.textContent("#update"), /An update was refused: style.css was changed/);
  assert.equal(await started(page), "ready");
  assert.equal(await hash(), before);

  cpSync(join(BUNDLE, "style.css"), join(folder, "style.css"));
  await page.reload();
  await page.locator("#update button").waitFor();
  assert.equal(await hash(), before);
  await Promise.all([page.waitForNavigation(), page.click("#update button")]);
  await started(page);
  assert.match(await hash(), /^00000000/);
});
