"use strict";
(() => {
  const report = JSON.parse(document.getElementById("data").textContent);
  const byId = (id) => document.getElementById(id);
  const size = report.nodes.length;
  const STATES = {
    w: ["works", "works", "packets take the planned path"],
    d: ["diverted", "diverted", "packets are forwarded to an unplanned next hop"],
    u: ["unknown", "unknown", "unknown: no snapshot, no pod interface, or hostgw cannot tell"],
    x: ["lost", "lost", "packets are lost"],
    ".": ["nothing", "not applicable", "not applicable"],
  };
  const LETTERS = [".", "w", "d", "u", "x"];
  const ROWS_AT_ONCE = 200;
  const NAMES_AT_ONCE = 500;

  /** Creates an element with children. Text is never interpreted as HTML. */
  const make = (tag, attributes = {}, ...children) => {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (name === "onclick") element.addEventListener("click", value);
      else if (value !== false) element.setAttribute(name, value === true ? "" : value);
    }
    element.append(...children.filter((child) => child !== null));
    return element;
  };
  const many = (number, noun) => `${number.toLocaleString("en-US")} ${noun}${number === 1 ? "" : "s"}`;

  // One byte per pair, by the order of severity.
  const cells = new Uint8Array(size * size);
  report.matrix.forEach((row, from) => {
    let at = from * size;
    for (const [, length, letter] of row.matchAll(/(\d+)(\D)/g)) {
      cells.fill(LETTERS.indexOf(letter), at, at + Number(length));
      at += Number(length);
    }
  });
  const state = (from, to) => LETTERS[cells[from * size + to]];
  const indexOf = new Map(report.nodes.map((node, index) => [node.name, index]));

  // The findings about each node.
  const findingsOf = new Map();
  report.findings.forEach((finding, number) => {
    for (const name of finding.nodes) {
      if (!findingsOf.has(name)) findingsOf.set(name, []);
      findingsOf.get(name).push(number);
    }
  });

  const { pairs } = report;
  const total = pairs.working + pairs.diverted + pairs.unknown + pairs.lost;
  let kept = null; // the pair that was clicked

  const nodeButton = (name) => make("button", { class: "node", type: "button", onclick: () => showNode(name) }, name);

  const findingElement = (finding, hasNodes = true) => {
    const shown = finding.nodes.slice(0, NAMES_AT_ONCE);
    const more = finding.nodes.length - shown.length;
    const nodes = make("div", {}, ...shown.map(nodeButton), more > 0 ? ` and ${more} more` : "");
    const names = finding.nodes.length > 12
      ? make("details", {}, make("summary", {}, many(finding.nodes.length, "node")), nodes)
      : nodes;
    const source = finding.location ? ` (${finding.location.file}:${finding.location.line})` : "";
    return make("div", { class: `finding ${finding.severity}` },
      make("div", { class: "head" }, `${finding.code} ${finding.title}`),
      make("div", {}, make("code", {}, finding.message), make("span", { class: "dim" }, source)),
      finding.remedy ? make("div", { class: "dim" }, `help: ${finding.remedy}`) : null,
      hasNodes && finding.nodes.length > 0 ? names : null);
  };

  const tile = (number, label, isBad) =>
    make("div", { class: isBad ? "tile bad" : "tile" }, make("b", {}, number.toLocaleString("en-US")), label);

  const summary = () => {
    const times = report.oldestSnapshot ? ` Snapshots from ${report.oldestSnapshot} to ${report.newestSnapshot}.` : "";
    byId("about").append(`${report.file}, SHA-256 ${report.configHash.slice(0, 12)}.${times}`);
    const errors = report.findings.filter((finding) => finding.severity === "error").length;
    const { working, diverted, unknown, lost, oneWay } = report.pairs;
    byId("tiles").append(
      tile(size, "nodes", false),
      tile(report.snapshots, "snapshots", report.snapshots < size),
      tile(errors, "errors", errors > 0),
      tile(report.findings.length - errors, "warnings", false),
      tile(working, "working pairs", false),
      tile(lost, "pairs lost", lost > 0),
      ...(oneWay ? [tile(oneWay, "one-way pairs", true)] : []),
      ...(diverted ? [tile(diverted, "diverted pairs", false)] : []),
      ...(unknown ? [tile(unknown, "unknown pairs", false)] : []),
      tile(report.nodesToApply.length, "nodes need an apply", report.nodesToApply.length > 0));
    byId("findings").append(...(report.findings.length
      ? report.findings.map((finding) => findingElement(finding))
      : [make("p", {}, "No findings.")]));
    for (const letter of ["w", "d", "x", "u", "."]) {
      const [name, title] = STATES[letter];
      byId("legend").append(make("span", { class: "key", style: `--color: var(--${name})` }, title));
    }
  };

  // The matrix: one square per pair; in large clusters, one pixel shows the worst of several pairs.
  const canvas = byId("matrix");
  const scale = size <= 640 ? Math.max(1, Math.min(16, Math.floor(640 / Math.max(size, 1)))) : 1;
  const step = Math.max(1, Math.ceil(size / 640));
  const side = Math.ceil(size / step);
  canvas.width = canvas.height = Math.max(1, side * scale);
  const worst = (row, column) => {
    let found = 0;
    for (let from = row * step; from < Math.min(size, (row + 1) * step); from += 1) {
      for (let to = column * step; to < Math.min(size, (column + 1) * step); to += 1) {
        found = Math.max(found, cells[from * size + to]);
      }
    }
    return LETTERS[found];
  };
  const draw = () => {
    const context = canvas.getContext("2d");
    const style = getComputedStyle(document.documentElement);
    const colors = Object.fromEntries(Object.entries(STATES).map(([letter, [name]]) =>
      [letter, style.getPropertyValue(`--${name}`)]));
    for (let row = 0; row < side; row += 1) {
      for (let column = 0; column < side; column += 1) {
        context.fillStyle = colors[worst(row, column)];
        const gap = scale > 4 ? 1 : 0;
        context.fillRect(column * scale, row * scale, scale - gap, scale - gap);
      }
    }
    canvas.setAttribute("aria-label", `${report.pairs.lost} of ${total} pairs lost`);
  };

  /** The pair at a place of the canvas: of several, the worst. */
  const pairAt = (event) => {
    const box = canvas.getBoundingClientRect();
    const column = Math.floor(((event.clientX - box.left) / box.width) * side);
    const row = Math.floor(((event.clientY - box.top) / box.height) * side);
    if (row < 0 || column < 0 || row >= side || column >= side) return null;
    let best = [row * step, column * step];
    for (let from = row * step; from < Math.min(size, (row + 1) * step); from += 1) {
      for (let to = column * step; to < Math.min(size, (column + 1) * step); to += 1) {
        if (cells[from * size + to] > cells[best[0] * size + best[1]]) best = [from, to];
      }
    }
    return best;
  };
  const way = (from, to) => make("p", {},
    make("code", {}, report.nodes[from].name), " → ", make("code", {}, report.nodes[to].name),
    `: ${STATES[state(from, to)][2]}`);
  const showPair = (from, to) => {
    const numbers = new Set([from, to].flatMap((index) => findingsOf.get(report.nodes[index].name) || []));
    byId("cell").replaceChildren(way(from, to), from === to ? "" : way(to, from));
    byId("pair").replaceChildren(...[...numbers].sort((a, b) => a - b).slice(0, 20)
      .map((number) => findingElement(report.findings[number], false)));
  };
  canvas.addEventListener("mousemove", (event) => {
    const pair = kept === null ? pairAt(event) : null;
    if (pair) showPair(...pair);
  });
  canvas.addEventListener("click", (event) => {
    kept = kept === null ? pairAt(event) : null;
    if (kept) showPair(...kept);
  });
  canvas.addEventListener("keydown", (event) => {
    const moves = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
    const move = moves[event.key];
    if (!move || size === 0) return;
    event.preventDefault();
    const [from, to] = kept || [0, 0];
    const inside = (index) => Math.max(0, Math.min(size - 1, index));
    kept = [inside(from + move[0]), inside(to + move[1])];
    showPair(...kept);
  });

  // The nodes.
  let limit = ROWS_AT_ONCE;
  const isBad = (node) => !node.snapshot || node.lost > 0 || report.applySet.has(node.name) || findingsOf.has(node.name);
  report.applySet = new Set(report.nodesToApply);
  const changes = (node) => {
    if (!node.totals) return "";
    const { add, update, remove, conflicts } = node.totals;
    const parts = [[add, "+"], [update, "~"], [remove, "-"]].filter(([number]) => number > 0)
      .map(([number, sign]) => `${sign}${number}`);
    if (conflicts > 0) parts.push(many(conflicts, "conflict"));
    return parts.join(" ");
  };
  const configuration = (node) => {
    if (!node.configHash) return "";
    if (node.configHash === report.configHash) return "current";
    return node.commit ? `commit ${node.commit.id.slice(0, 12)}${node.commit.dirty ? ", with uncommitted changes" : ""}` : node.configHash.slice(0, 12);
  };
  const rowOf = (node) => make("tr", {},
    make("td", {}, nodeButton(node.name)),
    make("td", {}, node.os),
    make("td", { class: node.lost > 0 ? "bad" : "" }, node.lost > 0 ? many(node.lost, "node") : ""),
    make("td", { class: node.totals && changes(node) ? "bad" : "" }, changes(node)),
    make("td", { class: node.configHash && node.configHash !== report.configHash ? "bad" : "" }, configuration(node)),
    make("td", { class: node.snapshot ? "" : "bad" }, node.snapshot ? `${node.takenAt}` : "none"));
  const list = () => {
    const wanted = byId("filter").value.trim().toLowerCase();
    const onlyBad = byId("bad").checked;
    const found = report.nodes.filter((node) =>
      node.name.toLowerCase().includes(wanted) && (!onlyBad || isBad(node)));
    byId("nodes").replaceChildren(...found.slice(0, limit).map(rowOf));
    const more = found.length - Math.min(found.length, limit);
    byId("shown").replaceChildren(
      `${many(found.length, "node")}${more > 0 ? `, ${many(Math.min(found.length, limit), "row")} shown ` : ""}`,
      more > 0 ? make("button", { type: "button", onclick: () => { limit = Infinity; list(); } }, "Show all") : "");
  };
  byId("filter").addEventListener("input", list);
  byId("bad").addEventListener("change", list);

  /** Shows the findings of a node, and its first lost pair. */
  const showNode = (name) => {
    const index = indexOf.get(name);
    if (index === undefined) return;
    const lost = cells.subarray(index * size, (index + 1) * size).indexOf(LETTERS.indexOf("x"));
    kept = [index, lost < 0 ? index : lost];
    showPair(...kept);
    byId("filter").value = name;
    list();
    byId("map").scrollIntoView({ behavior: "smooth" });
  };

  summary();
  draw();
  list();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
})();
