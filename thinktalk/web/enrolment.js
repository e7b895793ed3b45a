// The choice of a voice, and voices of one's own: recorded here or from a file, deleted again.

import { word } from "./i18n.js";
import { decodeFile, Microphone, RATE, wav } from "./sound.js";

const LEAST_S = 5, MOST_S = 20;
const $ = (id) => document.getElementById(id);
const told = (text) => ($("enrol-state").textContent = text);

export class Enrolment {
  #server;
  #kept;
  #chosen;
  #voices = [];
  #booth = new Microphone();
  #take = [];

  /** `chosen(id)` is called when another voice is wanted; `kept` remembers the choice. */
  constructor(server, kept, chosen) {
    [this.#server, this.#kept, this.#chosen] = [server, kept, chosen];
    this.#booth.onpiece = ({ pcm }) => this.#take.push(pcm);
    $("voice").addEventListener("change", () => this.#choose($("voice").value));
    $("record").addEventListener("click", () => this.#record());
    $("clip").addEventListener("click", () => $("clip-file").click());
    $("clip-file").addEventListener("change", () => this.#file());
    $("forget").addEventListener("click", () => this.#forget());
  }

  /** Ask the server which voices there are. */
  async list(wanted = this.#kept.get("voice")) {
    this.#voices = await this.#server.voices();
    $("voice").replaceChildren(...this.#voices.map(({ id, name, experimental }) => {
      const label = experimental ? `${name} (${word("experimental")})` : name;
      return new Option(label, id, false, id === wanted);
    }));
    this.#draw();
  }

  #draw() {
    $("forget").disabled = !this.#voices.find(({ id }) => id === $("voice").value)?.own;
    $("record").setAttribute("aria-pressed", String(this.#booth.on));
    $("record").textContent = word(this.#booth.on ? "recordStop" : "record");
  }

  #choose(id) {
    this.#kept.set("voice", id);
    this.#draw();
    this.#chosen(id);
  }

  /** The first press begins, the second ends. */
  async #record() {
    if (this.#booth.on) {
      this.#booth.stop();
      const pcm = new Float32Array(this.#take.reduce((sum, piece) => sum + piece.length, 0));
      this.#take.reduce((at, piece) => (pcm.set(piece, at), at + piece.length), 0);
      this.#draw();
      return this.#enrol(pcm);
    }
    this.#take = [];
    await this.#booth.start().catch((error) => told(word("noMicrophone", error.message)));
    return this.#draw();
  }

  /** Nobody listens any more. */
  abandon() {
    this.#booth.stop();
    this.#draw();
  }

  async #file() {
    const [file] = $("clip-file").files;
    $("clip-file").value = "";
    if (!file) return;
    const pcm = await decodeFile(file).catch(() => null);
    if (pcm) await this.#enrol(pcm);
    else told(word("fileBroken", file.name));
  }

  async #enrol(pcm) {
    const name = $("voice-name").value.trim();
    if (!name || !$("voice-name").checkValidity()) return told(word("needName"));
    if (pcm.length < LEAST_S * RATE) return told(word("short"));
    told(word("enrolling"));
    try {
      const clip = wav([pcm.subarray(0, MOST_S * RATE)]);
      const made = await this.#server.enrol(name, new File([clip], "clip.wav", { type: "audio/wav" }));
      await this.list(made?.id ?? name);
      this.#choose($("voice").value);
      return told(word("enrolled", name));
    } catch (error) {
      return told(error.message);
    }
  }

  async #forget() {
    const name = $("voice").value;
    try {
      await this.#server.forget(name);
      await this.list("");
      this.#choose($("voice").value);
      told(word("forgotten", name));
    } catch (error) {
      told(error.message);
    }
  }
}
