// Talk: the microphone, the line, the loudspeaker and the camera as one conversation. It knows nothing of buttons.
//
//   hands-free   every piece of sound goes to the server, which says when the user speaks and when the turn ends
//   hold         sound goes while the key is held; release ends the turn
//   interrupt    the loudspeaker is silent at once, and the server is told how much was heard
//
// tells: "activity" ("listening" | "hearing" | "thinking" | "speaking" | ""), "notice" ({ key, values })

import { Conversation } from "./conversation.js";
import { Latency } from "./latency.js";
import { Realtime } from "./realtime.js";
import { Recording } from "./recording.js";
import { encodePcm, Microphone, RATE, Speaker } from "./sound.js";

const PICTURES_A_SECOND = 2;
const LEAST_HOLD_S = 0.12; // a shorter press was a slip

export class Talk extends EventTarget {
  line = new Realtime();
  conversation = new Conversation(this.line);
  latency = new Latency();
  recording = new Recording();
  microphone = new Microphone();
  speaker = new Speaker();
  settings = { model: "", key: "", voice: "", output: "audio", turn: "server_vad", mode: "free", instructions: "" };
  onpeak = () => {};

  #camera;
  #pictures; // interval while the user speaks
  #silenced = new Set(); // replies whose sound is not wanted any more
  #responding = false;
  #hearing = false; // the user speaks, by the server's ears or the held key
  #holding = false; // the key is down
  #held = 0; // seconds sent since the key went down
  #sent = []; // { until: seconds sent so far, at: when the microphone heard it, peak }: the server counts in the former
  #turnSince = 0; // seconds sent when the user began to speak
  #sentSeconds = 0;
  #spokeAloud = false; // on this connection: then its voice cannot be changed

  constructor(camera) {
    super();
    this.#camera = camera;
    this.line.history = () => this.conversation.history();
    this.#listen();
    this.#play();
    this.microphone.onpiece = (piece) => this.#heard(piece);
    this.microphone.onlost = () => {
      this.#tell("notice", { key: "microphoneLost" });
      this.#activity();
    };
  }

  #tell(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }

  #activity() {
    const now = this.speaker.current ? "speaking"
      : this.#hearing ? "hearing"
      : this.#responding ? "thinking"
      : this.microphone.on && this.settings.mode === "free" ? "listening" : "";
    this.#tell("activity", now);
  }

  /** Whether there is something to interrupt. */
  get busy() {
    return this.#responding || Boolean(this.speaker.current);
  }

  // --------------------------------------------------------------------------------------------------------- the session

  #session() {
    const { voice, output, turn, mode, instructions } = this.settings;
    const format = { type: "audio/pcm", rate: RATE };
    const detection = mode === "hold" ? null : { type: turn, create_response: true, interrupt_response: true };
    return {
      type: "realtime",
      output_modalities: [output],
      ...(instructions && { instructions }),
      audio: {
        input: { format, turn_detection: detection, transcription: { model: this.settings.model || "thinktalk" } },
        output: { format, ...(voice && { voice }) },
      },
    };
  }

  /** Connect where there is no line yet. Call it from a click or key: sound needs one. */
  async ready() {
    await this.speaker.start();
    if (this.line.state === "off") await this.connect();
  }

  async connect() {
    const { model, key } = this.settings;
    await this.line.open({ model, key, session: this.#session() });
    this.#activity();
  }

  /** Change settings; a line that cannot change its voice any more is made anew and told what was said. */
  async change(settings) {
    const anew = ["model", "key"].some((name) => name in settings && settings[name] !== this.settings[name])
      || ("voice" in settings && settings.voice !== this.settings.voice && this.#spokeAloud);
    Object.assign(this.settings, settings);
    if (this.line.state === "off") return;
    if (!anew) return void this.line.update(this.#session());
    this.interrupt();
    await this.connect();
  }

  /** Forget all and begin anew. */
  async restart() {
    this.interrupt();
    this.conversation.clear();
    this.latency.clear();
    this.recording.clear();
    if (this.line.state !== "off") await this.connect();
  }

  // -------------------------------------------------------------------------------------------------------- the user

  #heard({ pcm, peak, at }) {
    const holding = this.settings.mode === "hold";
    if (holding && !this.#hearing) return;
    this.onpeak("you", peak);
    this.recording.microphone(pcm, at);
    if (!this.line.send({ type: "input_audio_buffer.append", audio: encodePcm(pcm) })) return;
    this.#held += pcm.length / RATE;
    this.#sentSeconds += pcm.length / RATE;
    this.#sent.push({ until: this.#sentSeconds, at, peak });
    if (this.#sent.length > 1000) this.#sent.splice(0, 500); // twenty seconds are enough
  }

  /** When the user's last sound was: within 20 dB of the loudest of the turn. The server's audio_end_ms is no such moment;
   *  it holds the silence that it waited for, too. */
  #silentAt() {
    const turn = this.#sent.filter(({ until }) => until > this.#turnSince);
    const loudest = Math.max(...turn.map(({ peak }) => peak));
    return turn.findLast(({ peak }) => peak > 0.1 * loudest)?.at ?? performance.now();
  }

  /** The microphone on or off. */
  async listen(on) {
    if (on) {
      await this.ready();
      await this.microphone.start();
    } else {
      this.microphone.stop();
      this.#hearing = false;
      this.#look(false);
      this.line.send({ type: "input_audio_buffer.clear" });
    }
    this.#activity();
  }

  /** Hold mode: the key goes down, or up. */
  async hold(down) {
    if (down === this.#holding) return;
    this.#holding = down;
    if (!down) return this.#release();
    this.interrupt();
    try {
      await this.ready();
      await this.microphone.start();
    } catch (error) {
      this.#holding = false;
      throw error;
    }
    if (!this.#holding) return; // let go before the line stood
    this.line.send({ type: "input_audio_buffer.clear" });
    this.#held = 0;
    this.#hearing = true;
    this.#look(true);
    this.#activity();
  }

  #release() {
    if (!this.#hearing) return;
    this.#hearing = false;
    this.#look(false);
    if (this.#held < LEAST_HOLD_S) this.line.send({ type: "input_audio_buffer.clear" });
    else {
      this.latency.ended(performance.now(), performance.now());
      this.line.send({ type: "input_audio_buffer.commit" });
      this.line.answer();
    }
    this.#activity();
  }

  /** Pictures go while the user speaks: one now, then two a second. */
  #look(on) {
    clearInterval(this.#pictures);
    if (!on || !this.#camera.on) return;
    const send = () => {
      if (this.line.congested) return;
      const picture = this.#camera.picture();
      if (picture) this.line.say([{ type: "input_image", image_url: picture }]);
    };
    send();
    this.#pictures = setInterval(send, 1000 / PICTURES_A_SECOND);
  }

  /** Something written, with files; -> whether it was sent. */
  async write(text, files = []) {
    await this.ready();
    this.interrupt();
    const picture = this.#camera.picture();
    const shown = picture ? [...files, { kind: "image", name: "camera", url: picture }] : files;
    const content = [
      ...files.map(({ part }) => part),
      ...(picture ? [{ type: "input_image", image_url: picture }] : []),
      ...(text ? [{ type: "input_text", text }] : []),
    ];
    if (!this.line.say(content)) return false;
    this.latency.ended(performance.now(), performance.now());
    this.conversation.wrote(text, shown);
    this.line.answer();
    return true;
  }

  /** Silence now: the rest of the reply was never said. */
  interrupt() {
    const sounding = this.speaker.stop();
    for (const message of this.conversation.messages) {
      if (message.role !== "assistant" || !message.id) continue;
      const pending = message.sound && message.heard < message.sound.seconds && !this.#silenced.has(message.id);
      if (message.state !== "live" && !pending) continue;
      const heard = sounding?.reply === message.id ? this.#audible(sounding.samples) : message.heard;
      this.#silenced.add(message.id);
      if (this.#responding && message.state === "live") this.line.cancel();
      if (message.sound) this.line.truncate(message.id, heard);
      this.conversation.cut(message.id, heard);
    }
    this.#activity();
  }

  // ------------------------------------------------------------------------------------------------------- the server

  #listen() {
    const on = (type, handler) => this.line.addEventListener(type, ({ detail }) => handler(detail));
    on("session.created", () => { // a new line counts anew
      this.#spokeAloud = false;
      this.#sent = [];
      this.#sentSeconds = 0;
    });
    on("input_audio_buffer.speech_started", (event) => {
      this.#turnSince = event.audio_start_ms / 1000;
      this.#hearing = true;
      this.interrupt();
      this.#look(true);
      this.#activity();
    });
    on("input_audio_buffer.speech_stopped", () => {
      this.#hearing = false;
      this.#look(false);
      this.latency.ended(this.#silentAt(), performance.now());
      this.#activity();
    });
    on("response.created", ({ response }) => {
      this.#responding = true;
      this.latency.answered(response.id);
      this.#activity();
    });
    for (const type of ["response.output_text.delta", "response.output_audio_transcript.delta"]) {
      on(type, () => this.latency.note("word", performance.now()));
    }
    on("response.done", ({ response }) => {
      this.#responding = false;
      this.latency.done(response.id, response.latency);
      const failed = response.status === "failed" && response.status_details?.error;
      if (failed) this.#tell("notice", { text: failed.message ?? failed.code });
      this.#activity();
    });
    on("error", ({ error }) => {
      if (error.code !== "response_cancel_not_active") this.#tell("notice", { text: error.message });
    });
    on("state", (state) => {
      if (state === "on") return;
      this.#responding = this.#hearing = false;
      this.#look(false);
      this.interrupt(); // what was heard so far is what was said
    });
  }

  // -------------------------------------------------------------------------------------------------- the loudspeaker

  /** Seconds of so many samples that have reached the ear. */
  #audible(samples) {
    return Math.max(0, samples / RATE - this.speaker.delay);
  }

  #play() {
    this.conversation.addEventListener("sound", ({ detail: { message, pcm } }) => {
      if (this.#silenced.has(message.id)) return;
      this.#spokeAloud = true;
      this.latency.note("sound", performance.now());
      this.recording.coming(message.id, pcm);
      this.speaker.play(message.id, pcm);
    });
    this.conversation.addEventListener("soundend", ({ detail: { message } }) => {
      if (!this.#silenced.has(message.id)) this.speaker.end(message.id);
    });
    this.speaker.onstarted = () => {
      this.latency.note("play", performance.now());
      this.#activity();
    };
    this.speaker.onplayed = ({ reply, samples, at, peak }) => {
      this.onpeak("voice", peak);
      if (this.#silenced.has(reply)) return;
      this.recording.played(reply, samples, at);
      this.conversation.played(reply, this.#audible(samples));
    };
    this.speaker.onended = ({ reply, samples, at, dry, stopped }) => {
      this.recording.played(reply, samples, at);
      this.recording.ended(reply);
      if (!stopped) this.conversation.spoken(reply);
      this.latency.dry(dry);
      this.#activity();
    };
  }
}
