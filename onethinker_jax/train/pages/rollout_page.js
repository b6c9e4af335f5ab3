// Filters and sorts the prompts; shows over the pictures what the open sample says.
const prompts = document.querySelector("main");
const cards = [...prompts.children];
const control = (name) => document.querySelector(`#${name}`);
const arrangePrompts = () => {
  const key = control("order").value.replace("-", "");
  const sign = control("order").value.startsWith("-") ? -1 : 1;
  prompts.append(...(key ? [...cards].sort((a, b) => sign * (a.dataset[key] - b.dataset[key])) : cards));
  const [least, most] = [control("least").value || -Infinity, control("most").value || Infinity].map(Number);
  for (const card of cards) {
    const reward = Number(card.dataset.reward);
    const task = control("task").value;
    card.hidden = (task && card.dataset.task !== task) || reward < least || reward > most;
  }
  control("shown").textContent = cards.filter((card) => !card.hidden).length;
};
for (const name of ["task", "order", "least", "most"]) control(name).addEventListener("input", arrangePrompts);
arrangePrompts();
for (const card of cards) {
  for (const sample of card.querySelectorAll(".sample")) {
    sample.addEventListener("toggle", () => {
      if (!sample.open) return;
      for (const other of card.querySelectorAll(".sample")) other.open = other === sample;
      for (const annotations of card.querySelectorAll(".of-sample")) {
        annotations.hidden = annotations.dataset.sample !== sample.dataset.sample;
      }
    });
  }
}
