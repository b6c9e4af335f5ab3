// Filters and sorts the gallery; shows the values under the pointer on the charts.
const gallery = document.querySelector("#gallery");
if (gallery) {
  const cards = [...gallery.children];
  const [task, stage, order] = ["task", "stage", "order"].map((name) => document.querySelector(`#${name}`));
  const arrange = () => {
    const sign = { high: -1, low: 1 }[order.value];
    const sorted = sign
      ? [...cards].sort((a, b) => sign * (a.dataset.reward - b.dataset.reward))
      : cards;
    gallery.append(...sorted);
    for (const card of cards) {
      card.hidden = Boolean(
        (task.value && card.dataset.task !== task.value) || (stage?.value && card.dataset.stage !== stage.value));
    }
    document.querySelector("#shown").textContent = cards.filter((card) => !card.hidden).length;
  };
  for (const control of [task, stage, order]) control?.addEventListener("change", arrange);
  arrange();
}

const digits = (value) => Number(value.toPrecision(4)).toLocaleString("en");
for (const chart of document.querySelectorAll(".chart")) {
  const { box: [left, top, right, bottom], x: [low, high], series } = JSON.parse(chart.dataset.chart);
  const tip = chart.parentElement.appendChild(Object.assign(document.createElement("div"), { className: "tip" }));
  const line = chart.appendChild(document.createElementNS("http://www.w3.org/2000/svg", "line"));
  line.setAttribute("class", "cursor");
  chart.addEventListener("pointermove", (event) => {
    const area = chart.getBoundingClientRect();
    const at = ((event.clientX - area.left) / area.width) * chart.viewBox.baseVal.width;
    const step = low + ((at - left) / (right - left)) * (high - low);
    const near = series.map((one) => ({ ...one, point: one.points.reduce(
      (best, point) => (Math.abs(point[0] - step) < Math.abs(best[0] - step) ? point : best)) }));
    const x = near[0].point[0];
    const position = left + ((x - low) / (high - low)) * (right - left);
    for (const [name, value] of Object.entries({ x1: position, x2: position, y1: top, y2: bottom })) {
      line.setAttribute(name, value);
    }
    tip.replaceChildren(`step ${digits(x)}`, ...near.map((one) => {
      const row = document.createElement("div");
      const dot = Object.assign(document.createElement("i"), { style: `background:${one.colour}` });
      row.append(dot, `${series.length > 1 ? one.name + " " : ""}${digits(one.point[1])}`);
      return row;
    }));
    line.style.display = tip.style.display = "block";
    const panel = chart.parentElement.getBoundingClientRect();
    const inside = event.clientX - panel.left;
    tip.style.left = `${inside + (inside > area.width / 2 ? -tip.offsetWidth - 14 : 14)}px`;
    tip.style.top = `${area.top - panel.top + 8}px`;
  });
  chart.addEventListener("pointerleave", () => { line.style.display = tip.style.display = "none"; });
}
