"use strict";
// Narrows the page to the calls that have all the words; without this, the form asks the server.
const box = document.getElementById("q");
const calls = [...document.querySelectorAll("[data-words]")];
const groups = [...document.querySelectorAll("[data-group]")];
const none = document.getElementById("none");
const intro = document.getElementById("intro");

function narrow() {
  const words = box.value.toLowerCase().split(/\s+/).filter(Boolean);
  for (const call of calls) {
    call.hidden = !words.every((word) => call.dataset.words.includes(word));
  }
  for (const group of groups) {
    group.hidden = !group.querySelector("[data-words]:not([hidden])");
  }
  if (intro) intro.hidden = words.length > 0;
  none.hidden = groups.some((group) => !group.hidden);
}

box.addEventListener("input", narrow);
box.form.addEventListener("submit", (event) => {
  event.preventDefault();
  narrow();
});
document.addEventListener("keydown", (event) => {
  if (event.key === "/" && document.activeElement !== box) {
    event.preventDefault();
    box.focus();
  }
});

for (const button of document.querySelectorAll(".copy")) {
  if (!navigator.clipboard) continue; // Not over plain HTTP from afar: the text can be selected.
  button.hidden = false;
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(button.closest(".right").querySelector("pre").textContent);
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  });
}

const index = document.getElementById("index");
if (index && window.matchMedia("(max-width: 56rem)").matches) index.open = false;
if (index) index.addEventListener("click", (event) => {
  if (event.target.closest("a") && window.matchMedia("(max-width: 56rem)").matches) index.open = false;
});
if (box.value) narrow();
