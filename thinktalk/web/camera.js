// Camera or screen -> JPEG pictures, as many a second as the conversation takes.

const LONGEST_SIDE = 768, QUALITY = 0.8;

export class Camera {
  #stream;
  #canvas = document.createElement("canvas");
  onlost = () => {};

  /** `video`: the element that shows the user what is seen. */
  constructor(video) {
    this.video = video;
  }

  get on() {
    return Boolean(this.#stream);
  }

  /** source: "camera" | "screen" */
  async start(source) {
    this.stop();
    const stream = source === "screen"
      ? await navigator.mediaDevices.getDisplayMedia({ video: { frameRate: 5 }, audio: false })
      : await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment", width: { ideal: 1280 } } });
    this.#stream = stream;
    this.video.srcObject = stream;
    stream.getVideoTracks()[0].addEventListener("ended", () => { // "stop sharing" in the browser's own bar
      if (this.#stream !== stream) return;
      this.stop();
      this.onlost();
    });
    await this.video.play();
  }

  stop() {
    this.#stream?.getTracks().forEach((track) => track.stop());
    this.#stream = undefined;
    this.video.srcObject = null;
  }

  /** The picture now, as a data URL; null when there is none. */
  picture() {
    if (!this.on || !this.video.videoWidth) return null;
    return shrunk(this.video, this.video.videoWidth, this.video.videoHeight, this.#canvas);
  }
}

/** A drawable as a JPEG data URL, its longest side at most 768. */
export function shrunk(source, width, height, canvas = document.createElement("canvas")) {
  const scale = Math.min(1, LONGEST_SIDE / Math.max(width, height));
  canvas.width = Math.max(1, Math.round(scale * width));
  canvas.height = Math.max(1, Math.round(scale * height));
  const pen = canvas.getContext("2d");
  pen.fillStyle = "#fff"; // what is transparent
  pen.fillRect(0, 0, canvas.width, canvas.height);
  pen.drawImage(source, 0, 0, canvas.width, canvas.height);
  return canvas.toDataURL("image/jpeg", QUALITY);
}
