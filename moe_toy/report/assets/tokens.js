// The strongest tokens of every expert, one layer and kind at a time.
for (const element of document.querySelectorAll(".strongest")) {
  const { layers, kinds, tokens } = readJson(element); // tokens[kind][layer][expert] = [[text, strength], ...]
  const state = { kind: 0, layer: layers.length - 1 };
  const table = make("table");
  const show = () => {
    table.replaceChildren();
    tokens[state.kind][state.layer].forEach((owned, expert) => {
      if (!owned.length) return;
      const row = table.insertRow();
      row.append(make("th"));
      row.firstChild.append(paint(make("span", `${expert}`, "chip"), expert));
      const cell = row.insertCell();
      for (const [text, strength] of owned) {
        const chip = make("code", text, "chip");
        chip.title = `${Math.round(100 * strength)} % of its occurrences are led by expert ${expert}`;
        chip.style.opacity = 0.7 + 0.3 * strength;
        cell.append(chip);
      }
    });
  };
  const controls = make("div", "", "controls");
  controls.append(
    chooser("layer", layers, state.layer, (layer) => { state.layer = layer; show(); }),
    chooser("tokens", kinds, 0, (kind) => { state.kind = kind; show(); }),
  );
  const box = make("div", "", "token-table");
  box.append(table);
  element.append(controls, box);
  show();
}
