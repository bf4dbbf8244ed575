/**
 * Crop and resize, equal to the toolkit's to the last bit.
 *
 * The toolkit resizes with Pillow: an antialiased bilinear filter whose weights are rounded to 22
 * bits, rows first, each pass rounded to 8 bits. `tests/golden/preprocess.json` holds both equal.
 */

const PRECISION_BITS = 22;
const HALF = 1 << (PRECISION_BITS - 1);

/** @typedef {{width: number, height: number, data: Uint8ClampedArray | Uint8Array}} Pixels RGBA */
/** @typedef {{first: Int32Array, count: Int32Array, taps: number, weights: Int32Array}} Filter */

/**
 * Return the filter that reduces `extent` pixels, from `start`, to `size`.
 *
 * @param {number} length pixels of the whole row or column: the filter reaches beyond the crop
 * @param {number} start
 * @param {number} extent
 * @param {number} size
 * @returns {Filter}
 */
function makeFilter(length, start, extent, size) {
  const scale = extent / size;
  const support = Math.max(scale, 1);
  const taps = Math.ceil(support) * 2 + 1;
  const first = new Int32Array(size);
  const count = new Int32Array(size);
  const weights = new Int32Array(size * taps);
  const row = new Float64Array(taps);
  for (let out = 0; out < size; out++) {
    const center = start + (out + 0.5) * scale;
    const low = Math.max(0, Math.trunc(center - support + 0.5));
    const high = Math.min(length, Math.trunc(center + support + 0.5));
    let sum = 0;
    for (let tap = 0; tap < high - low; tap++) {
      const distance = Math.abs((tap + low - center + 0.5) * (1 / support));
      row[tap] = distance < 1 ? 1 - distance : 0;
      sum += row[tap];
    }
    for (let tap = 0; tap < high - low; tap++) {
      const weight = sum === 0 ? row[tap] : row[tap] / sum;
      weights[out * taps + tap] = Math.trunc(0.5 + weight * (1 << PRECISION_BITS));
    }
    first[out] = low;
    count[out] = high - low;
  }
  return { first, count, taps, weights };
}

/** @param {number} sum */
const toByte = (sum) => Math.min(255, Math.max(0, sum >> PRECISION_BITS));

/**
 * Return RGB bytes [S, S, 3] of an image: its largest centered square, or with "stretch" the whole.
 *
 * @param {Pixels} image
 * @param {number} size S
 * @param {string} cropMode "crop" or "stretch"
 * @returns {Uint8Array<ArrayBuffer>}
 */
export function cropAndResize(image, size, cropMode) {
  if (cropMode !== "crop" && cropMode !== "stretch") {
    throw new Error(`crop_mode is ${cropMode}; expected crop or stretch.`);
  }
  const { width, height, data } = image;
  const side = Math.min(width, height);
  const [left, top, across, down] =
    cropMode === "crop"
      ? [Math.floor((width - side) / 2), Math.floor((height - side) / 2), side, side]
      : [0, 0, width, height];
  const columns = makeFilter(width, left, across, size);
  const rows = makeFilter(height, top, down, size);

  const begin = rows.first[0];
  const end = rows.first[size - 1] + rows.count[size - 1];
  const narrow = new Uint8Array((end - begin) * size * 3);
  for (let y = begin; y < end; y++) {
    for (let x = 0; x < size; x++) {
      let [r, g, b] = [HALF, HALF, HALF];
      let at = (y * width + columns.first[x]) * 4;
      for (let tap = 0; tap < columns.count[x]; tap++, at += 4) {
        const weight = columns.weights[x * columns.taps + tap];
        r += data[at] * weight;
        g += data[at + 1] * weight;
        b += data[at + 2] * weight;
      }
      const to = ((y - begin) * size + x) * 3;
      narrow[to] = toByte(r);
      narrow[to + 1] = toByte(g);
      narrow[to + 2] = toByte(b);
    }
  }

  const stride = size * 3;
  const result = new Uint8Array(size * stride);
  for (let y = 0; y < size; y++) {
    for (let column = 0; column < stride; column++) {
      let sum = HALF;
      let at = (rows.first[y] - begin) * stride + column;
      for (let tap = 0; tap < rows.count[y]; tap++, at += stride) {
        sum += narrow[at] * rows.weights[y * rows.taps + tap];
      }
      result[y * stride + column] = toByte(sum);
    }
  }
  return result;
}
