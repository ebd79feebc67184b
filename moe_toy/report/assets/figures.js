// Draws every figure from the JSON beside it; a figure with choices gets a <select>.
"use strict";

const readJson = (element) => JSON.parse(element.querySelector("script[type='application/json']").textContent);

function chooser(label, options, first, onChoice) {
  const select = document.createElement("select");
  options.forEach((text, value) => select.add(new Option(text, value, value === first, value === first)));
  select.addEventListener("change", () => onChoice(Number(select.value)));
  const line = document.createElement("label");
  line.append(`${label} `, select);
  return line;
}

for (const element of document.querySelectorAll(".plot")) {
  const { data, layout } = readJson(element);
  Plotly.newPlot(element, data, layout, {
    responsive: true,
    displaylogo: false,
    displayModeBar: matchMedia("(hover: hover)").matches && "hover",
    modeBarButtons: [["toImage", "resetScale2d"]],
  });
  if (layout.meta?.choices) {
    const shown = (choice) => data.map((trace) => (trace.meta === undefined ? true : trace.meta === choice));
    const { label, choices, first } = layout.meta;
    const controls = document.createElement("div");
    controls.className = "controls";
    controls.append(chooser(label, choices, first, (choice) => Plotly.restyle(element, { visible: shown(choice) })));
    element.before(controls);
  }
}

// Colours of experts: hues a golden angle apart, in three shades, at equal contrast with the text.
function paint(element, expert) {
  element.classList.add("expert");
  element.style.setProperty("--hue", (expert * 137.508) % 360);
  element.style.setProperty("--shade", ((expert % 3) - 1) * 0.05);
  return element;
}

const make = (tag, text = "", className = "") => Object.assign(document.createElement(tag), { textContent: text, className });
