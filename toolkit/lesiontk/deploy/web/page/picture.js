/** Pixels of an image file, upright, as the toolkit decodes them. */

import { PictureError, readContainer } from "./container.js";

/** @typedef {import("./resize.js").Pixels} Pixels */

/**
 * Return the RGBA pixels of a file. Transparent pixels are blended with white; color profiles are
 * ignored, as in training. Throws `PictureError` for anything but a complete picture.
 *
 * @param {Blob} file
 * @returns {Promise<Pixels>}
 */
export async function decodePicture(file) {
  const { format } = readContainer(new Uint8Array(await file.arrayBuffer()));
  /** @type {ImageBitmap} */
  let bitmap;
  try {
    bitmap = await createImageBitmap(file, {
      colorSpaceConversion: "none",
      imageOrientation: "from-image",
    });
  } catch {
    const message = `The ${format} file cannot be decoded. Take the picture again.`;
    throw new PictureError("corrupt", message);
  }
  try {
    return pixelsOf(bitmap);
  } catch {
    const size = `${bitmap.width} × ${bitmap.height} pixels`;
    const message = `The picture of ${size} does not fit into this device's memory. Scale it down.`;
    throw new PictureError("too_large", message);
  } finally {
    bitmap.close();
  }
}

/** @param {ImageBitmap} bitmap @returns {Pixels} */
function pixelsOf(bitmap) {
  const { width, height } = bitmap;
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  if (!context) throw new Error("no canvas");
  context.fillStyle = "#fff";
  context.fillRect(0, 0, width, height);
  context.drawImage(bitmap, 0, 0);
  return context.getImageData(0, 0, width, height);
}
