/**
 * What an image file is, before anything the size of its pixels is allocated.
 *
 * Browsers show the whole part of a truncated image and take any size that fits into memory; a
 * classifier must refuse both. Sources: JPEG ITU-T T.81 annex B; PNG third edition, section 5; WebP
 * RFC 9649.
 */

export const MAX_PIXELS = 50_000_000;
export const MAX_BYTES = 200 * 2 ** 20;
const MIN_SIDE = 8;

/** A picture that is refused; `reason` is one word for programs, as in the toolkit. */
export class PictureError extends Error {
  /** @param {string} reason @param {string} message */
  constructor(reason, message) {
    super(message);
    this.name = "PictureError";
    this.reason = reason;
  }
}

const ACCEPTED = "Choose a JPEG, PNG or WebP picture.";
const AGAIN = "Copy the file again, or take the picture again.";
const FOREIGN = /** @type {const} */ ([
  [0, "GIF8", "a GIF"],
  [0, "%PDF", "a PDF document"],
  [0, "BM", "a BMP"],
  [0, "II*\0", "a TIFF"],
  [0, "MM\0*", "a TIFF"],
  [4, "ftyp", "a HEIC, AVIF or video file"],
  [128, "DICM", "a DICOM file"],
]);

/** @typedef {{format: string, width: number, height: number}} Container */

/**
 * Return the format and size of a complete image file. Throws `PictureError` for anything else.
 *
 * @param {Uint8Array} bytes
 * @returns {Container}
 */
export function readContainer(bytes) {
  const length = bytes.length.toLocaleString("en");
  if (bytes.length === 0) throw new PictureError("empty", `The file is empty. ${AGAIN}`);
  if (bytes.length > MAX_BYTES) {
    throw new PictureError("too_large", `The file has ${length} bytes; expected at most 200 MB.`);
  }
  const found = recognize(bytes);
  if (!found) {
    const foreign = FOREIGN.find(([at, magic]) => text(bytes, at, magic.length) === magic);
    if (foreign) {
      throw new PictureError("unsupported", `The file is ${foreign[2]}. ${ACCEPTED}`);
    }
    throw new PictureError("not_an_image", `The file is not a picture. ${ACCEPTED}`);
  }
  const { width, height } = found;
  const size = `${width.toLocaleString("en")} × ${height.toLocaleString("en")} pixels`;
  if (width * height > MAX_PIXELS) {
    const message = `The picture has ${size}; expected at most 50 megapixels. Scale it down.`;
    throw new PictureError("too_large", message);
  }
  if (Math.min(width, height) < MIN_SIDE) {
    const message = `The picture has ${size}; expected at least ${MIN_SIDE} a side.`;
    throw new PictureError("too_small", `${message} Use the full picture, not its thumbnail.`);
  }
  return found;
}

/** @param {Uint8Array} bytes @returns {Container | null} */
function recognize(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (text(bytes, 0, 3) === "\xff\xd8\xff") return readJpeg(view);
  if (text(bytes, 0, 8) === "\x89PNG\r\n\x1a\n") return readPng(view, bytes);
  if (text(bytes, 0, 4) === "RIFF" && text(bytes, 8, 4) === "WEBP") return readWebp(view, bytes);
  return null;
}

/** @param {Uint8Array} bytes @param {number} at @param {number} length */
const text = (bytes, at, length) => String.fromCharCode(...bytes.subarray(at, at + length));

/** @param {string} format */
const truncated = (format) =>
  new PictureError("truncated", `The ${format} file is incomplete. ${AGAIN}`);

/** @param {string} format @param {string} what */
const corrupt = (format, what) =>
  new PictureError("corrupt", `The ${format} file is damaged (${what}). ${AGAIN}`);

/** @param {DataView} view @returns {Container} */
function readJpeg(view) {
  /** @type {Container | null} */
  let frame = null;
  for (let at = 2; ; ) {
    if (at + 4 > view.byteLength) throw truncated("JPEG");
    const marker = view.getUint8(at + 1);
    if (view.getUint8(at) !== 0xff || marker === 0xff) {
      at += 1; // padding between segments
      continue;
    }
    if (marker <= 0x01 || (marker >= 0xd0 && marker <= 0xd8)) {
      at += 2; // a marker without a segment
      continue;
    }
    if (marker === 0xda) {
      if (!frame) throw corrupt("JPEG", "no frame before its scan");
      if (!endsScan(view, at)) throw truncated("JPEG");
      return frame;
    }
    if (marker === 0xd9) throw corrupt("JPEG", "no image data");
    const length = view.getUint16(at + 2);
    if (length < 2) throw corrupt("JPEG", "a segment without length");
    if (at + 2 + length > view.byteLength) throw truncated("JPEG");
    const isFrame = marker >= 0xc0 && marker <= 0xcf && ![0xc4, 0xc8, 0xcc].includes(marker);
    if (isFrame && length >= 8) {
      frame = { format: "JPEG", height: view.getUint16(at + 5), width: view.getUint16(at + 7) };
      if (view.getUint8(at + 9) === 4) {
        const message = "The JPEG has four color channels (CMYK). Save it as RGB.";
        throw new PictureError("unsupported", message);
      }
    }
    at += 2 + length;
  }
}

/** Whether an end marker follows a scan; some cameras append bytes of their own. */
/** @param {DataView} view @param {number} from */
function endsScan(view, from) {
  for (let at = view.byteLength - 2; at > from; at--) {
    if (view.getUint8(at) === 0xff && view.getUint8(at + 1) === 0xd9) return true;
  }
  return false;
}

/** @param {DataView} view @param {Uint8Array} bytes @returns {Container} */
function readPng(view, bytes) {
  /** @type {Container | null} */
  let header = null;
  for (let at = 8; ; ) {
    if (at + 12 > view.byteLength) throw truncated("PNG");
    const length = view.getUint32(at);
    const end = at + 12 + length;
    if (end > view.byteLength) throw truncated("PNG");
    const kind = text(bytes, at + 4, 4);
    if (["IHDR", "PLTE", "tRNS", "IDAT", "IEND"].includes(kind)) {
      if (crc32(bytes.subarray(at + 4, end - 4)) !== view.getUint32(end - 4)) {
        throw corrupt("PNG", `checksum of ${kind}`);
      }
    }
    if (at === 8) {
      if (kind !== "IHDR" || length !== 13) throw corrupt("PNG", "no header");
      header = { format: "PNG", width: view.getUint32(16), height: view.getUint32(20) };
    }
    if (kind === "IEND" && header) return header;
    at = end;
  }
}

const CRC_TABLE = Int32Array.from({ length: 256 }, (_, byte) => {
  for (let bit = 0; bit < 8; bit++) byte = byte & 1 ? (byte >>> 1) ^ 0xedb88320 : byte >>> 1;
  return byte;
});

/** @param {Uint8Array} bytes */
function crc32(bytes) {
  let crc = -1;
  for (const byte of bytes) crc = (crc >>> 8) ^ CRC_TABLE[(crc ^ byte) & 255];
  return ~crc >>> 0;
}

/** @param {DataView} view @param {Uint8Array} bytes @returns {Container} */
function readWebp(view, bytes) {
  if (bytes.length < 30 || 8 + view.getUint32(4, true) > bytes.length + 1) throw truncated("WebP");
  const format = "WebP";
  /** @param {number} at */
  const uint24 = (at) => view.getUint16(at, true) + (view.getUint8(at + 2) << 16);
  switch (text(bytes, 12, 4)) {
    case "VP8X":
      return { format, width: uint24(24) + 1, height: uint24(27) + 1 };
    case "VP8L": {
      const bits = view.getUint32(21, true);
      return { format, width: (bits & 0x3fff) + 1, height: ((bits >>> 14) & 0x3fff) + 1 };
    }
    case "VP8 ":
      return {
        format,
        width: view.getUint16(26, true) & 0x3fff,
        height: view.getUint16(28, true) & 0x3fff,
      };
    default:
      throw corrupt(format, "unknown chunk");
  }
}
