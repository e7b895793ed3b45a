// A reply's text and the sound of it -> how much of the text was spoken by a moment. No server says which word a sound
// belongs to, so it is estimated exactly as thinktalk/engine/alignment.py does (tests/e2e/test_page.py holds both equal):
//
//   text   -> words, each with the seconds that an average voice needs
//   sound  -> which 10 ms are voiced; pauses are paired with commas and full stops
//   word i is spoken when the voiced time since the last pair reaches the seconds of the words since then

const FRAME_S = 0.01;
const SILENCE_BELOW = 10 ** (-40 / 20);
const VOWELS_S = 0.079, CONSONANT_S = 0.068, WIDE_S = 0.2; // see alignment.py for where they come from
const SLACK_S = 0.02, PAUSE_S = 0.15, STRAIN = 0.3, REACH = 8, PACE_PRIOR_S = 5;
const STOPS = new Set(".,!?;:…—。，！？；：、");
const WIDE = "\\u3040-\\u30ff\\u3400-\\u4dbf\\u4e00-\\u9fff\\uac00-\\ud7af\\uf900-\\ufaff";
const WORD = new RegExp(`[${WIDE}][^\\p{L}\\p{N}_\\s]*|[^\\s${WIDE}]+`, "gu");
const IS_WIDE = new RegExp(`^[${WIDE}]`, "u");
const VOWELS = /[aeiouyäöüàâéèêëîïôûùáíóúãõåæøœаеёиоуыэюя]+/g;
const DIGITS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"];

/** [start, end] of each word, with the punctuation that clings to it; a Chinese character is a word. */
export function words(text) {
  return [...text.matchAll(WORD)].map((match) => [match.index, match.index + match[0].length]);
}

/** How long an average voice takes to say it, pauses aside. */
export function wordSeconds(word) {
  if (IS_WIDE.test(word)) return WIDE_S;
  let letters = [...word.toLowerCase()].filter((c) => /[\p{L}\p{N}]/u.test(c)).join("");
  letters = letters.replace(/[0-9]/g, (digit) => DIGITS[Number(digit)]);
  if (!letters) return 0;
  if (letters.endsWith("e") && letters.length > 3 && !"aeiouy".includes(letters.at(-2))) {
    letters = letters.slice(0, -1); // silent
  }
  const vowels = (letters.match(VOWELS) ?? []).length;
  const consonants = [...letters.replace(VOWELS, "")].length;
  return VOWELS_S * Math.max(1, vowels) + CONSONANT_S * consonants;
}

/** The same for a whole text. */
export function textSeconds(text) {
  return words(text).reduce((sum, [a, b]) => sum + wordSeconds(text.slice(a, b)), 0);
}

/** How fast a voice speaks, from its replies so far. */
export class Pace {
  expected = 0; // seconds that an average voice would have taken
  voiced = 0; // seconds it took

  add(expected, voiced) {
    if (expected > 0 && voiced > 0) {
      this.expected += expected;
      this.voiced += voiced;
    }
  }

  get speed() {
    return (this.expected + PACE_PRIOR_S) / (this.voiced + PACE_PRIOR_S);
  }
}

/** The sound of one reply, as far as it has come. */
export class Spoken {
  #levels = []; // root mean square of each 10 ms
  #rest = new Float32Array(0);
  #loudest = 0;
  #known = null; // what was computed from the sound so far
  samples = 0;

  constructor(rate = 24000) {
    this.rate = rate;
  }

  get seconds() {
    return this.samples / this.rate;
  }

  /** More sound: Float32Array. */
  add(pcm) {
    const frame = Math.round(this.rate * FRAME_S);
    this.samples += pcm.length;
    const joined = new Float32Array(this.#rest.length + pcm.length);
    joined.set(this.#rest);
    joined.set(pcm, this.#rest.length);
    let at = 0;
    for (; at + frame <= joined.length; at += frame) {
      let sum = 0;
      for (let i = at; i < at + frame; i++) sum += joined[i] * joined[i];
      const level = Math.sqrt(sum / frame);
      this.#loudest = Math.max(this.#loudest, level);
      this.#levels.push(level);
    }
    this.#rest = joined.slice(at);
    this.#known = null;
  }

  /** Voiced seconds before each frame, and before each pause. */
  #voice() {
    if (this.#known) return this.#known;
    const floor = this.#loudest * SILENCE_BELOW;
    const sums = [0], pauses = [];
    let voicedFrames = 0, silentSince = 0;
    this.#levels.forEach((level, frame) => {
      if (level > floor) {
        if (voicedFrames && frame - silentSince >= Math.round(PAUSE_S / FRAME_S)) pauses.push(voicedFrames * FRAME_S);
        voicedFrames += 1;
        silentSince = frame + 1;
      }
      sums.push(voicedFrames * FRAME_S);
    });
    return (this.#known = { sums, pauses });
  }

  /** Seconds of voice before a moment. */
  voicedSeconds(until = Infinity) {
    const { sums } = this.#voice();
    if (sums.length === 1) return Math.min(until, this.seconds);
    const frames = until / FRAME_S, whole = Math.floor(frames);
    if (frames >= sums.length - 1) return sums.at(-1);
    return sums[whole] + (frames - whole) * (sums[whole + 1] - sums[whole]);
  }

  /** Characters of the text that were spoken after `heard` seconds, up to the end of a word. */
  characters(text, heard, pace, complete) {
    if (complete && heard >= this.seconds - FRAME_S) return text.length;
    const spans = words(text), ends = [];
    let sum = 0;
    for (const [a, b] of spans) ends.push((sum += wordSeconds(text.slice(a, b))));
    const voiced = this.voicedSeconds(heard), whole = this.voicedSeconds();
    if (!ends.length || !voiced) return 0;
    const speed = complete ? ends.at(-1) / whole : pace.speed;
    const stops = ends.filter((_, n) => n < ends.length - 1 && STOPS.has(text[spans[n][1] - 1]));
    const anchors = [[0, 0], ...anchored(this.#voice().pauses, stops, speed)];
    if (complete) anchors.push([whole, ends.at(-1)]);
    const said = warped(voiced, anchors, speed);
    if (said <= 0) return 0;
    const count = ends.findIndex((end) => end > said + SLACK_S);
    if (count === 0) return 0;
    return spans[(count < 0 ? spans.length : count) - 1][1];
  }
}

/** Pauses (voiced seconds) and stops of the text (expected seconds) that belong together: the best chain of pairs. */
function anchored(pauses, stops, speed) {
  if (!pauses.length || !stops.length || speed <= 0) return [];
  const strain = (voiced, expected) => (Math.log((voiced + 0.1) / (expected + 0.1)) / STRAIN) ** 2;
  const best = pauses.map(() => new Float64Array(stops.length));
  const came = pauses.map(() => new Array(stops.length).fill(null));
  let top = null;
  for (let p = 0; p < pauses.length; p++) {
    for (let s = 0; s < stops.length; s++) {
      best[p][s] = 1 - strain(pauses[p] * speed, stops[s]);
      for (let q = Math.max(0, p - REACH); q < p; q++) {
        for (let r = Math.max(0, s - REACH); r < s; r++) {
          const chain = best[q][r] + 1 - strain((pauses[p] - pauses[q]) * speed, stops[s] - stops[r]);
          if (chain > best[p][s]) {
            best[p][s] = chain;
            came[p][s] = [q, r];
          }
        }
      }
      if (!top || best[p][s] > best[top[0]][top[1]]) top = [p, s];
    }
  }
  if (best[top[0]][top[1]] <= 0) return [];
  const chain = [];
  for (let at = top; at; at = came[at[0]][at[1]]) chain.unshift([pauses[at[0]], stops[at[1]]]);
  return chain;
}

/** Expected seconds of text after so many of voice: straight between anchors, at `speed` after the last one. */
function warped(voiced, anchors, speed) {
  const next = anchors.findIndex(([at]) => at > voiced);
  const [fromVoiced, fromSaid] = anchors.at(next < 0 ? -1 : next - 1);
  if (next < 0) return fromSaid + (voiced - fromVoiced) * speed;
  const [toVoiced, toSaid] = anchors[next];
  return fromSaid + ((voiced - fromVoiced) / (toVoiced - fromVoiced)) * (toSaid - fromSaid);
}
