"use strict";
// Filters the completions. Without JavaScript all of them are shown.
(() => {
  const form = document.getElementById("filter");
  if (form) {
    const AT_ONCE = 24;
    const cards = [...document.querySelectorAll(".completion")];
    const texts = cards.map((card) => card.textContent.toLowerCase());
    const more = document.getElementById("more");
    let limit = AT_ONCE;

    function show() {
      const asked = new FormData(form);
      const search = (asked.get("search") || "").toLowerCase();
      let found = 0;
      cards.forEach((card, i) => {
        const fits =
          ["run", "step", "outcome"].every((name) => !asked.get(name) || card.dataset[name] === asked.get(name)) &&
          texts[i].includes(search);
        card.hidden = !fits || found >= limit;
        found += fits;
      });
      more.hidden = found <= limit;
      form.querySelector("output").textContent = `${Math.min(found, limit)} of ${found} shown`;
    }

    function colour() {
      const by = new FormData(form).get("by");
      if (!by) return;
      document.querySelectorAll("#cards .tokens").forEach((one) => (one.className = `tokens by-${by}`));
      document.querySelectorAll("#completions > [class^=of-]").forEach((one) => {
        one.hidden = one.className !== `of-${by}`;
      });
    }

    form.addEventListener("input", () => {
      limit = AT_ONCE;
      show();
      colour();
    });
    form.addEventListener("submit", (event) => event.preventDefault());
    more.addEventListener("click", () => {
      limit += 4 * AT_ONCE;
      show();
    });
    show();
    colour(); // a reloaded page keeps its form
  }

  // Paper is narrower than the window: plots are drawn again at its width.
  const resize = () =>
    document.querySelectorAll(".js-plotly-plot").forEach((plot) => Plotly.Plots.resize(plot));
  window.addEventListener("beforeprint", resize);
  window.addEventListener("afterprint", resize);
})();
