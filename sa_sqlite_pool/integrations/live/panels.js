// The panels of a database.

import { Chart } from "./charts.js";
import { bytes, count, duration, element, Facts, number, setText, sql, Table } from "./elements.js";

// A holder that lets others wait for so long without a statement is worth a look.
const IDLE_SECONDS = 1;

export class TurnPanel {
  constructor(parent) {
    this.headline = element("p", { class: "headline" });
    this.line = element("p", { class: "line" });
    this.statement = sql();
    this.statement.node.classList.add("several");
    parent.append(element("div", { class: "beside" }, this.headline, this.line));
    this.facts = new Facts(parent);
    parent.append(this.statement.node);
    this.chart = new Chart(parent, {
      title: "Tasks in line",
      series: [{ name: "waiting", column: "in_line", kind: "area" }],
      format: count,
    });
  }

  set({ turn }, points) {
    this.chart.set(points);
    const { holder, waiting, other_processes: others } = turn;
    setText(this.headline, holder ? `Held for ${duration(holder.seconds)}` : "Free");
    this.headline.dataset.state = !holder ? "free" : waiting ? "contended" : "held";
    setText(this.line, waiting === 0 ? "none in line" : `${count(waiting)} in line`);
    this.facts.set("By", holder?.task);
    this.facts.set("Asked for it at", holder?.asked_at);
    this.facts.set("Is now at", holder?.now_at);
    this.facts.set("Waits for", holder?.waits_for);
    const idle = holder?.idle_seconds;
    this.facts.set("No statement for", seconds(idle), idle >= IDLE_SECONDS ? "warn" : "");
    this.facts.set("Other processes", this.#others(turn, others));
    this.facts.set("Asked for twice", turn.self_deadlocks ? `${count(turn.self_deadlocks)} times` : null);
    this.statement.set(holder?.sql);
  }

  #others(turn, others) {
    if (others.length) return others.join(", ");
    return turn.shared ? "none has it, or is first in line" : null;
  }
}

// The text of a duration, and nothing for none.
const seconds = (value) => (value == null ? null : duration(value));

const NO_LOG = "No write-ahead log: another journal mode, or a file that cannot be written.";

export class LogPanel {
  constructor(parent) {
    this.size = element("p", { class: "headline" });
    this.fill = element("span", { class: "fill" });
    this.soft = element("span", { class: "mark" });
    this.meter = element("div", { class: "meter", role: "img" }, this.fill, this.soft);
    this.none = element("p", { class: "empty", text: NO_LOG });
    this.body = element("div", {}, this.size, this.meter);
    parent.append(this.none, this.body);
    this.facts = new Facts(this.body);
    this.chart = new Chart(this.body, {
      title: "Size",
      series: [{ name: "-wal file", column: "wal_bytes", kind: "area" }],
      format: bytes,
      ceiling: (value) => 2 ** Math.ceil(Math.log2(Math.max(value, 1024))),
    });
  }

  set(now, points) {
    const { wal } = now;
    this.none.hidden = wal != null;
    this.body.hidden = wal == null;
    if (wal == null) return;
    this.chart.set(points);
    setText(this.size, bytes(wal.size));
    this.#limits(wal);
    this.facts.set("Frames", `${count(wal.frames)} in use, ${count(wal.checkpointed)} of them copied to the database`);
    this.facts.set("Reading now", now.reading ? transactions(now.reading) : "none");
    this.#reader(now.oldest_reader ?? wal.oldest_reader);
    this.facts.set("Held back by", wal.held_back_by, "warn");
    this.facts.set("Last checkpoint", checkpoint(wal.last_checkpoint));
    this.facts.set("Checkpoints", checkpoints(now.checkpoints));
    this.facts.set("Gaps for them", gaps(now.gaps));
    this.facts.set("Outside writers", wal.outside_writers.join(", "), "warn");
    const bug = wal.reset_bug ? ", which has the WAL-reset bug" : "";
    this.facts.set("SQLite", `${wal.sqlite_version}${bug}`);
  }

  #reader(reader) {
    const long = reader?.long ? ", declared long" : "";
    const told = reader && `${duration(reader.seconds)}${long}: ${reader.who}`;
    this.facts.set("Oldest reader", told, reader?.outstayed ? "warn" : "");
  }

  #limits(wal) {
    const end = Math.max(wal.limit ?? 0, wal.soft_limit ?? 0, wal.size, 1);
    const over = (limit) => limit != null && wal.size >= limit;
    this.fill.style.width = `${(100 * wal.size) / end}%`;
    this.fill.dataset.state = over(wal.limit) ? "over" : over(wal.soft_limit) ? "above" : "";
    this.soft.hidden = wal.soft_limit == null;
    this.soft.style.left = `${(100 * (wal.soft_limit ?? 0)) / end}%`;
    const limit = (value) => (value == null ? "none" : bytes(value));
    const told = `soft ${limit(wal.soft_limit)}, hard ${limit(wal.limit)}`;
    this.facts.set("Limits", told);
    this.meter.setAttribute("aria-label", `${bytes(wal.size)}; limits: ${told}`);
  }
}

const transactions = (number) => `${count(number)} transaction${number === 1 ? "" : "s"}`;
const words = (name) => name.replaceAll("_", " ");

function checkpoint(last) {
  if (!last) return "none so far";
  return `${last.mode}, ${words(last.outcome)}; writers waited ${duration(last.seconds)}`;
}

function checkpoints(all) {
  const kinds = ["moved_all", "truncated", "held_back", "busy"].filter((kind) => all[kind]);
  if (!kinds.length) return null;
  const told = kinds.map((kind) => `${count(all[kind])} ${words(kind)}`).join(", ");
  return `${told}; the longest ${duration(all.longest_seconds)}`;
}

function gaps({ gaps: all, longest_seconds: longest }) {
  return all ? `${count(all)}, the longest ${duration(longest)}` : null;
}

export function charts(parent) {
  const rate = (value) => `${number(value)}/s`;
  const ms = (value) => (value == null ? "–" : duration(value / 1000));
  const area = (name, column) => ({ name, column, kind: "area" });
  const line = (name, column) => ({ name, column, kind: "line" });
  return [
    new Chart(parent, {
      title: "Statements",
      series: [area("inline", "inline"), area("in a thread", "in_thread")],
      format: rate,
    }),
    new Chart(parent, {
      title: "Transactions",
      series: [line("reads", "reads"), line("commits", "commits"), line("rollbacks", "rollbacks")],
      format: rate,
    }),
    new Chart(parent, {
      title: "Mean wait",
      series: [line("turn", "turn_wait_ms"), line("connection", "connection_wait_ms")],
      format: ms,
    }),
  ];
}

const mean = (seconds, times) => duration(times ? seconds / times : null);

function state(holder) {
  if (holder.waits_for) return `waits for ${holder.waits_for}`;
  return holder.idle_seconds == null ? "runs a statement" : `idle for ${duration(holder.idle_seconds)}`;
}

function place({ asked_at: asked, now_at: now }) {
  return asked && now && asked !== now ? `${asked} → ${now}` : (now ?? asked ?? "–");
}

export function holders({ engines }) {
  const all = engines.flatMap(({ role, holders: some }) => some.map((one) => ({ ...one, role })));
  return all.sort((one, other) => other.seconds - one.seconds);
}

export function holdersTable(parent) {
  const columns = [
    { title: "Engine", cell: (holder) => holder.role },
    { title: "By", cell: (holder) => holder.task },
    { title: "Line", cell: place },
    { title: "State", cell: state },
    { title: "Last SQL", sql: (holder) => holder.sql },
    { title: "Age", numeric: true, cell: (holder) => duration(holder.seconds) },
  ];
  return new Table(parent, columns, { empty: "No connection is in use.", caption: "Connections in use" });
}

export function waitsTable(parent) {
  const columns = [
    { title: "For", cell: ({ title }) => title },
    { title: "In line", numeric: true, cell: ({ waiting }) => count(waiting) },
    { title: "At once", numeric: true, cell: ({ waits }) => count(waits.at_once) },
    { title: "Waited", numeric: true, cell: ({ waits }) => count(waits.waited) },
    { title: "Mean", numeric: true, cell: ({ waits }) => mean(waits.seconds, waits.waited) },
    { title: "Longest", numeric: true, cell: ({ waits }) => (waits.waited ? duration(waits.longest_seconds) : "–") },
    { title: "Timed out", numeric: true, cell: ({ waits }) => count(waits.timed_out) },
    { title: "Cancelled", numeric: true, cell: ({ waits }) => count(waits.cancelled) },
  ];
  return new Table(parent, columns, { caption: "Waits since the start" });
}

export function lines(now) {
  const found = [{ title: "write turn", waiting: now.turn.waiting, waits: now.turn.waits }];
  for (const engine of now.engines) {
    if (engine.role !== "writer") {
      found.push({ title: `${engine.role} connection`, waiting: engine.waiting, waits: engine.waits });
    }
  }
  const { shared, waits_for_processes: waits } = now.turn;
  return shared ? [...found, { title: "other processes", waiting: null, waits }] : found;
}

export function connectionsTable(parent) {
  const of = (title, cell) => ({ title, numeric: true, cell: ({ connections }) => count(cell(connections)) });
  const columns = [
    { title: "Engine", cell: ({ role }) => role },
    of("Open", (one) => one.on_loan + one.at_rest),
    of("On loan", (one) => one.on_loan),
    of("At rest", (one) => one.at_rest),
    of("Kept", (one) => one.kept),
    of("At most", (one) => one.capacity),
    of("Opened", (one) => one.opened),
    of("Thrown away", (one) => one.thrown_away),
    of("Checkouts", (one) => one.checkouts),
  ];
  return new Table(parent, columns, { caption: "Connections" });
}

export class SlowestPanel {
  constructor(parent) {
    this.by = "longest_seconds";
    this.slowest = [];
    this.all = parent.appendChild(element("p", { class: "line" }));
    const sorted = (title, field, cell) => ({
      title,
      field,
      numeric: true,
      cell: (one) => cell(one[field]),
      press: () => this.#sort(field),
    });
    this.columns = [
      { title: "SQL", sql: (one) => one.sql },
      { title: "Engine", cell: (one) => one.role },
      sorted("Runs", "runs", count),
      sorted("Total", "seconds", duration),
      { title: "Mean", numeric: true, cell: (one) => mean(one.seconds, one.runs) },
      sorted("Longest", "longest_seconds", duration),
    ];
    this.table = new Table(parent, this.columns, {
      empty: "No statement has run yet.",
      caption: "Slowest statements; Runs, Total and Longest sort them",
    });
    this.#sort(this.by);
  }

  #sort(field) {
    this.by = field;
    this.columns.forEach((column, at) => {
      const sorting = column.field === field ? "descending" : "none";
      if (column.field) this.table.heads[at].setAttribute("aria-sort", sorting);
    });
    this.#list();
  }

  set({ engines, slowest }) {
    this.slowest = slowest;
    const sum = (field) => engines.reduce((all, { statements }) => all + statements[field], 0);
    const run = `${count(sum("inline"))} run on the event loop, ${count(sum("in_thread"))} in threads`;
    const long = `${count(sum("too_long_inline"))} too long on the loop`;
    setText(this.all, `${run}; ${long}, ${count(sum("failed"))} failed`);
    this.#list();
  }

  #list() {
    const sorted = [...this.slowest].sort((one, other) => other[this.by] - one[this.by]);
    this.table.set(sorted, (one) => `${one.role} ${one.sql}`);
  }
}
