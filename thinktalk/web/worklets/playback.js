// Pieces of replies at the context's rate -> the loudspeaker, and how much of which reply was played.
//
// takes  { kind: "sound", reply, pcm } | { kind: "end", reply } | { kind: "stop" }
// posts  { kind: "played", reply, samples, at, peak, dry }  every 20 ms while it sounds; dry: how often it ran out of sound
//        { kind: "started" | "ended" | "stopped", reply, samples, at, dry }

const REPORT = Math.round(sampleRate * 0.02);
const AGAIN = Math.round(sampleRate * 0.12); // after it ran dry, so much is gathered first
const FADE = Math.round(sampleRate * 0.008); // a stop without a click

class Playback extends AudioWorkletProcessor {
  #queue = []; // { reply, pcm | null }: null marks the end of a reply
  #at = 0; // samples taken of the first piece
  #reply = null;
  #samples = 0; // of this reply, played
  #dry = 0;
  #waiting = false;
  #fade = 0; // samples of a fade still to come
  #last = 0;
  #since = 0;
  #peak = 0;
  #index = 0; // of the sample that is made now

  constructor() {
    super();
    this.port.onmessage = ({ data }) => {
      if (data.kind === "stop") this.#stop();
      else this.#queue.push({ reply: data.reply, pcm: data.kind === "sound" ? data.pcm : null });
    };
  }

  #post(kind, extra) {
    const at = currentTime + this.#index / sampleRate;
    this.port.postMessage({ kind, reply: this.#reply, samples: this.#samples, dry: this.#dry, at, ...extra });
  }

  #stop() {
    this.#queue = [];
    this.#at = 0;
    this.#fade = FADE;
    this.#waiting = false;
    if (this.#reply !== null) this.#post("stopped");
    this.#reply = null;
  }

  /** Whether enough has been gathered to go on after it ran dry. */
  #ready() {
    let gathered = 0;
    for (const { reply, pcm } of this.#queue) {
      if (!pcm || reply !== this.#reply) return true;
      gathered += pcm.length;
      if (gathered >= AGAIN) return true;
    }
    return false;
  }

  #take() {
    while (this.#queue.length) {
      const { reply, pcm } = this.#queue[0];
      if (reply !== this.#reply) {
        this.#reply = reply;
        this.#samples = this.#dry = this.#since = 0;
        this.#waiting = false;
        if (pcm) this.#post("started");
      }
      if (!pcm) {
        this.#queue.shift();
        this.#post("ended");
        this.#reply = null;
        continue;
      }
      if (this.#waiting && !this.#ready()) return 0;
      this.#waiting = false;
      if (this.#at < pcm.length) {
        this.#samples += 1;
        return pcm[this.#at++];
      }
      this.#queue.shift();
      this.#at = 0;
    }
    if (this.#reply !== null && !this.#waiting) {
      this.#waiting = true;
      this.#dry += 1;
    }
    return 0;
  }

  process(_, [output]) {
    const sound = output[0];
    for (let i = 0; i < sound.length; i++) {
      this.#index = i;
      if (this.#fade) {
        this.#fade -= 1;
        sound[i] = this.#last * (this.#fade / FADE);
        continue;
      }
      sound[i] = this.#last = this.#take();
      this.#peak = Math.max(this.#peak, Math.abs(sound[i]));
      if (this.#reply !== null && ++this.#since >= REPORT) {
        this.#post("played", { peak: this.#peak });
        this.#since = this.#peak = 0;
      }
    }
    this.#index = 0;
    for (let c = 1; c < output.length; c++) output[c].set(sound);
    return true;
  }
}

registerProcessor("playback", Playback);
