/** The page's modules without a browser: types, crop and resize, decision. */

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { FOLDER } from "./browser.js";

const HERE = import.meta.dirname;
const PAGE = join(HERE, "..", "..", "toolkit", "lesiontk", "deploy", "web", "page");
const { cropAndResize } = await import(join(PAGE, "resize.js"));
const { decide } = await import(join(PAGE, "decision.js"));
const readJson = (...path) => JSON.parse(readFileSync(join(...path), "utf8"));
const sha256 = (bytes) => createHash("sha256").update(bytes).digest("hex");

for (const project of ["tsconfig.json", "tsconfig.worker.json"]) {
  test(`the types of ${project} hold`, () => {
    const compiler = join(HERE, "node_modules", "typescript", "bin", "tsc");
    execFileSync(process.execPath, [compiler, "-p", join(HERE, project)], { stdio: "pipe" });
  });
}

/** The picture of tests/golden/make_preprocess.py, with an alpha channel. */
function makeInput(height, width) {
  const data = new Uint8ClampedArray(height * width * 4);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      for (let c = 0; c < 3; c++) {
        const value = 7 * x + 13 * y + 101 * c + Math.floor((x * y) / 3) * (c + 1);
        data[(y * width + x) * 4 + c] = value % 256;
      }
      data[(y * width + x) * 4 + 3] = 255;
    }
  }
  return { width, height, data };
}

const CASES = readJson(HERE, "..", "golden", "preprocess.json");
for (const entry of CASES.cases ?? CASES) {
  const { height, width, image_size: size, crop_mode: mode } = entry;
  test(`${width} x ${height} to ${size}, ${mode}, are the golden bytes`, () => {
    assert.equal(sha256(cropAndResize(makeInput(height, width), size, mode)), entry.output_sha256);
  });
}

test("another filter would give other bytes", () => {
  const { data, ...size } = makeInput(240, 320);
  const shifted = { ...size, data: data.map((value) => value ^ 1) };
  const bytes = sha256(cropAndResize(shifted, 96, "crop"));
  assert.notEqual(bytes, sha256(cropAndResize({ ...size, data }, 96, "crop")));
});

test("an unknown crop mode is refused", () => {
  assert.throws(() => cropAndResize(makeInput(9, 9), 3, "pad"), /expected crop or stretch/);
});

test("decisions are the toolkit's, digit for digit", () => {
  const cases = readJson(FOLDER, "decisions.json");
  assert.ok(cases.length >= 200);
  for (const { values, labels, point, temperature, decision } of cases) {
    assert.deepEqual(decide(values, labels, point, temperature), decision);
  }
});
