// Elements and numbers. All text is put in as text, never as HTML.

export function element(tag, options = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(options)) {
    if (name === "class") made.className = value;
    else if (name === "text") made.textContent = value;
    else made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

// Writes only what is new, so that a selection of the reader's stays.
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const fine = new Intl.NumberFormat("en", { maximumSignificantDigits: 3 });

export function number(value) {
  return value == null ? "–" : Math.abs(value) < 100 ? fine.format(value) : whole.format(value);
}

export function count(value) {
  return value == null ? "–" : whole.format(value);
}

export function duration(seconds) {
  if (seconds == null) return "–";
  if (seconds === 0) return "0 ms";
  if (seconds < 0.00095) return `${number(seconds * 1e6)} µs`;
  if (seconds < 0.9995) return `${number(seconds * 1000)} ms`;
  if (seconds < 60) return `${seconds.toFixed(seconds < 10 ? 2 : 1)} s`;
  const rest = Math.floor(seconds % 60);
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min${rest ? ` ${rest} s` : ""}`;
  return `${Math.floor(seconds / 3600)} h ${Math.floor((seconds % 3600) / 60)} min`;
}

export function bytes(value) {
  if (value == null) return "–";
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  let size = value;
  while (size >= 1024 && unit < units.length - 1) {
    size /= 1024;
    unit += 1;
  }
  return `${number(size)} ${units[unit]}`;
}

// A SELECT without its list of columns, which says the least and hides the rest of the line.
function brief(text) {
  return text.replace(/^(\s*SELECT\s)\s*[^']{40,}?(\sFROM\s)/i, "$1…$2");
}

// One line of SQL, all of it when it is opened.
export function sql() {
  const code = element("code", { class: "all" });
  const line = element("code", { class: "brief" });
  const summary = element("summary", {}, line, code);
  summary.addEventListener("click", (event) => {
    // The end of a selection is no click.
    if (!getSelection().isCollapsed) event.preventDefault();
  });
  const made = element("details", { class: "sql" }, summary);
  return {
    node: made,
    set(text) {
      setText(code, text ?? "");
      setText(line, brief(text ?? ""));
      made.hidden = !text;
    },
  };
}

// Names and values, updated in place; a value that is null has no row.
export class Facts {
  constructor(parent) {
    this.list = element("dl");
    this.rows = new Map();
    parent.append(this.list);
  }

  set(name, value, emphasis = "") {
    let row = this.rows.get(name);
    if (!row) {
      row = { name: element("dt", { text: name }), value: element("dd") };
      this.rows.set(name, row);
      this.list.append(element("div", {}, row.name, row.value));
    }
    row.name.parentNode.hidden = value == null || value === "";
    row.value.className = emphasis;
    setText(row.value, value ?? "");
  }
}

// A table whose rows are kept as long as their keys come again.
// A column: { title, numeric, cell(item) → text } or { title, sql(item) → text }.
export class Table {
  constructor(parent, columns, { empty = "", caption = "" } = {}) {
    this.columns = columns;
    this.rows = new Map();
    this.heads = columns.map((column) => this.#head(column));
    this.body = element("tbody");
    const head = element("thead", {}, element("tr", {}, ...this.heads));
    const hidden = element("caption", { text: caption });
    this.table = element("table", {}, hidden, head, this.body);
    this.empty = element("p", { class: "empty", text: empty });
    parent.append(this.table, this.empty);
  }

  #head(column) {
    const head = element("th", { scope: "col", class: column.numeric ? "numeric" : "" });
    if (column.press) {
      const button = element("button", { type: "button", text: column.title });
      button.addEventListener("click", column.press);
      head.append(button);
    } else {
      head.textContent = column.title;
    }
    return head;
  }

  set(items, keyOf) {
    const kept = new Map();
    const times = new Map();
    for (const item of items) {
      const again = times.get(keyOf(item)) ?? 0;
      times.set(keyOf(item), again + 1);
      const key = `${again} ${keyOf(item)}`;
      const row = this.rows.get(key) ?? this.#row();
      this.columns.forEach((column, at) => row.set[at](item));
      kept.set(key, row);
    }
    this.rows = kept;
    const wanted = [...kept.values()].map((row) => row.node);
    const shown = [...this.body.children];
    if (wanted.length !== shown.length || wanted.some((node, at) => node !== shown[at])) {
      this.#arrange(wanted);
    }
    this.table.hidden = items.length === 0;
    this.empty.hidden = items.length !== 0;
  }

  // Moving a row takes the focus from it, so the rows in place are left alone.
  #arrange(wanted) {
    const staying = new Set(wanted);
    for (const node of [...this.body.children]) if (!staying.has(node)) node.remove();
    wanted.forEach((node, at) => {
      if (this.body.children[at] !== node) this.body.insertBefore(node, this.body.children[at] ?? null);
    });
  }

  #row() {
    const cells = this.columns.map((column) => this.#cell(column));
    return {
      node: element("tr", {}, ...cells.map((cell) => cell.node)),
      set: cells.map((cell) => cell.set),
    };
  }

  #cell(column) {
    const node = element("td", { "data-title": column.title });
    if (column.sql) {
      const shown = sql();
      node.className = "statement";
      node.append(shown.node);
      return { node, set: (item) => shown.set(column.sql(item)) };
    }
    if (column.numeric) node.className = "numeric";
    return { node, set: (item) => setText(node, column.cell(item) ?? "") };
  }
}
