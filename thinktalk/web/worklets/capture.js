// Microphone at the sound card's rate -> mono 24 kHz, in pieces of 40 ms, each with its peak.
//
// posts { pcm: Float32Array(960), peak, at }: `at` is the context's time at which the piece was complete.

const RATE = 24000, PIECE = 960, HALF_ZEROS = 16;

class Capture extends AudioWorkletProcessor {
  #step = sampleRate / RATE; // input samples per output sample
  #cutoff = Math.min(1, RATE / sampleRate); // of the lower of the two Nyquist frequencies
  #half = Math.ceil(HALF_ZEROS / Math.min(1, RATE / sampleRate));
  #input = new Float32Array(2 * this.#half); // the filter's history: silence at first
  #next = this.#half; // where in #input the next output sample lies
  #piece = new Float32Array(PIECE);
  #filled = 0;
  #filters = new Map(); // by phase; 48 kHz has one, 44.1 kHz eighty

  process([channels]) {
    const frames = channels[0]?.length ?? 0;
    if (!frames) return true;
    const mono = new Float32Array(frames);
    for (const channel of channels) {
      for (let i = 0; i < frames; i++) mono[i] += channel[i] / channels.length;
    }
    if (this.#step === 1) mono.forEach((sample) => this.#put(sample));
    else this.#resample(mono);
    return true;
  }

  /** Windowed sinc, Hann window: 16 zeros to each side. */
  #resample(mono) {
    const input = new Float32Array(this.#input.length + mono.length);
    input.set(this.#input);
    input.set(mono, this.#input.length);
    while (this.#next + this.#half < input.length) {
      const whole = Math.round(this.#next), taps = this.#filter(this.#next - whole);
      let sum = 0;
      for (let i = 0; i < taps.length; i++) sum += input[whole - this.#half + 1 + i] * taps[i];
      this.#put(sum);
      this.#next += this.#step;
    }
    const drop = Math.max(0, Math.floor(this.#next) - this.#half);
    this.#input = input.slice(drop);
    this.#next -= drop;
  }

  #filter(phase) {
    const key = Math.round(phase * 1e5);
    const known = this.#filters.get(key);
    if (known) return known;
    const taps = Float32Array.from({ length: 2 * this.#half - 1 }, (_, i) => {
      const t = i - this.#half + 1 - phase, x = Math.PI * t * this.#cutoff;
      const window = 0.5 + 0.5 * Math.cos((Math.PI * t) / this.#half);
      return this.#cutoff * window * (x === 0 ? 1 : Math.sin(x) / x);
    });
    if (this.#filters.size < 1024) this.#filters.set(key, taps);
    return taps;
  }

  #put(sample) {
    this.#piece[this.#filled++] = sample;
    if (this.#filled < PIECE) return;
    const pcm = this.#piece;
    const peak = pcm.reduce((most, s) => Math.max(most, Math.abs(s)), 0);
    this.port.postMessage({ pcm, peak, at: currentTime }, [pcm.buffer]);
    this.#piece = new Float32Array(PIECE);
    this.#filled = 0;
  }
}

registerProcessor("capture", Capture);
