// /v1/voices and /v1/models: who may answer, with which voice; a voice is enrolled from a clip.

export class Server {
  key = "";

  async #ask(path, options = {}) {
    const headers = this.key ? { Authorization: `Bearer ${this.key}` } : {};
    const answer = await fetch(path, { ...options, headers });
    if (answer.ok) return answer.status === 204 ? null : answer.json();
    const body = await answer.json().catch(() => ({}));
    const error = new Error(body.error?.message ?? answer.statusText);
    error.status = answer.status;
    throw error;
  }

  /** Names, the default one first. */
  async models() {
    return (await this.#ask("v1/models")).data.map(({ id }) => id);
  }

  /** [{ id, name, own, experimental }]; own: enrolled here, so it may be deleted. */
  async voices() {
    const { data } = await this.#ask("v1/voices");
    return data.map((voice) => ({
      id: voice.id ?? voice.name,
      name: voice.name ?? voice.id,
      own: Boolean(voice.enrolled ?? voice.custom ?? voice.deletable),
      experimental: Boolean(voice.experimental),
    }));
  }

  enrol(name, clip) {
    const form = new FormData();
    form.append("name", name);
    form.append("file", clip, clip.name || "clip.wav");
    return this.#ask("v1/voices", { method: "POST", body: form });
  }

  forget(id) {
    return this.#ask(`v1/voices/${encodeURIComponent(id)}`, { method: "DELETE" });
  }
}
