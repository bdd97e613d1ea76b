// Extras of the page: previews, drag and drop, paste, progress, sorting in place. The page works without this file.
"use strict";

const THUMBNAILS = 24;

const form = document.getElementById("upload");
if (form) {
  const input = document.getElementById("pictures");
  const camera = document.getElementById("camera");
  const chosen = document.getElementById("chosen");
  const drop = document.getElementById("drop");
  const progress = document.getElementById("progress");
  const status = document.getElementById("status");
  const texts = form.dataset;
  let answered = false; // pictures added after an answer start a new selection

  const say = (sentence) => {
    status.textContent = sentence;
    status.classList.toggle("hidden", answered); // the heading of the answers shows the same
  };
  const count = (number) => (number === 1 ? texts.one : texts.many.replace("#", number));

  const choose = (files) => {
    const transfer = new DataTransfer();
    files.forEach((file) => transfer.items.add(file));
    input.files = transfer.files;
    show();
  };
  const add = (files) => {
    if (files.length) choose([...(answered ? [] : input.files), ...files]);
  };

  const thumbnail = (file, place) => {
    const item = document.createElement("li");
    const image = document.createElement("img");
    image.src = URL.createObjectURL(file);
    image.alt = file.name;
    image.addEventListener("load", () => URL.revokeObjectURL(image.src));
    image.addEventListener("error", () => {
      const name = document.createElement("span");
      name.className = "plain";
      name.textContent = file.name;
      image.replaceWith(name);
    });
    const remove = document.createElement("button");
    remove.type = "button";
    remove.textContent = "×";
    remove.setAttribute("aria-label", texts.remove.replace("#", file.name));
    remove.addEventListener("click", () => {
      choose([...input.files].filter((_, other) => other !== place));
      (chosen.querySelectorAll("button")[place] ?? input).focus();
    });
    item.append(image, remove);
    return item;
  };
  const show = () => {
    const files = [...input.files];
    const items = files.slice(0, THUMBNAILS).map(thumbnail);
    if (files.length > THUMBNAILS) {
      const rest = document.createElement("li");
      rest.className = "plain";
      rest.textContent = texts.further.replace("#", files.length - THUMBNAILS);
      items.push(rest);
    }
    chosen.replaceChildren(...items);
    chosen.hidden = !files.length;
    answered = false;
    say(files.length ? count(files.length) : "");
  };

  input.addEventListener("change", show);
  camera.addEventListener("change", () => {
    add([...camera.files]);
    camera.value = "";
  });
  document.addEventListener("paste", (event) => add([...event.clipboardData.files]));
  document.addEventListener("dragover", (event) => {
    event.preventDefault(); // a picture dropped outside the box must not replace the page
    drop.classList.add("over");
  });
  document.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) drop.classList.remove("over");
  });
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    drop.classList.remove("over");
    add([...event.dataTransfer.files]);
  });

  let uploaded = false;
  form.addEventListener("htmx:beforeSend", () => {
    uploaded = false;
    progress.hidden = false;
    progress.removeAttribute("value");
    answered = false;
    say(texts.looking);
  });
  form.addEventListener("htmx:xhr:progress", ({ detail }) => {
    if (uploaded || !detail.lengthComputable) return; // progress of the download of the answer is not shown
    uploaded = detail.loaded === detail.total;
    if (uploaded) {
      progress.removeAttribute("value");
      say(texts.looking);
    } else {
      progress.value = detail.loaded / detail.total;
      say(texts.uploading.replace("#", Math.floor((100 * detail.loaded) / detail.total)));
    }
  });
  form.addEventListener("htmx:afterRequest", () => { progress.hidden = true; });
  form.addEventListener("htmx:sendError", () => say(texts.lost));
  document.addEventListener("htmx:afterSwap", ({ detail }) => {
    if (detail.requestConfig.elt !== form) return; // a correction
    const title = document.getElementById("answers-title"); // missing if the request was refused
    answered = title !== null;
    say(document.getElementById("summary")?.textContent ?? "");
    title?.focus({ preventScroll: true });
    title?.scrollIntoView();
  });

  const order = document.getElementById("order");
  order.addEventListener("change", () => {
    const list = document.querySelector("#answers .cards");
    if (!list) return;
    const cards = [...list.children].sort((one, other) => one.dataset[order.value] - other.dataset[order.value]);
    list.append(...cards);
    const csv = document.getElementById("csv");
    const lines = [csv.dataset.header, ...cards.map((card) => card.dataset.line)];
    csv.href = "data:text/csv;charset=utf-8," + encodeURIComponent(lines.map((line) => line + "\r\n").join(""));
  });
}
