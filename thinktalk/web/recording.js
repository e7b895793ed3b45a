// Both sides as they sounded, on one clock -> a stereo WAV: the microphone left, the voice right. The last half hour.

import { RATE, wav } from "./sound.js";

const LONGEST_S = 1800, JITTER_S = 0.1;

export class Recording {
  #pieces = []; // { side: 0 | 1, at: seconds, pcm: Int16Array }
  #ends = [0, 0];
  #coming = []; // of the voice, not played yet: { reply, pcm }
  #taken = 0; // samples of the reply under way that were played

  /** Sound of one side; its last sample at performance.now() = `end`. */
  #add(side, pcm, end) {
    const told = end / 1000 - pcm.length / RATE, last = this.#ends[side];
    const start = told < last + JITTER_S ? last : told; // the clock trembles, the sound does not
    this.#ends[side] = start + pcm.length / RATE;
    this.#pieces.push({ side, at: start, pcm: Int16Array.from(pcm, (s) => 32767 * Math.max(-1, Math.min(1, s))) });
    while (this.#pieces[0].at < start - LONGEST_S) this.#pieces.shift();
  }

  microphone(pcm, end) {
    this.#add(0, pcm, end);
  }

  /** Sound that came and may be played. */
  coming(reply, pcm) {
    this.#coming.push({ reply, pcm });
  }

  /** The reply has played so many samples by `now`. */
  played(reply, samples, now) {
    let left = samples - this.#taken;
    this.#taken = samples;
    while (left > 0 && this.#coming[0]?.reply === reply) {
      const piece = this.#coming[0], part = piece.pcm.subarray(0, left);
      left -= part.length;
      this.#add(1, part, now - (1000 * left) / RATE);
      if (part.length === piece.pcm.length) this.#coming.shift();
      else piece.pcm = piece.pcm.subarray(part.length);
    }
  }

  /** It is over: what was not played never sounded. */
  ended(reply) {
    this.#coming = this.#coming.filter((piece) => piece.reply !== reply);
    this.#taken = 0;
  }

  clear() {
    this.#pieces = [];
    this.#ends = [0, 0];
    this.#coming = [];
    this.#taken = 0;
  }

  get empty() {
    return !this.#pieces.length;
  }

  wav() {
    const start = this.#pieces.reduce((first, { at }) => Math.min(first, at), Infinity);
    const length = Math.ceil((Math.max(...this.#ends) - start) * RATE) + 1;
    const sides = [new Float32Array(length), new Float32Array(length)];
    for (const { side, at, pcm } of this.#pieces) {
      const first = Math.round((at - start) * RATE);
      pcm.forEach((s, i) => { if (first + i < length) sides[side][first + i] = s / 32767; });
    }
    return wav(sides);
  }
}
