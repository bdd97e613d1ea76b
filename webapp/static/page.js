// Extras of the page, which works without them: choosing, dropping and pasting; answers as soon as pictures are chosen;
// pages that change inside the document, so that the answers stay.

import { Answers } from "./answers.js";
import { Queue, sentence } from "./requests.js";
import { tryOut } from "./try.js";

const MARGIN = 65_536; // bytes of a request that are not pictures

const page = {}; // the address, model, limits and texts of the form that was shown last
const answers = new Answers({ dropped: (items) => queue.drop(items), again: (items) => ask(items) });
const queue = new Queue(page, {
  answered: (item, card) => answers.answered(item, card),
  failed: (item, text, detail) => answers.failed(item, text, detail),
  progress: (share) => showProgress(share),
  waits: (seconds) => say(page.texts.waits.replace("#", seconds)),
  idle: () => showIdle(),
});

const element = (id) => document.getElementById(id);
const texts = () => JSON.parse(element("texts").dataset.texts);
const chosenModel = () => element("upload").elements.model?.value ?? "";

const ask = (items) => {
  items.forEach((item) => Object.assign(item, { model: page.model, language: document.documentElement.lang }));
  answers.add(items);
  say(page.texts.looking);
  queue.push(items);
};
const add = (items) => {
  if (!items.length) return;
  const first = !answers.items.length;
  ask(items);
  if (first) answers.title.focus({ preventScroll: true });
  (first ? answers.title : items[0].card).scrollIntoView({ block: first ? "start" : "nearest" });
};
const fromFile = (file) => ({
  file, name: file.name, size: file.size, turn: 0, append: (form) => form.append("pictures", file, file.name),
});
const fromSample = (button) => ({
  name: button.title, size: 0, turn: 0, thumbnail: button.querySelector("img").src,
  append: (form) => form.append("sample", button.value),
});

const say = (text) => {
  if (!element("status")) return; // another page is shown
  element("status").textContent = text;
  element("status").classList.toggle("hidden", text === answers.summary());
};
const showProgress = (share) => {
  const bar = element("progress");
  if (!bar) return;
  bar.hidden = false;
  if (share < 1) {
    bar.value = share;
    say(page.texts.uploading.replace("#", Math.floor(100 * share)));
  } else {
    bar.removeAttribute("value");
    say(page.texts.looking);
  }
};
const showIdle = () => {
  if (!element("progress")) return;
  element("progress").hidden = true;
  say(answers.items.length ? answers.summary() : "");
};

// Bind the form of a page that has just come, and show the answers that are there.
const enter = () => {
  const form = element("upload");
  if (!form || form.dataset.entered) return;
  form.dataset.entered = "true";
  const wanted = new URLSearchParams(location.search).get("model");
  if (page.model && wanted === null && form.elements.model) form.elements.model.value = page.model;
  Object.assign(page, {
    address: form.action,
    model: chosenModel(),
    texts: texts(),
    mostBytes: Number(form.dataset.bytes) - MARGIN,
    mostPictures: Number(form.dataset.pictures),
  });
  answers.enter(page);
  form.addEventListener("change", ({ target }) => {
    if (target.type === "file") {
      add([...target.files].map(fromFile));
      target.value = ""; // the same pictures may be chosen again
    } else if (target.name === "model") {
      page.model = chosenModel();
      if (answers.items.length) ask(answers.items);
    }
  });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (event.submitter?.name === "sample") add([fromSample(event.submitter)]);
  });
  element("clear").addEventListener("click", () => {
    answers.remove(answers.items);
    element("pictures").focus();
  });
  const { lang } = document.documentElement;
  const others = answers.items.filter(({ model, language }) => model !== page.model || language !== lang);
  if (others.length) ask(others);
  else showIdle();
};

const files = (transfer) => [...(transfer?.files ?? [])].map(fromFile);
document.addEventListener("paste", ({ clipboardData }) => { if (element("upload")) add(files(clipboardData)); });
document.addEventListener("dragover", (event) => {
  event.preventDefault(); // a picture dropped outside the box must not replace the page
  element("drop")?.classList.add("over");
});
document.addEventListener("dragleave", ({ relatedTarget }) => {
  if (!relatedTarget) element("drop")?.classList.remove("over");
});
document.addEventListener("drop", (event) => {
  event.preventDefault();
  element("drop")?.classList.remove("over");
  if (element("upload")) add(files(event.dataTransfer));
});

document.addEventListener("submit", (event) => {
  if (event.target.id !== "try") return;
  event.preventDefault();
  tryOut(event.submitter.formAction, event.target, element("try-answer"), texts());
});

// Pages change inside the document (hx-boost), and the answers of the form wait meanwhile.
const arrive = () => {
  document.documentElement.lang = element("content").dataset.language;
  enter();
  element("content").focus({ preventScroll: true });
};
document.addEventListener("htmx:afterSettle", ({ detail }) => { if (detail.boosted) arrive(); });
document.addEventListener("htmx:historyRestore", arrive);

// What a proxy says in place of the service, or a service that is gone, becomes a sentence where it was asked for.
const tell = (text, detail) => {
  const place = detail.boosted ? element("content") : detail.requestConfig.elt;
  place.querySelector(".told")?.remove();
  const told = element("told").content.firstElementChild.cloneNode(true);
  told.firstElementChild.textContent = text;
  told.setAttribute("role", "alert");
  place.prepend(told);
};
document.addEventListener("htmx:beforeSwap", ({ detail }) => {
  const own = detail.boosted ? /<main id="content"/ : /class="(?:thanks|problem)"/;
  if (own.test(detail.serverResponse)) return;
  detail.shouldSwap = false;
  tell(sentence(detail.xhr.status, texts()), detail);
});
document.addEventListener("htmx:sendError", ({ detail }) => tell(texts().lost, detail));
document.addEventListener("htmx:historyCacheMissLoadError", () => tell(texts().lost, { boosted: true }));

enter();
