// What state the service is in, at the top of the page. Asks gently, and not at all while hidden.

import { fetchHealth } from "./api.js";

const CALM_MS = 30_000;
const EAGER_MS = 1_500; // while something is going on that a person waits for
const AWAY_MS = 5_000;
const PATIENCE_MS = 10_000; // a service that hangs is away

/** What `/health` says, as it is shown: `{mood, text, notice, progress}`. */
export function describe(health) {
  const notice = [health.notice, downloaded(health.download)].filter(Boolean).join(" ");
  if (health.status === "unreachable") {
    return { mood: "bad", text: "Not reachable", notice: "The service does not answer. Trying again…" };
  }
  if (health.status === "healthy") {
    return { mood: health.notice ? "fair" : "good", text: health.model ?? "Ready", notice };
  }
  if (health.status === "draining") {
    const restarting = "The service is restarting. Answers that are being written will be finished.";
    return { mood: "fair", text: "Restarting", notice: notice || restarting };
  }
  if (health.status === "loading") {
    const progress = Number.isFinite(health.progress) ? health.progress : null;
    const percent = progress ? ` ${Math.round(progress * 100)} %` : "";
    return { mood: "fair", text: `Loading the model${percent}`, notice, progress };
  }
  return { mood: "bad", text: "Model is down", notice: notice || "The model is being started again." };
}

function downloaded(download) {
  const { bytes_done: done, bytes_total: total } = download ?? {};
  return total > 0 ? `(${Math.round((100 * done) / total)} % downloaded)` : "";
}

/** A notice without its figures: one that counts is no other one each time. */
const gist = (notice) => notice.replace(/\d+/g, "");

export class Status {
  /** `hide` takes a notice away, in `bar`, until there is another one to be read. */
  constructor({ badge, notice, bar, hide, progress }) {
    Object.assign(this, { badge, notice, bar, progress });
    this.hidden = "";
    hide.addEventListener("click", () => {
      this.hidden = gist(notice.textContent);
      bar.hidden = true;
      document.getElementById("input").focus();
    });
    this.timer = 0;
    document.addEventListener("visibilitychange", () => !document.hidden && this.check());
    this.check();
  }

  /** Ask now, and again after a while that depends on the answer. */
  async check() {
    clearTimeout(this.timer);
    const health = await fetchHealth(AbortSignal.timeout(PATIENCE_MS));
    this.show(describe(health));
    clearTimeout(this.timer);
    const settled = health.status === "healthy" && !health.download;
    const pause = settled ? CALM_MS : health.reachable ? EAGER_MS : AWAY_MS;
    if (!document.hidden) this.timer = setTimeout(() => this.check(), pause);
  }

  show({ mood, text, notice, progress = null }) {
    this.badge.dataset.mood = mood;
    if (this.badge.textContent !== text) this.badge.textContent = text;
    this.bar.hidden = !notice || gist(notice) === this.hidden;
    if (this.notice.textContent !== notice) this.notice.textContent = notice;
    this.progress.hidden = progress === null;
    if (progress !== null) this.progress.value = progress;
  }
}
