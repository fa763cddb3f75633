// The page: what comes in from the feed, and the panels that show it.

import { count, duration, element, setText } from "./elements.js";
import * as panels from "./panels.js";

const POINTS = 300;
// Longer without a sample, and the connection counts as lost.
const SILENCE_MS = 5000;
const RETRY_MS = [500, 1000, 2000, 5000];

const byId = (id) => document.getElementById(id);

// -- the feed -------------------------------------------------------------------------------

class Feed {
  constructor(onSample, onState) {
    Object.assign(this, { onSample, onState, last: "", failures: 0, timer: 0, source: null });
    document.addEventListener("visibilitychange", () => this.#visible());
    this.#visible();
  }

  // A page in the background asks for nothing, so nothing runs for it.
  #visible() {
    this.#close();
    if (!document.hidden) this.#open();
  }

  #open() {
    const source = new EventSource(this.last ? `feed?after=${this.last}` : "feed");
    this.source = source;
    source.onmessage = (event) => {
      this.last = event.lastEventId;
      this.failures = 0;
      this.#await();
      this.onState("live");
      this.onSample(JSON.parse(event.data));
    };
    source.addEventListener("end", () => {
      this.#close();
      this.#open();
    });
    source.onerror = () => this.#lost();
    this.#await();
  }

  #await() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.#lost(), SILENCE_MS);
  }

  #lost() {
    this.#close();
    this.onState("lost");
    const wait = RETRY_MS[Math.min(this.failures, RETRY_MS.length - 1)];
    this.failures += 1;
    this.timer = setTimeout(() => this.#open(), wait);
  }

  #close() {
    clearTimeout(this.timer);
    if (this.source) this.source.close();
    this.source = null;
  }
}

// -- the page -------------------------------------------------------------------------------

class Page {
  constructor() {
    this.databases = new Map();
    this.turn = new panels.TurnPanel(byId("turn"));
    this.log = new panels.LogPanel(byId("log"));
    this.charts = panels.charts(byId("charts"));
    this.holders = panels.holdersTable(byId("holders"));
    this.waits = panels.waitsTable(byId("waits"));
    this.connections = panels.connectionsTable(byId("connections"));
    this.slowest = new panels.SlowestPanel(byId("slowest"));
    this.chosen = new URLSearchParams(location.hash.slice(1)).get("database") ?? "";
  }

  take(sample) {
    for (const one of sample.databases) {
      const points = one.points.map((values) =>
        Object.fromEntries(values.map((value, at) => [sample.columns[at], value])),
      );
      const before = sample.whole ? [] : (this.databases.get(one.name)?.points ?? []);
      this.databases.set(one.name, { ...one, points: [...before, ...points].slice(-POINTS) });
    }
    if (!this.databases.has(this.chosen)) this.chosen = sample.databases[0].name;
    this.process = sample.process;
    this.show();
  }

  show() {
    const { name, problem, now, points } = this.databases.get(this.chosen);
    const title = name || now.name || "SQLite";
    setText(byId("title"), title);
    document.title = `${title}, live`;
    this.#tabs();
    byId("problem").hidden = problem == null;
    setText(byId("problem"), problem ?? "");
    byId("panels").hidden = problem != null;
    if (problem == null) this.#panels(now, points);
    this.#about(name, now);
  }

  #panels(now, points) {
    this.turn.set(now, points);
    this.log.set(now, points);
    this.slowest.set(now);
    for (const chart of this.charts) chart.set(points);
    const holders = panels.holders(now);
    this.holders.set(holders, ({ role, task, asked_at: asked }) => `${role} ${task} ${asked}`);
    setText(byId("holders-count"), holders.length ? count(holders.length) : "");
    this.waits.set(panels.lines(now), ({ title }) => title);
    this.connections.set(now.engines, ({ role }) => role);
  }

  #about(name, now) {
    const place = name && now.name ? `${now.name} in process` : "Process";
    const age = now.seconds == null ? "" : `, counted for ${duration(now.seconds)}`;
    const told = `${place} ${this.process}${age}.`;
    setText(byId("about"), `${told} A sample a second, the last five minutes.`);
  }

  #tabs() {
    const nav = byId("databases");
    nav.hidden = this.databases.size < 2;
    for (const name of this.databases.keys()) {
      let tab = [...nav.children].find((one) => one.textContent === name);
      if (!tab) {
        tab = nav.appendChild(element("button", { type: "button", text: name }));
        tab.addEventListener("click", () => this.choose(name));
      }
      tab.setAttribute("aria-pressed", String(name === this.chosen));
    }
  }

  choose(name) {
    this.chosen = name;
    history.replaceState(null, "", `#${new URLSearchParams({ database: name })}`);
    this.show();
  }
}

const page = new Page();
const told = { live: "live", lost: "connection lost, trying again …" };
new Feed(
  (sample) => page.take(sample),
  (now) => {
    const status = byId("status");
    if (status.dataset.state === now) return;
    status.dataset.state = now;
    document.body.dataset.state = now;
    setText(status, told[now]);
  },
);
