// Draws the charts that are in sight, shows the panel that is chosen, and fits all of it to paper.
"use strict";
(() => {
  const PAPER = 690; // px, what an A4 or letter page leaves between its margins
  const config = {
    responsive: true,
    displaylogo: false,
    modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"],
  };
  const axis = {
    automargin: true, gridcolor: "#d8d8d8", linecolor: "#8a8a8a", zeroline: false, ticks: "outside",
    tickcolor: "#8a8a8a", title: { standoff: 8 },
  };
  const template = {
    layout: {
      font: { family: "system-ui, sans-serif", size: 13, color: "#1d2126" },
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      margin: { l: 8, r: 12, t: 12, b: 8 },
      hovermode: "closest",
      hoverlabel: { align: "left", bgcolor: "#ffffff", font: { color: "#1d2126" } },
      dragmode: false, // a finger on a chart scrolls the page; the bar above it zooms
      legend: { orientation: "h", yref: "container", y: 0, yanchor: "bottom", x: 0 },
      xaxis: axis,
      yaxis: axis,
    },
  };

  const charts = () => [...document.querySelectorAll(".chart")];
  const drawn = (chart) => chart.classList.contains("js-plotly-plot");
  function draw(chart, width) {
    const size = { width, autosize: width === undefined };
    if (drawn(chart)) return Plotly.relayout(chart, size);
    const spec = JSON.parse(document.getElementById(chart.id + "-data").textContent);
    return Plotly.newPlot(chart, spec.data, { ...spec.layout, ...size, template }, config);
  }
  const drawVisible = () =>
    charts().filter((chart) => chart.offsetParent).forEach((chart) => draw(chart));

  for (const choice of document.querySelectorAll(".choice")) {
    const select = choice.querySelector("select");
    if (!select) continue;
    const panels = choice.querySelectorAll(":scope > .panel");
    select.addEventListener("change", () => {
      panels.forEach((panel, i) => (panel.hidden = i !== select.selectedIndex));
      drawVisible();
    });
  }

  let hidden = [];
  addEventListener("beforeprint", () => {
    hidden = [...document.querySelectorAll(".panel[hidden]")];
    hidden.forEach((panel) => (panel.hidden = false));
    charts().forEach((chart) => draw(chart, PAPER));
  });
  addEventListener("afterprint", () => {
    hidden.forEach((panel) => (panel.hidden = true));
    drawVisible();
  });

  drawVisible();
})();
