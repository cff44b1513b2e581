// Opens the details of a source line: one warp's 32 lanes on sectors of memory or on banks.
"use strict";
(() => {
  const details = JSON.parse(document.getElementById("xray-data").textContent);

  function element(name, parent, properties = {}) {
    const made = Object.assign(document.createElement(name), properties);
    parent?.append(made);
    return made;
  }

  // What one lane of the drawn request touches.
  function told(access, lane) {
    const at = access.elements[lane];
    if (at === null) return `lane ${lane} is not active`;
    const rows = access.rows.filter((row) =>
      Object.values(row.cells).some((cell) => cell.lanes.includes(lane)));
    if (access.space === "shared") {
      const banks = rows.flatMap((row) => Object.keys(row.cells)
        .filter((bank) => row.cells[bank].lanes.includes(lane)));
      const where = banks.length > 1 ? `banks ${banks[0]} to ${banks.at(-1)}` : `bank ${banks[0]}`;
      return `lane ${lane}: ${access.array}[${at}], ${where}, ${rows.map((r) => r.label).join(", ")}`;
    }
    const sharing = new Set(rows.flatMap((row) => Object.values(row.cells)
      .filter((cell) => cell.lanes.includes(lane)).flatMap((cell) => cell.lanes)));
    const others = sharing.size > 1 ? `, the same words as ${sharing.size - 1} other lanes` : "";
    return `lane ${lane}: ${access.array}[${at}]${others}`;
  }

  function words(parent, row, space) {
    const made = element("div", parent, { className: "words" });
    for (let at = 0; at < 32; at++) {
      const cell = row.cells[at];
      const span = element("span", made);
      if (space === "global" && at % 8 === 0) span.classList.add("edge");
      if (cell) {
        span.classList.add("lane");
        span.style.setProperty("--lane", cell.lanes[0]);
        span.dataset.lanes = cell.lanes.join(" ");
        span.textContent = cell.lanes.length > 1 ? `×${cell.lanes.length}` : cell.lanes[0];
      } else if (row.sectors[at >> 3]) span.classList.add("in-sector");
    }
    return made;
  }

  function draw(parent, access) {
    element("p", parent, { textContent: access.text });
    if (!access.rows.length) return;
    const shared = access.space === "shared";
    const sectors = access.rows.flatMap((row) => row.sectors).filter(Boolean).length;
    const many = (count, what) => `${count} ${what}${count === 1 ? "" : "s"}`;
    const count = shared ? many(access.rows.length, "wavefront") : many(sectors, "sector");
    const box = element("div", parent, { className: "warp", tabIndex: 0 });
    box.setAttribute("role", "group");
    box.setAttribute("aria-label", `${access.warp}: ${count}; arrow keys go from lane to lane`);
    element("p", box, {
      className: "note",
      textContent: `${access.warp}: ${count}. ` + (shared
        ? "A row is a wavefront, a column a bank; the numbers are lanes."
        : "A row is 128 bytes in four sectors; the numbers are lanes, hatched what comes along unused."),
    });
    if (shared) {
      const heads = element("div", box, { className: "row" });
      element("b", heads, { textContent: "bank" });
      const numbers = element("div", heads, { className: "words heads" });
      for (let bank = 0; bank < 32; bank++) element("span", numbers, { textContent: bank });
    }
    for (const row of access.rows) {
      const line = element("div", box, { className: "row" });
      element("b", line, { textContent: row.label });
      words(line, row, access.space);
    }
    const output = element("output", box);
    let chosen = access.elements.findIndex((at) => at !== null);
    const choose = (lane) => {
      chosen = (lane + 32) % 32;
      for (const span of box.querySelectorAll("[data-lanes]")) {
        span.classList.toggle("chosen", span.dataset.lanes.split(" ").includes(String(chosen)));
      }
      output.textContent = told(access, chosen);
    };
    const point = (event) => {
      const lanes = event.target.dataset?.lanes;
      if (lanes) choose(Number(lanes.split(" ")[0]));
    };
    box.addEventListener("pointerover", point);
    box.addEventListener("click", point);
    box.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      if (!step) return;
      event.preventDefault();
      choose(chosen + step);
    });
    choose(chosen);
  }

  function toggle(row) {
    const button = row.querySelector("button");
    const open = button.getAttribute("aria-expanded") === "true";
    button.setAttribute("aria-expanded", String(!open));
    if (open) return row.nextElementSibling.remove();
    const made = element("tr", null, { className: "detail" });
    const cell = element("td", made, { colSpan: row.children.length });
    for (const text of details[row.id].texts) element("p", cell, { textContent: text });
    for (const access of details[row.id].accesses) draw(cell, access);
    row.after(made);
  }

  for (const row of document.querySelectorAll("tr.has-detail")) {
    row.addEventListener("click", () => {
      if (String(getSelection())) return; // somebody marks text
      toggle(row);
    });
  }
})();
