// Messages of the conversation -> the log, with the words of a reply lit as they are spoken.

import { word } from "./i18n.js";

/** A piece of text in an element of its own. */
function piece(kind, text) {
  const span = document.createElement("span");
  span.className = kind;
  span.textContent = text;
  return span;
}

export class View {
  #log;
  #spoken;
  #empty;
  #shown = new Map(); // message -> its element
  #dirty = new Set();

  /** `spoken`: a live region that tells a screen reader finished messages, not every piece of them. */
  constructor(conversation, { log, spoken, empty }) {
    [this.#log, this.#spoken, this.#empty] = [log, spoken, empty];
    conversation.addEventListener("added", ({ detail }) => this.#later(detail));
    conversation.addEventListener("changed", ({ detail }) => this.#later(detail));
    conversation.addEventListener("cleared", () => {
      this.#shown.clear();
      this.#log.replaceChildren();
      this.#empty.hidden = false;
    });
  }

  /** The words of the page have changed. */
  refresh() {
    for (const message of this.#shown.keys()) this.#later(message);
  }

  #later(message) {
    if (!this.#dirty.size) requestAnimationFrame(() => this.#draw());
    this.#dirty.add(message);
    if (!this.#shown.has(message)) {
      this.#shown.set(message, this.#log.appendChild(document.createElement("li")));
      this.#empty.hidden = true;
    }
  }

  #draw() {
    const { scrollHeight, scrollTop, clientHeight } = this.#log;
    const atEnd = scrollHeight - scrollTop - clientHeight < 80; // who reads further up is left there
    for (const message of this.#dirty) {
      const element = this.#shown.get(message);
      if (element) this.#fill(element, message);
    }
    this.#dirty.clear();
    if (atEnd) this.#log.scrollTop = this.#log.scrollHeight;
  }

  #fill(element, message) {
    const { role, state, text, sound, shown } = message;
    const over = state !== "live" && (!sound || shown >= text.length || state === "cut");
    element.className = `message ${role} ${state}${over ? " over" : ""}`;
    element.dataset.state = state;
    const note = { cut: word("cutNote"), failed: word("failedNote") }[state];
    const name = { user: word("you"), assistant: "thinktalk", call: word("call") }[role];
    const parts = [piece("who", note ? `${name} · ${note}` : name)];
    if (message.files.length) parts.push(files(message.files));
    if (role === "assistant" && sound) {
      parts.push(piece("lit", text.slice(0, shown)), piece(state === "cut" ? "cut" : "unlit", text.slice(shown)));
    } else {
      const waiting = message.spoken && state === "live" ? "…" : message.spoken ? word("spokenNote") : "";
      parts.push(piece("said", text || waiting));
    }
    element.replaceChildren(...parts);
    if (over && !message.told && text && role === "assistant") {
      message.told = true;
      this.#spoken.textContent = `${name}: ${text}`;
    }
  }
}

function files(attached) {
  const list = document.createElement("span");
  list.className = "files";
  for (const { kind, name, url } of attached) {
    const tag = { image: "img", audio: "audio", video: "video" }[kind];
    const element = document.createElement(tag);
    element.src = url;
    if (kind === "image") element.alt = name;
    else Object.assign(element, { controls: true, title: name });
    list.append(element);
  }
  return list;
}
