// Peaks of both sides -> two waveforms that scroll: the last eight seconds, the newest at the right.

const BARS = 200, BAR_MS = 40;

export class Waves {
  #sides = { you: new Float32Array(BARS), voice: new Float32Array(BARS) };
  #next = { you: 0, voice: 0 }; // the peak since the last bar
  #until = performance.now();
  #canvases;
  #quiet = 0; // bars since anything sounded: then nothing is drawn
  #still = matchMedia("(prefers-reduced-motion: reduce)");

  constructor(you, voice) {
    this.#canvases = { you, voice };
    requestAnimationFrame(() => this.#frame());
  }

  put(side, peak) {
    this.#next[side] = Math.max(this.#next[side], peak);
    if (peak > 0) this.#quiet = 0;
  }

  #frame() {
    const now = performance.now();
    if (now - this.#until > 1000) this.#until = now - 1000; // the tab was hidden
    let moved = false;
    while (now - this.#until >= BAR_MS) {
      for (const [side, bars] of Object.entries(this.#sides)) {
        bars.copyWithin(0, 1);
        bars[BARS - 1] = this.#next[side];
        this.#next[side] = 0;
      }
      this.#until += BAR_MS;
      moved = ++this.#quiet < BARS;
    }
    if (moved && !(this.#still.matches && this.#quiet % 12)) for (const side of ["you", "voice"]) this.#draw(side);
    requestAnimationFrame(() => this.#frame());
  }

  #draw(side) {
    const canvas = this.#canvases[side], scale = devicePixelRatio;
    const width = Math.round(canvas.clientWidth * scale), height = Math.round(canvas.clientHeight * scale);
    if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
    const pen = canvas.getContext("2d");
    pen.clearRect(0, 0, width, height);
    pen.fillStyle = getComputedStyle(canvas).color;
    const bar = width / BARS;
    this.#sides[side].forEach((peak, i) => {
      const tall = Math.max(scale, height * Math.min(1, Math.sqrt(peak))); // the root: soft sounds are seen, too
      pen.fillRect(i * bar, (height - tall) / 2, Math.max(1, 0.7 * bar), tall);
    });
  }
}
