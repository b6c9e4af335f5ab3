// The scrubber of a film: one frame shows at a time, and a head on the bar of times goes with it.
function showFrame(film, number) {
  const frames = film.querySelectorAll(".screen img");
  frames.forEach((frame, index) => { frame.hidden = index !== number; });
  film.querySelector("input").value = number;
  film.querySelector("output").textContent = Number(frames[number].dataset.time).toFixed(1) + " s";
  film.querySelector(".head")?.style.setProperty("left", frames[number].dataset.at + "%");
}

function stopFilm(film) {
  clearTimeout(film.timer);
  film.timer = undefined;
  film.querySelector(".play").textContent = "▶";
}

function playOn(film) {
  const frames = [...film.querySelectorAll(".screen img")];
  const number = Number(film.querySelector("input").value);
  if (!film.isConnected || number + 1 >= frames.length) return stopFilm(film);
  const wait = frames[number + 1].dataset.time - frames[number].dataset.time;
  film.timer = setTimeout(() => { showFrame(film, number + 1); playOn(film); }, 1000 * wait);
}

document.addEventListener("input", (event) => {
  const film = event.target.closest(".scrubbed");
  if (!film) return;
  stopFilm(film);
  showFrame(film, Number(event.target.value));
});

document.addEventListener("click", (event) => {
  const button = event.target.closest(".scrubbed .play");
  if (!button) return;
  const film = button.closest(".scrubbed");
  if (film.timer) return stopFilm(film);
  const range = film.querySelector("input");
  if (range.value === range.max) showFrame(film, 0);
  button.textContent = "⏸";
  playOn(film);
});
