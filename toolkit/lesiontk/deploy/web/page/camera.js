/** The device's camera: what is inside the square of the preview is what is classified. */

/** A camera that shows itself in a `<video>` element. */
export class Camera {
  /** @type {MediaStream | null} */
  #stream = null;
  #video;

  /** @param {HTMLVideoElement} video */
  constructor(video) {
    this.#video = video;
  }

  get isOn() {
    return this.#stream !== null;
  }

  /** Whether the browser can switch the camera's light. */
  get hasTorch() {
    return this.#track()?.getCapabilities?.().torch === true;
  }

  /** Throws an error for the reader if there is no camera, or no permission. */
  async start() {
    if (!navigator.mediaDevices) {
      throw new Error("The camera needs HTTPS or localhost. Choose a picture file instead.");
    }
    try {
      this.#stream = await navigator.mediaDevices.getUserMedia({
        audio: false,
        video: { facingMode: "environment", width: { ideal: 1920 }, height: { ideal: 1080 } },
      });
    } catch (error) {
      const denied = error instanceof DOMException && error.name === "NotAllowedError";
      throw new Error(
        denied
          ? "The camera is not permitted. Allow it in the browser's settings for this page."
          : "No camera can be used. Connect one, or choose a picture file.",
      );
    }
    this.#video.srcObject = this.#stream;
    await this.#video.play();
  }

  stop() {
    this.#stream?.getTracks().forEach((track) => track.stop());
    this.#stream = null;
    this.#video.srcObject = null;
  }

  /** @param {boolean} on */
  async setTorch(on) {
    await this.#track()?.applyConstraints(/** @type {any} */ ({ advanced: [{ torch: on }] }));
  }

  /** Return the square inside the frame as a PNG file, without loss. @returns {Promise<Blob>} */
  async capture() {
    const { videoWidth: width, videoHeight: height } = this.#video;
    const side = Math.min(width, height);
    if (side === 0) throw new Error("The camera has no picture yet. Wait a moment.");
    const canvas = new OffscreenCanvas(side, side);
    const context = canvas.getContext("2d");
    context?.drawImage(this.#video, Math.floor((side - width) / 2), Math.floor((side - height) / 2));
    return canvas.convertToBlob({ type: "image/png" });
  }

  /** @returns {any} the track; `torch` is not in every list of types */
  #track() {
    return this.#stream?.getVideoTracks()[0];
  }
}
