// Microphone -> pieces of 24 kHz pcm; replies -> the loudspeaker. Both work in audio worklets, off the page's thread.

export const RATE = 24000;

/** Base64 of 16-bit little-endian samples, as the Realtime API wants them. */
export function encodePcm(pcm) {
  const ints = new DataView(new ArrayBuffer(2 * pcm.length));
  pcm.forEach((s, i) => ints.setInt16(2 * i, Math.round(32767 * Math.max(-1, Math.min(1, s))), true));
  const bytes = new Uint8Array(ints.buffer);
  let text = "";
  for (let i = 0; i < bytes.length; i += 8192) text += String.fromCharCode(...bytes.subarray(i, i + 8192));
  return btoa(text);
}

export function decodePcm(base64) {
  const bytes = Uint8Array.from(atob(base64), (c) => c.charCodeAt(0));
  const ints = new DataView(bytes.buffer);
  return Float32Array.from({ length: bytes.length >> 1 }, (_, i) => ints.getInt16(2 * i, true) / 32768);
}

/** A WAV file (16 bit) of one or two channels. */
export function wav(channels, rate = RATE) {
  const frames = channels[0].length, size = 2 * frames * channels.length;
  const file = new DataView(new ArrayBuffer(44 + size));
  const text = (at, letters) => [...letters].forEach((c, i) => file.setUint8(at + i, c.charCodeAt(0)));
  text(0, "RIFF");
  file.setUint32(4, 36 + size, true);
  text(8, "WAVEfmt ");
  file.setUint32(16, 16, true);
  file.setUint16(20, 1, true);
  file.setUint16(22, channels.length, true);
  file.setUint32(24, rate, true);
  file.setUint32(28, 2 * rate * channels.length, true);
  file.setUint16(32, 2 * channels.length, true);
  file.setUint16(34, 16, true);
  text(36, "data");
  file.setUint32(40, size, true);
  let at = 44;
  for (let i = 0; i < frames; i++) {
    for (const channel of channels) {
      file.setInt16(at, Math.round(32767 * Math.max(-1, Math.min(1, channel[i]))), true);
      at += 2;
    }
  }
  return new Blob([file.buffer], { type: "audio/wav" });
}

/** Mono 24 kHz samples of a sound file. */
export async function decodeFile(file) {
  const context = new OfflineAudioContext(1, 1, RATE); // decodes to its own rate
  const sound = await context.decodeAudioData(await file.arrayBuffer());
  const mono = new Float32Array(sound.length);
  for (let c = 0; c < sound.numberOfChannels; c++) {
    sound.getChannelData(c).forEach((s, i) => (mono[i] += s / sound.numberOfChannels));
  }
  return mono;
}

/** `onpiece({ pcm, peak, at })` 25 times a second; `at` in performance.now() milliseconds, of the piece's end. */
export class Microphone {
  #open; // a promise of { stream, context }: on, or about to be
  onpiece = () => {};
  onlost = () => {};

  get on() {
    return Boolean(this.#open);
  }

  /** Errors: what getUserMedia throws; then it is off. */
  async start() {
    const open = (this.#open ??= this.#begin());
    try {
      await open;
    } catch (error) {
      if (this.#open === open) this.#open = undefined;
      throw error;
    }
  }

  async #begin() {
    const stream = await navigator.mediaDevices.getUserMedia({
      audio: { echoCancellation: true, noiseSuppression: true, autoGainControl: true },
    });
    const context = new AudioContext({ latencyHint: "interactive" });
    await context.audioWorklet.addModule(new URL("worklets/capture.js", import.meta.url));
    const worklet = new AudioWorkletNode(context, "capture", { numberOfOutputs: 0 });
    worklet.port.onmessage = ({ data }) => {
      const age = Math.max(0, context.currentTime - data.at);
      if (this.on) this.onpiece({ ...data, at: performance.now() - 1000 * age });
    };
    context.createMediaStreamSource(stream).connect(worklet);
    stream.getAudioTracks()[0].addEventListener("ended", () => {
      this.stop();
      this.onlost();
    });
    await context.resume();
    return { stream, context };
  }

  stop() {
    const open = this.#open;
    this.#open = undefined;
    open?.then(({ stream, context }) => {
      stream.getTracks().forEach((track) => track.stop());
      context.close();
    }, () => {}); // start() has told
  }
}

/** Plays replies one after the other; callbacks get { reply, samples, at, dry }: see worklets/playback.js, `at` in
 *  performance.now() milliseconds. */
export class Speaker {
  #context;
  #node;
  #starting;
  #zero = 0; // of the context's clock
  current = null; // { reply, samples, at, dry } of the reply that sounds
  onstarted = () => {};
  onplayed = () => {};
  onended = () => {};

  /** Browsers allow sound only after a click or key: call it from one. */
  start() {
    return (this.#starting ??= this.#open());
  }

  async #open() {
    const context = new AudioContext({ sampleRate: RATE, latencyHint: "interactive" });
    await context.audioWorklet.addModule(new URL("worklets/playback.js", import.meta.url));
    this.#node = new AudioWorkletNode(context, "playback", { numberOfInputs: 0, outputChannelCount: [1] });
    this.#node.port.onmessage = ({ data }) => this.#told(data);
    this.#node.connect(context.destination);
    this.#context = context;
    await context.resume();
  }

  #told({ kind, ...state }) {
    // one reply, one clock: the page may be late, the sound is not
    if (kind === "started") this.#zero = performance.now() - 1000 * state.at;
    state.at = this.#zero + 1000 * state.at;
    if (kind === "started" || kind === "played") this.current = state;
    else if (this.current?.reply === state.reply) this.current = null;
    if (kind === "started") this.onstarted(state);
    if (kind === "played") this.onplayed(state);
    if (kind === "ended" || kind === "stopped") this.onended({ ...state, stopped: kind === "stopped" });
  }

  /** Seconds between a sample's leaving the worklet and its being heard. */
  get delay() {
    return (this.#context?.outputLatency ?? 0) + (this.#context?.baseLatency ?? 0);
  }

  play(reply, pcm) {
    this.#node?.port.postMessage({ kind: "sound", reply, pcm });
  }

  end(reply) {
    this.#node?.port.postMessage({ kind: "end", reply });
  }

  /** Silence at once. -> { reply, samples } that sounded, or null. */
  stop() {
    const { current } = this;
    this.#node?.port.postMessage({ kind: "stop" });
    this.current = null;
    return current;
  }
}
