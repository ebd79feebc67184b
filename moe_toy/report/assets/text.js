// A passage coloured by the experts of one layer. Pointing at a token names its experts and lights up its equals.
for (const element of document.querySelectorAll(".reader")) {
  const { layers, passages } = readJson(element); // passage: {title, tokens: [...], experts[layer][token] = [best, ...]}
  const state = { passage: 0, layer: layers.length - 1 };
  const text = make("div", "", "passage");
  const details = make("div", "", "details");
  const hint = "Point at a token, or tap it, to see its experts and the other tokens of its first one.";

  const show = () => {
    const { tokens, experts } = passages[state.passage];
    text.replaceChildren(...tokens.map((token, i) => {
      const span = paint(make("span", token), experts[state.layer][i][0]);
      span.dataset.token = i;
      return span;
    }));
    point(null);
  };
  const chips = (experts) => experts.map((expert) => paint(make("span", `${expert}`, "chip"), expert));
  const point = (index) => {
    text.classList.toggle("dimmed", index !== null);
    if (index === null) return details.replaceChildren(make("span", hint, "note"));
    const { tokens, experts } = passages[state.passage];
    const best = experts[state.layer][index][0];
    [...text.children].forEach((span, i) => span.classList.toggle("lit", experts[state.layer][i][0] === best));
    const others = experts[state.layer].filter(([first]) => first === best).length - 1;
    details.replaceChildren(
      make("code", JSON.stringify(tokens[index])), ` at ${index}: experts, best first, `, ...chips(experts[state.layer][index]),
      make("br"), `expert ${best} comes first for ${others} other token${others === 1 ? "" : "s"} of this passage`,
    );
  };
  for (const event of ["pointerover", "click"]) {
    text.addEventListener(event, ({ target }) => target.dataset.token && point(Number(target.dataset.token)));
  }
  text.addEventListener("pointerleave", () => point(null));
  const controls = make("div", "", "controls");
  controls.append(
    chooser("text", passages.map(({ title }) => title), 0, (passage) => { state.passage = passage; show(); }),
    chooser("layer", layers, state.layer, (layer) => { state.layer = layer; show(); }),
  );
  element.append(controls, details, text);
  show();
}
