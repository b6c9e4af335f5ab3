// Filters the examples by benchmark, task, kind, verdict, length and text.
const examples = document.querySelector("#examples");
if (examples) {
  const cards = [...examples.children].map((card) => ({ card, text: card.textContent.toLowerCase() }));
  const value = (name) => document.querySelector(`#${name}`).value;
  const names = ["benchmark", "task", "kind", "verdict", "least", "most", "text"];
  const filter = () => {
    const [benchmark, task, kind, verdict, least, most, words] = names.map(value);
    const wanted = words.toLowerCase().trim();
    let shown = 0;
    for (const { card, text } of cards) {
      const { dataset } = card;
      const length = Number(dataset.length);
      const isOf = verdict.includes(" ") ? dataset.verdicts === verdict : dataset.verdicts.split(" ").includes(verdict);
      card.hidden = Boolean((benchmark && dataset.benchmark !== benchmark) || (task && dataset.task !== task) ||
        (kind && !dataset.kinds.split(" ").includes(kind)) || (verdict && !isOf) ||
        (least && length < Number(least)) || (most && length > Number(most)) || (wanted && !text.includes(wanted)));
      shown += !card.hidden;
    }
    document.querySelector("#shown").textContent = shown.toLocaleString("en");
  };
  for (const name of names) document.querySelector(`#${name}`).addEventListener("input", filter);
  filter();  // a browser may keep what was chosen before
}
