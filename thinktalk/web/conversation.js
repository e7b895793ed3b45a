// What was said by whom, from the events of the line -> messages for the page, for a new connection and for export.
//
// Message { id, role, text, files: [{ kind, name, url }], at, state: "live" | "done" | "cut" | "failed",
//           sound: Spoken | null, heard (seconds played), shown (characters spoken by then), calls: [...] }

import { Pace, Spoken, textSeconds } from "./align.js";
import { decodePcm } from "./sound.js";

const KEPT_CHARACTERS = 24000; // of history that a new connection is told

export class Conversation extends EventTarget {
  messages = [];
  pace = new Pace();
  #byId = new Map();

  constructor(line) {
    super();
    const on = (type, handler) => line.addEventListener(type, ({ detail }) => handler(detail));
    on("input_audio_buffer.speech_started", (event) => this.#heard(event.item_id));
    on("input_audio_buffer.committed", (event) => this.#heard(event.item_id));
    on("conversation.item.input_audio_transcription.delta", (event) => {
      const message = this.#byId.get(event.item_id);
      if (message) this.#change(message, { text: message.text + event.delta });
    });
    on("conversation.item.input_audio_transcription.completed", (event) => {
      const message = this.#byId.get(event.item_id);
      if (message) this.#change(message, { text: event.transcript.trim(), state: "done" });
    });
    on("conversation.item.input_audio_transcription.failed", (event) => {
      const message = this.#byId.get(event.item_id);
      if (message) this.#change(message, { state: "done" });
    });
    on("state", (state) => { // words that a broken line will not bring any more
      if (state === "on") return;
      for (const message of this.messages) {
        if (message.role === "user" && message.state === "live") this.#change(message, { state: "done" });
      }
    });
    on("response.output_item.added", ({ item, response_id: response }) => {
      if (item.type === "function_call") return this.#put(item.id, "call", { text: item.name ?? "", response });
      if (item.type === "message") this.#put(item.id, "assistant", { response });
    });
    on("response.function_call_arguments.done", (event) => {
      const message = this.#byId.get(event.item_id);
      if (message) this.#change(message, { text: `${event.name ?? message.text}(${event.arguments})`, state: "done" });
    });
    for (const type of ["response.output_text.delta", "response.output_audio_transcript.delta"]) {
      on(type, (event) => {
        const message = this.#byId.get(event.item_id);
        if (message && message.state === "live") this.#change(message, { text: message.text + event.delta });
      });
    }
    on("response.output_audio.delta", (event) => {
      const message = this.#byId.get(event.item_id);
      if (!message || message.state !== "live") return;
      const pcm = decodePcm(event.delta);
      message.sound ??= new Spoken();
      message.sound.add(pcm);
      this.dispatchEvent(new CustomEvent("sound", { detail: { message, pcm } }));
    });
    on("response.output_audio.done", (event) => {
      const message = this.#byId.get(event.item_id);
      if (message?.state === "live") this.dispatchEvent(new CustomEvent("soundend", { detail: { message } }));
    });
    on("response.done", ({ response }) => {
      for (const message of this.messages) {
        if (message.response !== response.id || message.state !== "live") continue;
        // "incomplete" has met a limit of length: it is over, and all of it was said
        const state = { completed: "done", incomplete: "done", failed: "failed" }[response.status] ?? "cut";
        this.#change(message, { state });
      }
    });
  }

  #put(id, role, fields = {}) {
    const message = {
      id, role, text: "", files: [], at: Date.now(), state: "live", sound: null, heard: 0, shown: 0, ...fields,
    };
    this.messages.push(message);
    if (id) this.#byId.set(id, message);
    this.dispatchEvent(new CustomEvent("added", { detail: message }));
    return message;
  }

  #change(message, fields) {
    Object.assign(message, fields);
    this.dispatchEvent(new CustomEvent("changed", { detail: message }));
  }

  /** The user speaks, or has spoken: a message whose words may come later. */
  #heard(id) {
    if (!this.#byId.has(id)) this.#put(id, "user", { spoken: true });
  }

  /** What the user wrote or attached. */
  wrote(text, files = []) {
    return this.#put(null, "user", { text, files, state: "done" });
  }

  get(id) {
    return this.#byId.get(id);
  }

  /** So much of a reply was played. */
  played(id, heard) {
    const message = this.#byId.get(id);
    if (!message?.sound) return;
    const shown = message.sound.characters(message.text, heard, this.pace, message.state === "done");
    // a better estimate of the pace may step back; words that were lit stay so
    this.#change(message, { heard, shown: Math.max(shown, message.shown) });
  }

  /** It was played to its end: the pace of this voice is known better. */
  spoken(id) {
    const message = this.#byId.get(id);
    if (!message?.sound || message.state !== "done") return;
    this.pace.add(textSeconds(message.text), message.sound.voicedSeconds());
    this.#change(message, { heard: message.sound.seconds, shown: message.text.length });
  }

  /** Only what was heard was said; the rest is struck out. */
  cut(id, heard) {
    const message = this.#byId.get(id);
    if (!message) return;
    this.played(id, heard);
    this.#change(message, { state: "cut", heard });
  }

  clear() {
    this.messages = [];
    this.#byId.clear();
    this.pace = new Pace();
    this.dispatchEvent(new CustomEvent("cleared"));
  }

  /** What a reply counts as: all of it, or what was heard of it. */
  static said(message) {
    return message.state === "cut" && message.sound ? message.text.slice(0, message.shown) : message.text;
  }

  /** Events that tell a new connection what was said, newest first kept. */
  history() {
    const events = [];
    let left = KEPT_CHARACTERS;
    for (const message of [...this.messages].reverse()) {
      const text = Conversation.said(message).trim();
      if (!text || message.state === "live" || message.role === "call") continue;
      if ((left -= text.length) < 0) break;
      const type = message.role === "user" ? "input_text" : "output_text";
      const item = { type: "message", role: message.role, content: [{ type, text }] };
      events.unshift({ type: "conversation.item.create", item });
    }
    return events;
  }

  /** For a file: plain objects. */
  export() {
    return this.messages.map((message) => ({
      role: message.role,
      text: Conversation.said(message),
      ...(message.state === "cut" && { unheard: message.text.slice(Conversation.said(message).length) }),
      ...(message.files.length && { files: message.files.map(({ kind, name }) => ({ kind, name })) }),
      ...(message.sound && { seconds: message.sound.seconds, heard_seconds: message.heard }),
      at: new Date(message.at).toISOString(),
    }));
  }
}
