// What the user waited for, turn by turn: a bar for each, from the end of his words to the sound, and the engine's own
// ledger where the server tells it (response.done: response.latency, docs/latency.md).
//
//   user is silent --- turn end ---> server knows --- first word ---> --- first sound ---> --- loudspeaker ---> heard

const SHOWN = 8;
export const STAGES = ["end", "word", "sound", "play"];

export class Latency extends EventTarget {
  turns = [];
  #open = null; // the turn under way: { moments: { silent, end, word, sound, play }, id }

  /** A turn ends: the user's last sound was at `silent`, and it is known at `now` (performance.now()). */
  ended(silent, now) {
    this.#open = { moments: { silent: Math.min(silent, now), end: now } };
  }

  /** The reply to it has begun. */
  answered(response) {
    if (this.#open && !this.#open.response) this.#open.response = response;
  }

  /** stage: "word" | "sound" | "play"; only the first time counts. */
  note(stage, now) {
    if (!this.#open || stage in this.#open.moments) return;
    this.#open.moments[stage] = now;
    if (this.turns.at(-1) !== this.#open) this.turns = [...this.turns, this.#open].slice(-SHOWN);
    this.dispatchEvent(new Event("changed"));
  }

  /** The reply is over; `engine` is what the server says of it. */
  done(response, engine) {
    const turn = this.turns.find((one) => one.response === response);
    if (!turn) return;
    turn.engine = engine ?? null;
    if (this.#open === turn) this.#open = null;
    this.dispatchEvent(new Event("changed"));
  }

  /** The loudspeaker ran dry so often in the last reply. */
  dry(count) {
    const turn = this.turns.at(-1);
    if (turn) turn.dry = count;
    this.dispatchEvent(new Event("changed"));
  }

  clear() {
    this.turns = [];
    this.#open = null;
    this.dispatchEvent(new Event("changed"));
  }

  /** Milliseconds of each stage that happened, in order. */
  static stages({ moments }) {
    let since = moments.silent;
    return STAGES.filter((stage) => stage in moments).map((stage) => {
      const ms = Math.max(0, moments[stage] - since);
      since = Math.max(since, moments[stage]);
      return [stage, ms];
    });
  }

  /** For a file: whole milliseconds by stage, and the engine's figures. */
  export() {
    return this.turns.map((turn) => ({
      ...Object.fromEntries(Latency.stages(turn).map(([stage, ms]) => [`${stage}_ms`, Math.round(ms)])),
      underruns: turn.dry ?? 0,
      ...(turn.engine && { engine: turn.engine }),
    }));
  }
}

/** Draw it into a table whose rows are turns: a chart to the eye, figures to a screen reader. */
export function drawLatency(table, latency, words) {
  const sums = latency.turns.map((turn) => Latency.stages(turn).reduce((sum, [, ms]) => sum + ms, 0));
  const longest = Math.max(500, ...sums);
  table.replaceChildren(...latency.turns.map((turn, n) => {
    const row = document.createElement("tr"), head = document.createElement("th"), bars = document.createElement("td");
    head.scope = "row";
    head.textContent = `${Math.round(sums[n])} ms`;
    for (const [stage, ms] of Latency.stages(turn)) {
      const bar = document.createElement("span");
      bar.className = `bar ${stage}`;
      bar.style.width = `${(100 * ms) / longest}%`;
      bar.title = `${words(`stage_${stage}`)}: ${Math.round(ms)} ms`;
      const spoken = document.createElement("span");
      spoken.className = "unseen";
      spoken.textContent = `${bar.title}. `;
      bar.append(spoken);
      bars.append(bar);
    }
    row.append(head, bars);
    if (turn.engine) row.title = engineLine(turn.engine);
    return row;
  }));
}

/** The engine's ledger in one line. */
export function engineLine(engine) {
  const ms = (value) => (value === null || value === undefined ? "–" : `${Math.round(value)} ms`);
  const factor = engine.real_time_factor;
  return `input ${ms(engine.input_ms)} + text→code ${ms(engine.text_to_code_ms)} + code→sound ${ms(engine.code_to_sound_ms)}`
    + ` = ${ms(engine.first_sound_ms)}; ${factor == null ? "" : `RTF ${factor.toFixed(2)}; `}underruns ${engine.underruns ?? 0}`;
}
