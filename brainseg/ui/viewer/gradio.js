// @ts-check
// The face in Gradio: functions that bring the elements of its gr.HTML components to life.
//
// An element's value names the tab's key and what there is to fetch. Arrays and files come as raw bytes from
// addresses with that key in them, which no other tab knows; uploads go to such an address.
import { saveAs } from "./dom.js";
import { hold } from "./packs.js";
import { Viewer } from "./viewer.js";
import { parse } from "./wire.js";

/**
 * What a component hands over.
 * @typedef {object} Component
 * @property {HTMLElement} element
 * @property {{ value: Told | "" | null }} props
 * @property {(names: string, changed: () => void) => void} watch calls back when Python changes the value
 * @property {(event: string, data?: object) => void} trigger
 * @property {string[]} events that this element may trigger
 */
/**
 * What Python says.
 * @typedef {object} Told
 * @property {string} key
 * @property {string[]} packs ids of what the viewer draws from
 * @property {string[]} offers names of the downloads that the patient's files allow
 * @property {boolean} shown whether a patient is
 */

const LOST = "The connection to the server is lost, or this page's session has ended: reload the page.";

/** @type {Viewer | null} the one on the page */
let current = null;

/** @type {EventSource | null} says that this tab is there, for as long as it is */
let here = null;

/** @param {string} key */
function stay(key) {
  const { href } = new URL(address(key, "here"));
  if (here?.url === href) return;
  here?.close();
  here = new EventSource(href);
  here.addEventListener("error", () => {
    // It comes back by itself unless the server answers that there is no such session.
    if (here?.readyState === EventSource.CLOSED && current?.ready) current.part("said").textContent = LOST;
  });
}

/** The slice viewer. @param {Component} component */
export function viewer({ element, props, watch }) {
  const root = /** @type {HTMLElement} */ (element.querySelector(".viewer"));
  root.hidden = true;
  /** @type {Map<string, () => void>} what is held, by id -> gives it up */
  const held = new Map();
  let key = "";
  let turn = 0;
  current?.close();
  const shown = new Viewer(root, (gates) => gates.forEach(fetchPack));
  current = shown;

  /** @param {string} id */
  async function fetchPack(id) {
    if (held.has(id)) return;
    held.set(id, () => {});
    const bytes = await get(key, "pack", { id }).catch(() => null);
    if (!bytes) return void held.delete(id);
    if (held.has(id)) held.set(id, hold(parse(bytes), shown));
  }

  async function receive() {
    const told = props.value;
    if (!told) return;
    const mine = ++turn;
    key = told.key;
    stay(key);
    for (const [id, release] of held) {
      if (told.packs.some((owner) => id === owner || id.startsWith(`${owner}/`))) continue;
      held.delete(id);
      release();
    }
    root.hidden = !told.shown;
    if (!told.shown) return;
    told.packs.forEach(fetchPack);
    const bytes = await get(key, "view").catch(() => null);
    if (mine !== turn) return; // a newer one is on its way
    if (bytes) await shown.receive(parse(bytes));
    else shown.part("said").textContent = LOST;
  }

  watch("value", receive);
  receive();
}

/** Buttons inside HTML that Python writes: each names its event and a number. @param {Component} component */
export function buttons({ element, trigger, events }) {
  element.addEventListener("click", ({ target }) => {
    const button = /** @type {Element} */ (target).closest("button");
    const { event = "", number } = button?.dataset ?? {};
    if (events.includes(event)) trigger(event, { number: Number(number) });
  });
}

/** Buttons that save a file each; those that the patient's files allow. @param {Component} component */
export function downloads({ element, props, watch }) {
  const wrong = /** @type {HTMLElement} */ (element.querySelector(".error"));
  function offer() {
    const { offers = [] } = props.value || {};
    element
      .querySelectorAll("button")
      .forEach((button) => (button.hidden = !offers.includes(button.dataset.name ?? "")));
  }
  watch("value", offer);
  offer();
  for (const button of element.querySelectorAll("button")) {
    const title = button.textContent;
    button.addEventListener("click", async () => {
      if (!props.value) return;
      button.disabled = true;
      button.textContent = "Preparing …";
      wrong.hidden = true;
      try {
        const answer = await ask(props.value.key, "download", { name: button.dataset.name ?? "" });
        saveAs(await answer.blob(), nameIn(answer));
      } catch (error) {
        wrong.hidden = false;
        wrong.textContent = /** @type {Error} */ (error).message;
      }
      button.disabled = false;
      button.textContent = title;
    });
  }
}

/** A place to drop or choose a folder, a zip or files. @param {Component} component */
export function dropzone({ element, props, watch, trigger, events }) {
  const zone = /** @type {HTMLElement} */ (element.querySelector(".drop"));
  const doing = /** @type {HTMLElement} */ (element.querySelector(".doing"));
  const wrong = /** @type {HTMLElement} */ (element.querySelector(".error"));
  const choose = /** @type {HTMLElement} */ (element.querySelector(".choose"));

  // The buttons wait for the tab's key, without which there is nowhere to send anything.
  function open() {
    if (!props.value) return;
    element.querySelectorAll("button").forEach((button) => (button.disabled = false));
    zone.dataset.ready = "true";
  }
  watch("value", open);
  open();

  /** @param {Named[]} files */
  async function send(files) {
    if (!files.length) return;
    if (!props.value) {
      wrong.textContent = LOST;
      wrong.hidden = false;
      return;
    }
    doing.hidden = false;
    choose.hidden = true;
    wrong.hidden = true;
    try {
      await post(address(props.value.key, "files"), framed(files), (done) => {
        doing.textContent = done < 1 ? `Sending ${Math.floor(done * 100)} % …` : "Reading the files …";
      });
    } catch (error) {
      wrong.textContent = /** @type {Error} */ (error).message;
      wrong.hidden = false;
    }
    choose.hidden = false;
    doing.hidden = true;
    trigger(events[0]);
  }

  for (const kind of ["folder", "files"]) {
    const input = /** @type {HTMLInputElement} */ (element.querySelector(`input.${kind}`));
    element.querySelector(`button.${kind}`)?.addEventListener("click", () => input.click());
    input.addEventListener("change", () => {
      const chosen = [...(input.files ?? [])];
      input.value = "";
      send(chosen.map((file) => ({ name: file.webkitRelativePath || file.name, file })));
    });
  }
  for (const event of ["dragover", "dragleave"]) {
    zone.addEventListener(event, (drag) => {
      drag.preventDefault();
      zone.classList.toggle("over", event === "dragover");
    });
  }
  zone.addEventListener("drop", async (drag) => {
    drag.preventDefault();
    zone.classList.remove("over");
    // Asked for at once: after the first wait the browser has forgotten what was dropped.
    const entries = [...(drag.dataTransfer?.items ?? [])].map((item) => item.webkitGetAsEntry());
    send((await Promise.all(entries.map((entry) => (entry ? inside(entry) : [])))).flat());
  });
}

/** The table of a patient's series: any change in it is one event. @param {Component} component */
export function sequences({ element, watch, trigger, events }) {
  // Gradio changes what differs in the HTML, and what was chosen in vain stands in none.
  function settle() {
    for (const option of element.querySelectorAll("option")) option.selected = option.defaultSelected;
    for (const box of element.querySelectorAll("input")) box.checked = box.defaultChecked;
  }
  watch("value", () => requestAnimationFrame(() => requestAnimationFrame(settle)));
  element.addEventListener("change", ({ target }) => {
    const changed = /** @type {HTMLElement} */ (target);
    const table = /** @type {HTMLFieldSetElement | null} */ (changed.closest("fieldset.sequences"));
    if (!table) return;
    const row = /** @type {HTMLElement | null} */ (changed.closest(".series"));
    const boxes = [.../** @type {NodeListOf<HTMLInputElement>} */ (row?.querySelectorAll("input") ?? [])];
    const register = /** @type {HTMLInputElement | null} */ (table.querySelector("input[name=register]"));
    const number = Number(table.dataset.number);
    // The answer draws the table anew.
    table.disabled = true;
    table.querySelector(".doing")?.removeAttribute("hidden");
    trigger(events[0], {
      number,
      series: row?.dataset.series ?? null,
      role: row?.querySelector("select")?.value ?? null,
      labels: boxes.length ? boxes.filter((box) => box.checked).map((box) => Number(box.value)) : null,
      register: register?.checked ?? false,
    });
  });
}

/** Go to the slice of a point that is clicked in the chart of areas. */
document.addEventListener("pointerover", ({ target }) => {
  const chart = /** @type {Chart | null} */ (
    target instanceof Element ? target.closest("#areas .js-plotly-plot") : null
  );
  if (!chart?.on) return;
  chart.removeAllListeners("plotly_click");
  chart.on("plotly_click", ({ points }) => current?.go(points[0].x - 1));
});

/** @typedef {{ name: string, file: File }} Named a file and its path inside what was chosen */
/**
 * @typedef {Element & {
 *   on?: (event: string, listener: (event: { points: { x: number }[] }) => void) => void,
 *   removeAllListeners: (event: string) => void,
 * }} Chart
 */

/** Every file of a folder. @param {FileSystemEntry} entry @returns {Promise<Named[]>} */
async function inside(entry) {
  const name = entry.fullPath.slice(1);
  if (entry.isFile) {
    const file = /** @type {FileSystemFileEntry} */ (entry);
    return [{ name, file: await new Promise((done, failed) => file.file(done, failed)) }];
  }
  const reader = /** @type {FileSystemDirectoryEntry} */ (entry).createReader();
  const found = [];
  for (;;) {
    // A reader gives a hundred at a time.
    /** @type {FileSystemEntry[]} */
    const some = await new Promise((done, failed) => reader.readEntries(done, failed));
    if (!some.length) return found;
    for (const one of some) found.push(...(await inside(one)));
  }
}

/**
 * Files as one body: the length of a list of names and sizes, the list, all bytes (see server.py).
 * @param {Named[]} files
 */
function framed(files) {
  const list = new TextEncoder().encode(JSON.stringify(files.map(({ name, file }) => [name, file.size])));
  const length = new Uint8Array(4);
  new DataView(length.buffer).setUint32(0, list.length, true);
  return new Blob([length, list, ...files.map(({ file }) => file)]);
}

/** @param {string} key @param {string} what @param {Record<string, string>} [query] */
function address(key, what, query) {
  const url = new URL(`brainseg/${key}/${what}`, document.baseURI);
  if (query) url.search = new URLSearchParams(query).toString();
  return url.href;
}

/** @param {string} key @param {string} what @param {Record<string, string>} [query] */
async function ask(key, what, query) {
  const answer = await fetch(address(key, what, query)).catch(() => null);
  if (answer?.ok) return answer;
  throw new Error((answer && answer.status === 500 && (await answer.text())) || LOST);
}

/** @param {string} key @param {string} what @param {Record<string, string>} [query] */
const get = async (key, what, query) => new Uint8Array(await (await ask(key, what, query)).arrayBuffer());

/** @param {Response} answer */
const nameIn = (answer) =>
  decodeURIComponent(answer.headers.get("Content-Disposition")?.split("''")[1] ?? "download");

/**
 * `fetch` does not say how far an upload is.
 * @param {string} url @param {Blob} body @param {(done: number) => void} tell
 * @returns {Promise<void>}
 */
function post(url, body, tell) {
  return new Promise((done, failed) => {
    const request = new XMLHttpRequest();
    request.open("POST", url);
    request.upload.addEventListener("progress", ({ loaded, total }) => tell(loaded / total));
    request.addEventListener("error", () => failed(new Error(LOST)));
    request.addEventListener("load", () => {
      if (request.status < 300) done();
      else failed(new Error(request.responseText || LOST));
    });
    tell(0);
    request.send(body);
  });
}
