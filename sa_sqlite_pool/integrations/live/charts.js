// Small charts of the last minutes, drawn as SVG.

import { duration, element, setText } from "./elements.js";

const SVG = "http://www.w3.org/2000/svg";
// The time that is shown: it grows with what is known, up to all that is kept.
const LEAST_SECONDS = 60;
const MOST_SECONDS = 300;
const WIDTH = 300;
const HEIGHT = 64;
// More time than this between two samples is a gap in the line.
const GAP_SECONDS = 4;

function shape(tag, attributes) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

// The next number that is easy to read: 1, 2 or 5 times a power of ten.
function ceiling(value) {
  if (value <= 0) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return power * [1, 2, 5, 10].find((step) => step * power >= value * 0.999);
}

// series: [{ name, column, kind: "area" or "line" }]; areas are stacked.
// format(value) → text with its unit.
export class Chart {
  constructor(parent, { title, series, format, ceiling: top = ceiling }) {
    Object.assign(this, { title, series, format, top, points: [], seconds: LEAST_SECONDS });
    this.picked = null;
    this.#build(parent);
  }

  #build(parent) {
    this.values = this.series.map(() => element("span", { class: "value" }));
    const legend = this.series.map(({ name }, at) =>
      element("li", { class: `series-${at}` }, element("span", { text: name }), this.values[at]),
    );
    this.scale = element("span", { class: "scale" });
    this.when = element("span", { class: "when" });
    this.svg = shape("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none" });
    this.svg.setAttribute("aria-hidden", "true");
    this.paths = this.series.map(({ kind }, at) => shape("path", { class: `${kind} series-${at}` }));
    // The first on top: an area of no height above it is not seen.
    this.svg.append(...[...this.paths].reverse());
    this.cross = this.svg.appendChild(shape("path", { class: "cross" }));
    this.plot = element("div", { class: "plot", tabindex: "0", role: "img" }, this.svg, this.scale);
    this.since = element("span");
    const axis = element("p", { class: "axis" }, this.since, this.when);
    const section = element("section", { class: "chart" }, element("h2", { text: this.title }));
    section.append(element("ul", {}, ...legend), this.plot, axis);
    parent.append(section);
    this.#listen();
  }

  #listen() {
    this.plot.addEventListener("pointermove", (event) => {
      const box = this.plot.getBoundingClientRect();
      this.#pick(Math.min(1, Math.max(0, (event.clientX - box.left) / box.width)));
    });
    for (const name of ["pointerleave", "blur"]) {
      this.plot.addEventListener(name, () => this.#pick(null));
    }
    this.plot.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (step === undefined) return;
      event.preventDefault();
      const from = this.picked ?? 1;
      this.#pick(Math.min(1, Math.max(0, from + (step * 5) / this.seconds)));
    });
  }

  #pick(share) {
    this.picked = share;
    this.#label();
  }

  // points: objects by column.
  set(points) {
    this.points = points;
    const known = points.length ? points[points.length - 1].at - points[0].at : 0;
    this.seconds = Math.min(MOST_SECONDS, Math.max(LEAST_SECONDS, known));
    setText(this.since, `−${duration(this.seconds)}`);
    this.most = this.top(Math.max(0, ...points.map((point) => this.#height(point))));
    setText(this.scale, this.format(this.most));
    const floor = points.map(() => 0);
    this.series.forEach(({ column, kind }, at) => {
      const drawn = kind === "area" ? this.#area(column, floor) : this.#line(column);
      this.paths[at].setAttribute("d", drawn);
    });
    this.#label();
  }

  #height(point) {
    const areas = this.series.filter(({ kind }) => kind === "area");
    const lines = this.series.filter(({ kind }) => kind === "line");
    const stacked = areas.reduce((sum, { column }) => sum + (point[column] ?? 0), 0);
    return Math.max(stacked, ...lines.map(({ column }) => point[column] ?? 0));
  }

  #x(point) {
    const latest = this.points[this.points.length - 1].at;
    return (WIDTH * (1 - (latest - point.at) / this.seconds)).toFixed(2);
  }

  #y(value) {
    return (HEIGHT - 1 - (HEIGHT - 2) * (value / this.most)).toFixed(2);
  }

  // Runs of points without a gap and without a missing value: [[index, …], …].
  #runs(column) {
    const runs = [];
    this.points.forEach((point, at) => {
      if (point[column] == null) return;
      const before = this.points[at - 1];
      const joined = before && before[column] != null && point.at - before.at < GAP_SECONDS;
      if (joined && runs.length) runs[runs.length - 1].push(at);
      else runs.push([at]);
    });
    return runs;
  }

  #line(column) {
    const place = (at) => `${this.#x(this.points[at])} ${this.#y(this.points[at][column])}`;
    return this.#runs(column).map((run) => `M${run.map(place).join("L")}h0.01`).join("");
  }

  #area(column, floor) {
    const drawn = this.#runs(column).map((run) => {
      const x = (at) => this.#x(this.points[at]);
      const above = run.map((at) => `${x(at)} ${this.#y(floor[at] + this.points[at][column])}`);
      const below = [...run].reverse().map((at) => `${x(at)} ${this.#y(floor[at])}`);
      return `M${above.join("L")}L${below.join("L")}Z`;
    });
    this.points.forEach((point, at) => {
      floor[at] += point[column] ?? 0;
    });
    return drawn.join("");
  }

  // The latest values, or those under the pointer.
  #label() {
    const latest = this.points[this.points.length - 1];
    const chosen = this.#chosen();
    const shown = chosen ?? latest;
    this.series.forEach(({ column }, at) => {
      setText(this.values[at], shown ? this.format(shown[column]) : "–");
    });
    const ago = chosen ? Math.round(latest.at - chosen.at) : 0;
    setText(this.when, ago ? `${ago} s ago` : "now");
    this.cross.setAttribute("d", chosen ? `M${this.#x(chosen)} 0V${HEIGHT}` : "");
    const told = this.series.map(({ name }, at) => `${name} ${this.values[at].textContent}`);
    this.plot.setAttribute("aria-label", `${this.title}, ${this.when.textContent}: ${told.join(", ")}`);
  }

  #chosen() {
    if (this.picked == null || this.points.length === 0) return null;
    const at = this.points[this.points.length - 1].at - this.seconds * (1 - this.picked);
    const distance = (point) => Math.abs(point.at - at);
    return this.points.reduce((best, point) => (distance(point) < distance(best) ? point : best));
  }
}
