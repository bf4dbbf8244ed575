/** The page for its readers: sizes, themes, keyboard, screen readers, history, refusals. */

import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { AxeBuilder } from "@axe-core/playwright";
import { choose, exportHistory, FOLDER, openApp, started } from "./browser.js";

const [{ png: PICTURE }] = JSON.parse(readFileSync(join(FOLDER, "expected.json"), "utf8"));
const IMAGE = join(FOLDER, "images", PICTURE);
const SIZES = { phone: [360, 740], tablet: [1024, 768] };

for (const [device, [width, height]] of Object.entries(SIZES)) {
  for (const colorScheme of /** @type {const} */ (["light", "dark"])) {
    test(`${device}, ${colorScheme}: accessible, nothing cut off`, async (t) => {
      const context = { viewport: { width, height }, colorScheme, hasTouch: true };
      const { page } = await openApp(t, { context });
      await started(page);
      const audit = async () => {
        const { violations } = await new AxeBuilder({ page }).analyze();
        assert.deepEqual(violations.map(({ id, nodes }) => [id, nodes[0].html]), []);
      };
      await audit();
      await choose(page, IMAGE);
      await audit();
      const { scroll, client } = await page.evaluate(() => ({
        scroll: document.documentElement.scrollWidth,
        client: document.documentElement.clientWidth,
      }));
      assert.equal(scroll, client);
      for (const button of await page.locator("button:visible, .button:visible").all()) {
        const box = await button.boundingBox();
        assert.ok(box && box.height >= 44 && box.x >= 0 && box.x + box.width <= width);
      }
      const path = join(FOLDER, `${device}-${colorScheme}.png`);
      await page.screenshot({ path, fullPage: true });
    });
  }
}

test("everything is reached by keyboard", async (t) => {
  const { page } = await openApp(t);
  await started(page);
  await choose(page, IMAGE);
  await page.reload(); // the Tab key starts at the top
  await started(page);
  await page.locator("#history li").waitFor();
  const reached = [];
  for (let press = 0; press < 8; press++) {
    await page.keyboard.press("Tab");
    reached.push(
      await page.evaluate(() => {
        const { activeElement: it } = document;
        return it?.id || it?.getAttribute("aria-label")?.replace(/ of .*/, "") || it?.tagName;
      }),
    );
  }
  const order = ["camera", "file", "export", "delete-all", "Delete the answer", "self-test"];
  assert.deepEqual(reached.slice(0, 6), order);
  await page.focus("#camera");
  await page.keyboard.press("Enter");
  await page.locator("#capture").waitFor();
});

test("the focus is back on the control after the answer", async (t) => {
  const { page } = await openApp(t);
  await started(page);
  await page.focus("#file");
  await choose(page, IMAGE);
  assert.equal(await page.evaluate(() => document.activeElement?.id), "file");
  await page.keyboard.press("Tab");
  assert.equal(await page.evaluate(() => document.activeElement?.id), "export");
});

test("it says that it is research software", async (t) => {
  const { page } = await openApp(t);
  assert.ok(await page.getByText("Research software, not a medical device.", { exact: true }).isVisible());
});

test("it says which gates its engine did not pass", async (t) => {
  const { page } = await openApp(t);
  const override = page.getByText("Research override.", { exact: true });
  await override.waitFor();
  const reason = await page.locator("#override-reason").textContent();
  assert.equal(reason, "the engine was not tested by gates.");
});

test("the history survives a reload, is exported, and is deleted", async (t) => {
  const { page } = await openApp(t);
  await started(page);
  await choose(page, IMAGE);
  await choose(page, IMAGE);
  await page.reload();
  await started(page);
  assert.equal(await page.locator("#history li").count(), 2);
  const [entry] = await exportHistory(page);
  assert.equal(entry.prediction.image, PICTURE);
  assert.match(entry.bundle_sha256, /^[0-9a-f]{64}$/);
  assert.match(entry.thumbnail, /^data:image\/jpeg/);
  assert.ok(entry.operating_point.threshold === 0.5 && entry.latency_ms >= 0);

  await page.locator("#history button").first().click();
  await page.waitForFunction(() => document.querySelectorAll("#history li").length === 1);
  page.once("dialog", (dialog) => dialog.dismiss());
  await page.click("#delete-all");
  assert.equal(await page.locator("#history li").count(), 1);
  page.once("dialog", (dialog) => dialog.accept());
  await page.click("#delete-all");
  await page.waitForFunction(() => document.querySelectorAll("#history li").length === 0);
  assert.ok(await page.isDisabled("#export"));
});

test("a full storage loses no answer", async (t) => {
  const { page } = await openApp(t);
  await started(page);
  await page.evaluate(() => {
    IDBObjectStore.prototype.add = () => {
      throw new DOMException("the quota is exceeded", "QuotaExceededError");
    };
  });
  const text = await choose(page, IMAGE);
  assert.match(text, /Probabilities.*Not saved in the history: the quota is exceeded/s);
});

test("pictures that cannot be trusted are refused with the reason, and the next is answered", async (t) => {
  const { page, errors } = await openApp(t);
  await started(page);
  const says = {
    empty: /is empty/,
    truncated: /is incomplete/,
    not_an_image: /is not a picture/,
    too_large: /10,000 × 10,000 pixels; expected at most 50 megapixels/,
    too_small: /7 × 100 pixels; expected at least 8/,
    unsupported: /four color channels/,
    corrupt: /is damaged \(checksum of IDAT\)/,
    corrupt_pixels: /cannot be decoded/,
  };
  const files = readdirSync(join(FOLDER, "refused"));
  assert.equal(files.length, Object.keys(says).length);
  for (const file of files) {
    const text = await choose(page, join(FOLDER, "refused", file));
    assert.match(text, /^Refused/, file);
    assert.match(text, says[file.split(".")[0]], file);
  }
  assert.equal(await page.locator("#history li").count(), 0);
  assert.match(await choose(page, IMAGE), /Probabilities/);
  assert.deepEqual(errors, []);
});
