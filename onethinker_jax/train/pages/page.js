// Filters and sorts the gallery; shows the values under the pointer on the charts; shows and hides curves.
const gallery = document.querySelector("#gallery");
if (gallery) {
  const cards = [...gallery.children];
  const [task, order] = ["task", "order"].map((name) => document.querySelector(`#${name}`));
  const arrange = () => {
    const key = order.value.replace("-", "");
    const sign = order.value.startsWith("-") ? -1 : 1;
    gallery.append(...(key ? [...cards].sort((a, b) => sign * (a.dataset[key] - b.dataset[key])) : cards));
    for (const card of cards) card.hidden = Boolean(task.value && card.dataset.task !== task.value);
    document.querySelector("#shown").textContent = cards.filter((card) => !card.hidden).length;
  };
  for (const control of [task, order]) control.addEventListener("change", arrange);
  arrange();
}

const digits = (value) => Number(value.toPrecision(4)).toLocaleString("en");
for (const chart of document.querySelectorAll(".chart")) {
  const { box: [left, top, right, bottom], x: [low, high], series } = JSON.parse(chart.dataset.chart);
  const panel = chart.closest(".panel");
  const tip = panel.appendChild(Object.assign(document.createElement("div"), { className: "tip" }));
  const line = chart.appendChild(document.createElementNS("http://www.w3.org/2000/svg", "line"));
  line.setAttribute("class", "cursor");
  chart.addEventListener("pointermove", (event) => {
    const area = chart.getBoundingClientRect();
    const at = ((event.clientX - area.left) / area.width) * chart.viewBox.baseVal.width;
    const step = low + ((at - left) / (right - left)) * (high - low);
    const seen = series.filter((_, number) => !chart.querySelector(`g[data-series="${number}"]`)?.hasAttribute("hidden"));
    if (!seen.length) return;
    const near = seen.map((one) => ({ ...one, point: one.points.reduce(
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
    const around = panel.getBoundingClientRect();
    const inside = event.clientX - around.left;
    tip.style.left = `${inside + (inside > area.width / 2 ? -tip.offsetWidth - 14 : 14)}px`;
    tip.style.top = `${area.top - around.top + 8}px`;
  });
  for (const button of chart.parentElement.querySelectorAll(".legend button")) {
    button.addEventListener("click", () => {
      const shown = button.getAttribute("aria-pressed") !== "true";
      button.setAttribute("aria-pressed", String(shown));
      chart.querySelector(`g[data-series="${button.dataset.series}"]`).toggleAttribute("hidden", !shown);
    });
  }
  chart.addEventListener("pointerleave", () => { line.style.display = tip.style.display = "none"; });
}
