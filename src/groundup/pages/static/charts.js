// Draws every figure of the page with plotly, in the colours of the page's style, again when the colour scheme changes.
"use strict";
(() => {
  const figures = JSON.parse(document.getElementById("figures").textContent);
  const color = (name) => getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim();

  const axis = (given) => ({
    ...given,
    title: { ...given.title, font: { size: 12, color: color("soft") }, standoff: 8 },
    gridcolor: color("line"), linecolor: color("line"), zeroline: false, automargin: true,
    tickfont: { size: 12, color: color("soft") }, ticks: "",
  });

  const draw = (place) => {
    const figure = figures[place.dataset.figure];
    const data = figure.data.map((trace) => ({ ...trace, line: { ...trace.line, color: color(trace.line.color) } }));
    const layout = {
      ...figure.layout,
      xaxis: axis(figure.layout.xaxis), yaxis: axis(figure.layout.yaxis),
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", hovermode: "x unified",
      hoverlabel: { bgcolor: color("card"), bordercolor: color("line"), font: { color: color("text") } },
      font: { family: getComputedStyle(document.body).fontFamily, color: color("text") },
      legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom", font: { size: 12 } },
      margin: { l: 8, r: 12, t: figure.layout.showlegend ? 34 : 12, b: 8 },
      height: 280,
    };
    Plotly.react(place, data, layout, { responsive: true, displaylogo: false, displayModeBar: false, scrollZoom: false });
  };

  const drawAll = () => document.querySelectorAll("[data-figure]").forEach(draw);
  drawAll();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
})();
