// One conversation over /v1/realtime, in the events of OpenAI's GA Realtime API.
//
//   const line = new Realtime();
//   line.addEventListener("response.output_audio.delta", ({ detail }) => ...);   // every server event by its type
//   line.addEventListener("state", ({ detail }) => ...);                         // "off" | "joining" | "on" | "lost"
//   await line.open({ model, key, session }); line.send({ type: "response.create" });

const RETRIES_MS = [500, 1000, 2000, 4000, 8000];
const CONGESTED_BYTES = 1 << 20; // pictures wait while so much has not left yet

export class Realtime extends EventTarget {
  #socket;
  #tries = 0;
  #timer;
  #wanted = null; // what open() was given
  #count = 0;
  state = "off";
  /** Called at each new connection: events that make the server know what was said before. */
  history = () => [];

  #tell(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }

  #become(state) {
    if (state !== this.state) this.#tell("state", (this.state = state));
  }

  /** Connect; resolves when the server has taken the session, rejects when it refuses. */
  open(wanted) {
    this.close();
    this.#wanted = wanted;
    this.#tries = 0;
    return this.#join();
  }

  #join() {
    const { model, key, session } = this.#wanted;
    this.#become("joining");
    const url = new URL("v1/realtime", location.href);
    url.protocol = url.protocol.replace("http", "ws");
    if (model) url.searchParams.set("model", model);
    // a browser cannot set the Authorization header of a WebSocket: the key goes as OpenAI's own clients send it
    const protocols = ["realtime", ...(key ? [`openai-insecure-api-key.${key}`] : [])];
    const socket = (this.#socket = new WebSocket(url, protocols));
    return new Promise((resolve, reject) => {
      socket.onmessage = ({ data }) => {
        if (this.#socket !== socket) return;
        const event = JSON.parse(data);
        if (event.type === "session.created") {
          this.send({ type: "session.update", session });
          this.history().forEach((sent) => this.send(sent));
        }
        if (event.type === "session.updated" && this.state !== "on") {
          this.#tries = 0;
          this.#become("on");
          resolve();
        }
        this.#tell(event.type, event);
        this.#tell("event", event);
        if (event.type === "error" && this.state !== "on") reject(new Error(event.error.message));
      };
      socket.onclose = ({ code, reason }) => {
        if (this.#socket !== socket) return;
        const refused = this.state === "joining" && this.#tries === 0;
        reject(Object.assign(new Error(reason || `closed (${code})`), { closed: code }));
        if (refused) return this.close();
        this.#again(reason);
      };
    });
  }

  /** The line broke: try again, later each time. */
  #again(reason) {
    const wait = RETRIES_MS[this.#tries++];
    if (wait === undefined) return this.close();
    this.#become("lost");
    this.#tell("lost", { reason, wait });
    this.#timer = setTimeout(() => this.#join().catch(() => {}), wait);
  }

  close() {
    clearTimeout(this.#timer);
    const socket = this.#socket;
    this.#socket = undefined;
    socket?.close(1000);
    this.#become("off");
  }

  /** -> whether it left; nothing is kept for a line that is down. */
  send(event) {
    if (this.#socket?.readyState !== WebSocket.OPEN) return false;
    this.#socket.send(JSON.stringify({ event_id: `page_${++this.#count}`, ...event }));
    return true;
  }

  /** Whether the network does not keep up. */
  get congested() {
    return (this.#socket?.bufferedAmount ?? 0) > CONGESTED_BYTES;
  }

  /** The settings that open() began with, changed; a line that comes back has them, too. */
  update(session) {
    this.#wanted = { ...this.#wanted, session };
    return this.send({ type: "session.update", session });
  }

  // ------------------------------------------------------------------------------------------------- what a turn sends

  say(content, role = "user") {
    return this.send({ type: "conversation.item.create", item: { type: "message", role, content } });
  }

  answer() {
    return this.send({ type: "response.create" });
  }

  cancel() {
    return this.send({ type: "response.cancel" });
  }

  /** Only so much of a spoken reply was heard. */
  truncate(item, heardSeconds) {
    const heard = Math.max(0, Math.round(1000 * heardSeconds));
    return this.send({ type: "conversation.item.truncate", item_id: item, content_index: 0, audio_end_ms: heard });
  }
}
