// Draws the charts that are in sight, shows the panel that is chosen, and fits all of it to paper.
"use strict";
(() => {
  const PAPER = { width: 690, squeeze: 0.8 }; // px between an A4 or letter page's margins
  const config = {
    responsive: true,
    displaylogo: false,
    showSendToCloud: false, // Plotly's default has a button that uploads the chart's data
    plotlyServerURL: "",
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
      margin: { l: 8, r: 12, t: 30, b: 8 },
      modebar: { bgcolor: "rgba(0,0,0,0)", color: "#7A8087", activecolor: "#0072B2" },
      hovermode: "closest",
      hoverlabel: { align: "left", bgcolor: "#ffffff", font: { color: "#1d2126" } },
      dragmode: false, // a finger on a chart scrolls the page; the bar above it zooms
      showlegend: true,
      legend: {
        orientation: "h", yref: "container", y: 0, yanchor: "bottom", x: 0, itemsizing: "constant",
      },
      xaxis: axis,
      yaxis: axis,
    },
  };

  const charts = (within = document) => [...within.querySelectorAll(".chart")];
  const drawn = (chart) => chart.classList.contains("js-plotly-plot");
  function draw(chart, { width, squeeze = 1 } = {}) {
    const spec = JSON.parse(document.getElementById(chart.id + "-data").textContent);
    const height = squeeze * (spec.layout.height ?? 450);
    const size = { width, height, autosize: width === undefined };
    if (drawn(chart)) return Plotly.relayout(chart, size);
    return Plotly.newPlot(chart, spec.data, { ...spec.layout, ...size, template }, config);
  }
  const drawVisible = (within) =>
    charts(within).filter((chart) => chart.offsetParent).forEach((chart) => draw(chart));

  for (const choice of document.querySelectorAll(".choice")) {
    const select = choice.querySelector("select");
    if (!select) continue;
    const panels = choice.querySelectorAll(":scope > .panel");
    select.addEventListener("change", () => {
      panels.forEach((panel, i) => (panel.hidden = i !== select.selectedIndex));
      drawVisible(choice);
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
