// Draws the charts in the colours of the page, wide or narrow, light or dark, and again when either changes.
(() => {
  const NARROW_MAX = 560;
  const specs = JSON.parse(document.getElementById("charts").textContent);

  function paint(value, style) {
    if (Array.isArray(value)) return value.map((each) => paint(each, style));
    if (value && typeof value === "object") {
      return Object.fromEntries(Object.entries(value).map(([key, each]) => [key, paint(each, style)]));
    }
    if (typeof value !== "string" || !value.includes("$")) return value;
    return value.replace(/\$([a-z][a-z0-9-]*)(?:@([0-9.]+))?/g, (_, name, opacity) => {
      const color = style.getPropertyValue("--" + name).trim();
      if (!opacity) return color;
      const parts = [1, 3, 5].map((at) => parseInt(color.slice(at, at + 2), 16));
      return `rgba(${parts.join(",")},${opacity})`;
    });
  }

  function draw(place) {
    const width = place.clientWidth;
    if (!width) return;
    const spec = specs[place.dataset.chart][width < NARROW_MAX ? "narrow" : "wide"];
    const { data, layout } = paint(spec, getComputedStyle(document.documentElement));
    Plotly.react(place, data, { ...layout, width }, { displayModeBar: false });
  }

  const places = document.querySelectorAll("[data-chart]");
  const seen = new ResizeObserver((entries) => entries.forEach(({ target }) => draw(target)));
  places.forEach((place) => seen.observe(place));
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  dark.addEventListener("change", () => places.forEach(draw));
})();
