// The page: an image or the camera in, the classes of every pixel over it, before and after.

const MOST_PIXELS = 4096 * 4096; // what phones give a canvas
const SHOWN_SIDE = 1600;
const CAMERA_LEGEND_MS = 700;
const NOT_SHOWN = 0.0005;

const byId = (id) => document.getElementById(id);
const stage = byId("stage");
const photo = byId("photo");
const layers = [byId("before"), byId("after")];
const status = byId("status");
const legend = byId("legend").tBodies[0];
const split = byId("split");
const cameraButton = byId("camera");

const state = { site: null, result: null, chosen: null, kept: null, stream: null, busy: false };

// --- the worker ------------------------------------------------------------------------------

const worker = new Worker("worker.js", { type: "module" });
let waiting = null;
worker.onmessage = ({ data }) => {
  const { resolve, reject } = waiting;
  waiting = null;
  if (data.error) reject(new Error(data.error));
  else resolve(data.answer);
};
worker.onerror = (event) => waiting?.reject(new Error(event.message || "the worker did not start"));

let last = Promise.resolve();

/** One after another: an image that comes early waits until the networks are loaded. */
function ask(message, transfer = []) {
  const answer = last.then(() => new Promise((resolve, reject) => {
    waiting = { resolve, reject };
    worker.postMessage(message, transfer);
  }));
  last = answer.catch(() => {});
  return answer;
}

// --- what is seen ----------------------------------------------------------------------------

const two = () => state.site.models.length === 2;
const names = () => (two() ? ["source only", "adapted"] : ["photograph", "segmented"]);

function say(text, bad = false) {
  status.textContent = text;
  status.classList.toggle("is-bad", bad);
}

function show(source, width, height) {
  const scale = Math.min(1, SHOWN_SIDE / Math.max(width, height));
  photo.width = Math.max(Math.round(width * scale), 1);
  photo.height = Math.max(Math.round(height * scale), 1);
  photo.getContext("2d").drawImage(source, 0, 0, photo.width, photo.height);
  const ratio = width / height;
  stage.style.aspectRatio = `${width} / ${height}`;
  stage.style.maxWidth = `calc(62vh * ${ratio})`;
  stage.classList.remove("is-empty");
}

function paint() {
  const { result, site } = state;
  if (!result) return;
  const only = state.chosen ?? state.kept;
  layers.forEach((layer, index) => {
    const labels = labelsOf(index);
    layer.hidden = !labels;
    if (!labels) return;
    const [height, width] = result.inner;
    layer.width = width;
    layer.height = height;
    const image = new ImageData(width, height);
    for (let y = 0, target = 0; y < height; y += 1) {
      for (let x = 0; x < width; x += 1, target += 4) {
        const label = labels[y * site.size[1] + x];
        const found = site.classes[label];
        if (!found) continue;
        image.data.set(found.color, target);
        image.data[target + 3] = only === null || only === label ? 255 : 40;
      }
    }
    layer.getContext("2d").putImageData(image, 0, 0);
  });
}

/** Labels at the left (0) or right (1) of the divider; null: the photograph alone. */
function labelsOf(index) {
  const { found } = state.result;
  if (two()) return found[1 - index].labels;
  return index === 1 ? found[0].labels : null;
}

function shares(labels) {
  const counts = new Float64Array(state.site.classes.length);
  const [height, width] = state.result.inner;
  for (let y = 0; y < height; y += 1) {
    for (let x = 0; x < width; x += 1) counts[labels[y * state.site.size[1] + x]] += 1;
  }
  return counts.map((count) => count / (height * width));
}

const percent = (share) => (share >= NOT_SHOWN ? `${(100 * share).toFixed(1)} %` : "–");

function writeLegend() {
  const columns = [0, 1].map((index) => labelsOf(index) && shares(labelsOf(index)));
  const order = state.site.classes
    .map((_, index) => index)
    .filter((index) => columns.some((own) => own && own[index] >= NOT_SHOWN))
    .sort((a, b) => columns[1][b] - columns[1][a]);
  const focused = document.activeElement?.dataset?.label;
  legend.replaceChildren(...order.map((index) => legendRow(index, columns)));
  if (focused) legend.querySelector(`[data-label="${focused}"]`)?.focus();
  const told = order.slice(0, 5).map((index) => `${state.site.classes[index].name} ${percent(columns[1][index])}`);
  photo.setAttribute("aria-label", `${names()[1]}: ${told.join(", ")}`);
}

function legendRow(index, columns) {
  const { name, color } = state.site.classes[index];
  const row = document.createElement("tr");
  const head = document.createElement("th");
  head.scope = "row";
  const button = document.createElement("button");
  button.type = "button";
  button.className = "name";
  button.dataset.label = index;
  button.setAttribute("aria-pressed", String(state.kept === index));
  const swatch = document.createElement("span");
  swatch.className = "swatch";
  swatch.style.background = `rgb(${color})`;
  button.append(swatch, name);
  head.append(button);
  row.append(head);
  columns.forEach((own) => {
    if (!own) return;
    const cell = document.createElement("td");
    cell.textContent = percent(own[index]);
    row.append(cell);
  });
  const choose = (label) => () => {
    state.chosen = label;
    paint();
  };
  row.addEventListener("pointerenter", choose(index));
  row.addEventListener("pointerleave", choose(null));
  button.addEventListener("focus", () => button.matches(":focus-visible") && choose(index)());
  button.addEventListener("blur", choose(null));
  button.addEventListener("click", () => {
    state.kept = state.kept === index ? null : index;
    legend.querySelectorAll(".name").forEach((other) => {
      other.setAttribute("aria-pressed", String(Number(other.dataset.label) === state.kept));
    });
    paint();
  });
  return row;
}

// --- the work --------------------------------------------------------------------------------

const reader = document.createElement("canvas");

function pixelsOf(source, width, height) {
  const scale = Math.min(1, Math.sqrt(MOST_PIXELS / (width * height)));
  reader.width = Math.max(Math.round(width * scale), 1);
  reader.height = Math.max(Math.round(height * scale), 1);
  const context = reader.getContext("2d", { willReadFrequently: true });
  context.drawImage(source, 0, 0, reader.width, reader.height);
  return context.getImageData(0, 0, reader.width, reader.height).data;
}

async function segment(source, width, height) {
  const rgba = pixelsOf(source, width, height);
  const size = [reader.height, reader.width];
  state.result = await ask({ rgba, size }, [rgba.buffer]);
  return state.result.found.map(({ ms }) => ms);
}

async function segmentImage(blob, name) {
  stopCamera();
  if (state.busy) return;
  state.busy = true;
  markExample(name);
  try {
    const image = await createImageBitmap(blob, { colorSpaceConversion: "none" }).catch(() => {
      throw new Error(`${name}: this browser cannot show it; choose a JPEG, PNG or WebP image`);
    });
    say(`Working on ${name}…`);
    layers.forEach((layer) => { layer.hidden = true; });
    show(image, image.width, image.height);
    const times = await segment(image, image.width, image.height);
    paint();
    writeLegend();
    say(`${name}: ${times.map((ms) => `${ms.toFixed(0)} ms`).join(" and ")} on this device`);
  } catch (error) {
    say(error.message, true);
  } finally {
    state.busy = false;
  }
}

// --- the camera ------------------------------------------------------------------------------

async function startCamera() {
  const wanted = { video: { facingMode: "environment", width: { ideal: 1280 } }, audio: false };
  const video = document.createElement("video");
  video.muted = true;
  video.playsInline = true;
  try {
    state.stream = await navigator.mediaDevices.getUserMedia(wanted);
    video.srcObject = state.stream;
    await video.play();
  } catch (error) {
    stopCamera();
    say(`The camera cannot be used (${error.message || error.name})`, true);
    return;
  }
  cameraButton.setAttribute("aria-pressed", "true");
  cameraButton.textContent = "Stop the camera";
  markExample(null);
  say("The camera is on; its frames stay on this device");
  await segmentFrames(video, state.stream);
}

async function segmentFrames(video, stream) {
  let written = 0;
  while (state.stream === stream) {
    if (state.busy || document.hidden || !video.videoWidth) {
      await new Promise((resolve) => { setTimeout(resolve, 100); });
      continue;
    }
    state.busy = true;
    try {
      const frame = await createImageBitmap(video);
      const times = await segment(frame, frame.width, frame.height);
      if (state.stream !== stream) return;
      show(frame, frame.width, frame.height);
      frame.close();
      paint();
      if (performance.now() - written > CAMERA_LEGEND_MS) {
        writeLegend();
        written = performance.now();
        const ms = times.reduce((sum, one) => sum + one, 0);
        byId("facts").dataset.frame = ms.toFixed(1);
        status.setAttribute("aria-live", "off"); // not every frame
        say(`Camera: ${ms.toFixed(0)} ms a frame on this device`);
      }
    } catch (error) {
      stopCamera();
      say(error.message, true);
    } finally {
      state.busy = false;
    }
  }
}

function stopCamera() {
  state.stream?.getTracks().forEach((track) => track.stop());
  state.stream = null;
  status.removeAttribute("aria-live");
  cameraButton.setAttribute("aria-pressed", "false");
  cameraButton.textContent = "Use the camera";
}

// --- what moves ------------------------------------------------------------------------------

function moveDivider(share) {
  const value = Math.round(Math.min(Math.max(share, 0), 100));
  split.value = String(value);
  split.setAttribute("aria-valuetext", `${value} % ${names()[0]}, ${100 - value} % ${names()[1]}`);
  stage.style.setProperty("--split", `${value}%`);
}

function placeIn(event) {
  const box = stage.getBoundingClientRect();
  return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
}

function pointAt(event) {
  const tip = byId("tip");
  legend.querySelector(".is-here")?.classList.remove("is-here");
  if (!state.result || event.type === "pointerleave") {
    tip.hidden = true;
    return;
  }
  const [x, y] = placeIn(event);
  const side = 100 * x < Number(split.value) ? 0 : 1;
  const labels = labelsOf(side);
  const [height, width] = state.result.inner;
  const row = Math.min(Math.max(Math.floor(y * height), 0), height - 1);
  const column = Math.min(Math.max(Math.floor(x * width), 0), width - 1);
  const label = labels && labels[row * state.site.size[1] + column];
  const found = labels && state.site.classes[label];
  tip.hidden = !found;
  if (!found) return;
  const swatch = document.createElement("span");
  swatch.className = "swatch";
  swatch.style.background = `rgb(${found.color})`;
  tip.replaceChildren(swatch, found.name);
  tip.style.left = `${Math.min(Math.max(100 * x, 12), 88)}%`;
  tip.style.top = `${Math.max(100 * y, 14)}%`;
  legend.querySelector(`[data-label="${label}"]`)?.closest("tr").classList.add("is-here");
}

function listen() {
  split.addEventListener("input", () => moveDivider(Number(split.value)));
  byId("strength").addEventListener("input", (event) => {
    stage.style.setProperty("--strength", event.target.value / 100);
  });
  stage.addEventListener("pointerdown", (event) => {
    if (!state.result) return;
    stage.setPointerCapture(event.pointerId);
    moveDivider(100 * placeIn(event)[0]);
  });
  stage.addEventListener("pointermove", (event) => {
    if (event.buttons) moveDivider(100 * placeIn(event)[0]);
    pointAt(event);
  });
  stage.addEventListener("pointerup", pointAt);
  stage.addEventListener("pointerleave", pointAt);
  byId("file").addEventListener("change", (event) => {
    const [file] = event.target.files;
    if (file) segmentImage(file, file.name);
    event.target.value = "";
  });
  document.addEventListener("paste", (event) => take(event.clipboardData));
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    stage.classList.add("is-over");
  });
  document.addEventListener("dragleave", () => stage.classList.remove("is-over"));
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    stage.classList.remove("is-over");
    take(event.dataTransfer);
  });
  cameraButton.addEventListener("click", () => (state.stream ? stopCamera() : startCamera()));
}

function take(given) {
  const file = [...(given?.files ?? [])].find(({ type }) => type.startsWith("image/"));
  if (file) segmentImage(file, file.name);
}

// --- the beginning ---------------------------------------------------------------------------

async function segmentExample({ file, name }) {
  await segmentImage(await (await fetch(file)).blob(), name);
}

function markExample(name) {
  byId("examples").querySelectorAll("button").forEach((button) => {
    button.setAttribute("aria-pressed", String(button.dataset.name === name));
  });
}

function addExamples() {
  byId("examples").append(...state.site.examples.map((example) => {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "example";
    button.dataset.name = example.name;
    button.setAttribute("aria-pressed", "false");
    const image = document.createElement("img");
    image.src = example.file;
    image.alt = `Example: ${example.name}`;
    button.append(image);
    button.addEventListener("click", () => segmentExample(example));
    return button;
  }));
}

function describe() {
  const { site } = state;
  const [left, right] = names();
  byId("name-before").textContent = left;
  byId("name-after").textContent = right;
  byId("split-name").textContent = `${left} ↔ ${right}`;
  byId("head-after").textContent = two() ? right : "share";
  if (two()) byId("head-before").textContent = left;
  else byId("head-before").remove();
  const origins = site.models.map(({ origin }) => origin.run && `${origin.run}, iteration ${origin.iteration}`);
  byId("facts").textContent = [
    `${site.classes.length} classes of ${site.taxonomy}`,
    `the network sees ${site.size.join(" × ")} pixels`,
    `weights: ${origins.filter(Boolean).join("; ") || "of unknown origin"}`,
    `${site.runtime} (WebAssembly)`,
  ].join(" · ");
}

async function begin() {
  stage.classList.add("is-empty");
  state.site = await (await fetch("site.json")).json();
  describe();
  addExamples();
  listen();
  moveDivider(50);
  if (!navigator.mediaDevices?.getUserMedia) {
    cameraButton.disabled = true;
    cameraButton.title = "Browsers give the camera to pages of https:// and localhost alone";
  }
  const megabytes = state.site.models.reduce((sum, model) => sum + model.bytes, 0) / 1e6;
  say(`Loading the network, ${(megabytes + 14).toFixed(0)} MB…`);
  await ask({ site: state.site });
  const isWorking = state.busy || state.stream; // a visitor was faster
  if (!isWorking) say("Ready");
  if (!isWorking && state.site.examples.length) await segmentExample(state.site.examples[0]);
  document.body.dataset.ready = "";
}

begin().catch((error) => say(`The network cannot run here: ${error.message}`, true));
window.t2sda = state; // to look at from the console
