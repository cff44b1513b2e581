// Grids of numbers that are pointed at with a mouse, a finger or the arrow keys; views around them.
"use strict";
const grids = (() => {
  const ARROWS = {
    ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1],
    Home: [0, -Infinity], End: [0, Infinity], PageUp: [-Infinity, 0], PageDown: [Infinity, 0],
  };
  let made = 0;

  function element(name, parent, properties = {}, attributes = {}) {
    const one = Object.assign(document.createElement(name), properties);
    for (const [key, value] of Object.entries(attributes)) one.setAttribute(key, value);
    parent?.append(one);
    return one;
  }

  // The keys that every grid and map knows; `others` are a view's own, by name.
  function keys(target, move, others) {
    target.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.altKey || event.metaKey) return;
      const arrow = ARROWS[event.key];
      if (arrow) move(...arrow);
      else if (others?.[event.key]) others[event.key]();
      else return;
      event.preventDefault();
    });
  }

  /* Returns a grid with update(). Options:
     label, caption   what it is, for those who cannot see it; what stands above it (may change)
     rows, columns    the indices that are shown, in order
     cell(i, j)       text and classes of a cell
     at()             the chosen cell's [i, j], or null
     pick(i, j)       a cell was pointed at; without it the grid is only looked at
     move(di, dj)     an arrow key; by default from cell to cell that is shown
     keys             further keys
     heads            false: no indices beside the cells */
  function grid(parent, options) {
    const { label, caption, cell, at, pick, heads = true } = options;
    const id = `grid-${++made}`;
    const box = element("figure", parent, { className: "numbers" });
    const title = element("figcaption", box);
    const roles = pick ? { role: "grid", tabindex: 0 } : { role: "table" };
    const table = element("div", box, { id, className: "cells" },
      { ...roles, "aria-label": label });
    let shown = "", rows = [], columns = [], cells = [];

    function rebuild() {
      table.replaceChildren();
      table.style.setProperty("--columns", columns.length);
      table.classList.toggle("headed", heads);
      table.classList.toggle("small", columns.length > (heads ? 14 : 9) || rows.length > 14);
      const head = (line, textContent, role) =>
        element("span", line, { className: "head", textContent }, { role });
      if (heads) {
        const top = element("div", table, {}, { role: "row" });
        for (const j of ["", ...columns]) head(top, j, "columnheader");
      }
      cells = rows.map((i, row) => {
        const line = element("div", table, {}, { role: "row" });
        if (heads) head(line, i, "rowheader");
        return columns.map((j, column) => {
          const role = pick ? "gridcell" : "cell";
          const one = element("span", line, { id: `${id}-${row}-${column}` }, { role });
          one.dataset.place = `${row} ${column}`;
          return one;
        });
      });
    }

    function update() {
      rows = options.rows();
      columns = options.columns();
      const key = `${rows} by ${columns}`;
      if (key !== shown) rebuild();
      shown = key;
      title.textContent = caption();
      const chosen = at?.();
      table.removeAttribute("aria-activedescendant");
      cells.forEach((line, row) => line.forEach((one, column) => {
        const [text, marks] = cell(rows[row], columns[column]);
        const here = chosen && chosen[0] === rows[row] && chosen[1] === columns[column];
        const classes = `cell ${marks}${here ? " chosen" : ""}`;
        if (one.textContent !== String(text)) one.textContent = text;
        if (one.className !== classes) one.className = classes;
        if (here && pick) table.setAttribute("aria-activedescendant", one.id);
      }));
    }

    if (pick) {
      const point = (event) => {
        const place = event.target.dataset?.place?.split(" ");
        if (place) pick(rows[place[0]], columns[place[1]]);
      };
      table.addEventListener("pointerover", point);
      table.addEventListener("pointerdown", point);
      keys(table, options.move ?? ((di, dj) => {
        const [i, j] = at() ?? [rows[0], columns[0]];
        const go = (list, from, by) =>
          list[arrays.clamp(list.indexOf(from) + by, 0, list.length - 1)];
        pick(go(rows, i, di), go(columns, j, dj));
      }), options.keys);
    }
    return { update, table };
  }

  // A view: its heading is the page's; a bar of controls, what it says, a place for grids.
  function view(place, name, fill) {
    const bar = element("div", place, { className: "controls" });
    const said = element("output", place, { className: "said" }, { "aria-live": "polite" });
    const body = element("div", place, { className: "body" });
    const tell = (...lines) => {
      const text = lines.filter(Boolean).join("\n");
      if (said.textContent !== text) said.textContent = text;
    };
    fill({ bar, body, tell });
    const button = element("button", bar, { type: "button", textContent: "Save as PNG" });
    button.addEventListener("click", () => png.save(place, `${name()}.png`));
  }

  function number(bar, label, most, change) {
    const line = element("label", bar, { textContent: `${label} ` });
    const input = element("input", line, { type: "number", min: 0, max: most, value: 0, step: 1 });
    input.addEventListener("input", () => {
      const value = input.valueAsNumber;
      if (Number.isInteger(value) && value >= 0 && value <= most) change(value);
    });
    line.hidden = most === 0;
    return input;
  }

  function list(bar, label, names, change) {
    const line = element("label", bar, { textContent: `${label} ` });
    const select = element("select", line, { autocomplete: "off" });
    for (const name of names) element("option", select, { textContent: name });
    select.addEventListener("change", () => change(select.selectedIndex));
    line.hidden = names.length < 2;
    return select;
  }

  return { element, keys, grid, view, number, list };
})();
