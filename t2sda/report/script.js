"use strict";
// Tables sort by the buttons in their heads: data-value where a cell has one, else its text.
const valueOf = (cell) => {
  const text = cell.dataset.value ?? cell.textContent.trim();
  return text === "" || Number.isNaN(Number(text)) ? text : Number(text);
};
const compare = (a, b) => (typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b)));
const sortTable = (button) => {
  const head = button.closest("th");
  const body = button.closest("table").tBodies[0];
  const down = head.getAttribute("aria-sort") === "ascending" || (!head.hasAttribute("aria-sort") && head.cellIndex > 0);
  for (const other of head.parentNode.cells) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", down ? "descending" : "ascending");
  const rows = [...body.rows].map((row) => [valueOf(row.cells[head.cellIndex]), row]);
  rows.sort(([a], [b]) => {
    if (a === "" || b === "") return (a === "") - (b === ""); // what is nowhere comes last
    return down ? compare(b, a) : compare(a, b);
  });
  for (const [, row] of rows) body.append(row);
};
for (const button of document.querySelectorAll("th button")) button.addEventListener("click", () => sortTable(button));

const gallery = document.getElementById("gallery-data");
if (gallery) startGallery(JSON.parse(gallery.textContent));

function startGallery({ runs, images, columns }) {
  const byId = (name) => document.getElementById(name);
  const [stage, slider, left, right, over] = ["stage", "slider", "left", "right", "over"].map(byId);
  const percent = (share) => `${(100 * share).toFixed(1)} %`;
  let current = images[0];

  const layersOf = (image) => [
    { key: "image", title: "image", uri: image.image },
    { key: "truth", title: "truth", uri: image.truth, labels: true },
    ...runs.filter((run) => image.predictions[run]).flatMap((run) => [
      { key: `run ${run}`, title: run, uri: image.predictions[run], labels: true, run },
      { key: `mistakes ${run}`, title: `${run}: mistakes`, uri: image.mistakes[run], labels: true, run },
    ]),
  ];
  const chosen = (select) => layersOf(current).find((layer) => layer.key === select.value) ?? layersOf(current)[0];

  const showLayer = (side, layer) => {
    const img = byId(`layer-${side}`);
    img.src = layer.uri;
    img.alt = `${layer.title} of ${current.name}`;
    img.classList.toggle("labels", Boolean(layer.labels));
    byId(`tag-${side}`).textContent = layer.run && layer.key.startsWith("run ")
      ? `${layer.title} · ${percent(current.scores[layer.run])}` : layer.title;
  };

  const pixelsOf = async (uri) => {
    const img = new Image();
    img.src = uri;
    await img.decode();
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [img.naturalWidth, img.naturalHeight];
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.drawImage(img, 0, 0);
    return context.getImageData(0, 0, canvas.width, canvas.height);
  };
  // The alpha of a map of mistakes: 0 right, 255 wrong, between them unlabelled.
  const showDifference = async (a, b) => {
    const box = byId("difference-box");
    box.hidden = !(a.run && b.run && a.run !== b.run);
    if (box.hidden) return;
    const asked = current;
    const [first, second] = await Promise.all([a, b].map((layer) => pixelsOf(asked.mistakes[layer.run])));
    if (asked !== current) return;
    const style = getComputedStyle(box);
    const color = (name) => style.getPropertyValue(name).trim().match(/\w\w/g).map((hex) => parseInt(hex, 16));
    const [both, none, onlyA, onlyB, unlabelled] = ["--both", "--none", "--only-a", "--only-b", "--unlabelled"].map(color);
    const canvas = byId("difference");
    [canvas.width, canvas.height] = [first.width, first.height];
    const counts = [0, 0, 0];
    for (let at = 0; at < first.data.length; at += 4) {
      const [one, two] = [first.data[at + 3], second.data[at + 3]];
      let shade = unlabelled;
      if (one % 255 === 0 && two % 255 === 0) {
        counts[2] += 1;
        if (one === two) shade = one ? none : both;
        else if (one) { shade = onlyB; counts[1] += 1; }
        else { shade = onlyA; counts[0] += 1; }
      }
      first.data.set([...shade, 255], at);
    }
    canvas.getContext("2d").putImageData(first, 0, 0);
    const text = `only ${a.run} correct: ${percent(counts[0] / counts[2])} of the pixels, only ${b.run} correct: ${percent(counts[1] / counts[2])}`;
    canvas.setAttribute("aria-label", text);
    byId("difference-text").textContent = text;
  };

  const refresh = () => {
    const [a, b] = [chosen(left), chosen(right)];
    byId("ground").src = current.image;
    byId("ground").alt = `image ${current.name}`;
    stage.classList.toggle("over", over.checked);
    showLayer("a", a);
    showLayer("b", b);
    byId("side-image").src = current.image;
    byId("side-truth").src = current.truth;
    byId("caption").textContent = `${current.name} of ${current.dataset}: ${current.reason}`;
    byId("image-scores").replaceChildren(...runs.filter((run) => run in current.scores).map((run) => {
      const item = document.createElement("li");
      item.textContent = `${run} ${percent(current.scores[run])}`;
      return item;
    }));
    showDifference(a, b);
  };
  const fill = (select, wanted) => {
    const old = select.value || wanted;
    select.replaceChildren(...layersOf(current).map((layer) => new Option(layer.title, layer.key)));
    select.value = old;
    if (!select.value) select.selectedIndex = 0;
  };
  const show = (image) => {
    current = image;
    const labelled = columns.filter((run) => image.predictions[run]);
    const second = labelled.length > 1 ? labelled[labelled.length - 1] : null;
    fill(left, second ? `run ${labelled[0]}` : "truth");
    fill(right, second ? `run ${second}` : labelled.length ? `run ${labelled[0]}` : "truth");
    for (const button of document.querySelectorAll(".thumbs button")) {
      button.setAttribute("aria-pressed", String(images[button.dataset.index] === image));
    }
    refresh();
  };

  const slide = () => {
    stage.style.setProperty("--at", `${slider.value}%`);
    slider.setAttribute("aria-valuetext", `${slider.value} % left, the rest right`);
  };
  const drag = (event) => {
    if (event.type === "pointermove" && !event.buttons) return;
    const box = stage.getBoundingClientRect();
    slider.value = Math.round((100 * (event.clientX - box.left)) / box.width);
    slide();
  };
  slider.addEventListener("input", slide);
  stage.addEventListener("pointerdown", drag);
  stage.addEventListener("pointermove", drag);
  for (const control of [left, right, over]) control.addEventListener("change", refresh);
  for (const button of document.querySelectorAll(".thumbs button")) {
    button.querySelector("img").src = images[button.dataset.index].image;
    button.addEventListener("click", () => show(images[button.dataset.index]));
  }
  const sheet = byId("sheet");
  byId("sheet-box").addEventListener("toggle", () => {
    if (sheet.childElementCount) return; // built when it is first looked at
    const cell = (title, uri) => {
      const figure = document.createElement("figure");
      const img = new Image();
      [img.src, img.alt] = [uri, title];
      const caption = document.createElement("figcaption");
      caption.textContent = title;
      figure.append(img, caption);
      return figure;
    };
    for (const image of images) {
      const row = document.createElement("div");
      row.append(cell(`${image.name} (${image.reason})`, image.image), cell("truth", image.truth));
      for (const run of columns.filter((name) => image.predictions[name])) {
        row.append(cell(`${run}, ${percent(image.scores[run])}`, image.predictions[run]));
      }
      sheet.append(row);
    }
  });
  slide();
  show(current);
}
