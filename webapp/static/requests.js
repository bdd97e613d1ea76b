// Requests: pictures go to the service in several requests, and whatever comes back becomes cards or a sentence.

const AT_ONCE = 3; // requests
const PER_REQUEST = 4; // pictures; the first request has one, so that its answer comes soon
const BYTES = 4_000_000; // per request, unless one picture alone has more
const LONGEST_WAIT = 180; // seconds, until pictures that the service has no room for are given up

// Send a form. The answer has no page if nothing came back, or no HTML.
export function send(address, form, onProgress = () => {}) {
  return new Promise((resolve) => {
    const request = new XMLHttpRequest(); // unlike fetch, it says how much was uploaded
    request.open("POST", address);
    request.setRequestHeader("HX-Request", "true"); // cards alone, without the page around them
    request.responseType = "document";
    request.upload.addEventListener("progress", ({ loaded, total }) => onProgress(loaded / total));
    request.addEventListener("loadend", () => {
      const { status, response: page } = request;
      const said = [429, 503].includes(status) ? request.getResponseHeader("Retry-After") : null;
      const wait = said !== null && /^\d+$/.test(said) ? Math.max(1, Number(said)) : 0; // seconds
      resolve({ status, page, wait });
    });
    request.send(form);
  });
}

// Return what to say about an answer that is not the service's: from a proxy, or none at all.
export function sentence(status, texts) {
  if (status === 0) return texts.lost;
  if (status === 413) return texts.tooLarge;
  if (status === 429) return texts.rate;
  return ([502, 503, 504].includes(status) ? texts.gone : texts.strange).replace("#", status);
}

export class Queue {
  #waiting = [];
  #running = 0;
  #total = 0; // bytes since the queue was last empty
  #loaded = 0;
  #together = PER_REQUEST;

  // "page" has the address, model, limits and texts of the page that is shown; "shown" hears of answers and progress.
  constructor(page, shown) {
    this.page = page;
    this.shown = shown;
  }

  push(items) {
    for (const item of items) {
      item.turn += 1; // an answer to an earlier question about this picture no longer counts
      if (item.size > this.page.mostBytes) this.shown.failed(item, this.page.texts.tooBig);
      else {
        this.#waiting.push(item);
        this.#total += item.size;
      }
    }
    this.#next();
  }

  drop(items) {
    this.#total -= this.#waiting.filter((item) => items.includes(item)).reduce((sum, item) => sum + item.size, 0);
    this.#waiting = this.#waiting.filter((item) => !items.includes(item));
    items.forEach((item) => { item.turn += 1; });
  }

  #next() {
    while (this.#running < AT_ONCE && this.#waiting.length) this.#run(this.#take());
    if (!this.#running) {
      this.#total = this.#loaded = 0;
      this.shown.idle();
    }
  }

  #take() {
    const items = [this.#waiting.shift()];
    let bytes = items[0].size;
    const most = this.#running || this.#loaded ? Math.min(this.#together, this.page.mostPictures) : 1;
    const fits = () => bytes + this.#waiting[0].size <= Math.min(BYTES, this.page.mostBytes);
    while (this.#waiting.length && items.length < most && fits()) {
      bytes += this.#waiting[0].size;
      items.push(this.#waiting.shift());
    }
    return items;
  }

  async #run(items) {
    this.#running += 1;
    const turns = items.map((item) => item.turn);
    const { address, model } = this.page;
    const bytes = items.reduce((sum, item) => sum + item.size, 0);
    let answer;
    for (let waited = 0; ; waited += answer.wait) {
      const form = new FormData();
      if (model) form.append("model", model);
      items.forEach((item) => item.append(form));
      let before = 0;
      answer = await send(address, form, (share) => {
        this.#loaded += (share - before) * bytes;
        before = share;
        this.shown.progress(this.#total ? this.#loaded / this.#total : 1);
      });
      this.#loaded += (1 - before) * bytes;
      if (!answer.wait || waited + answer.wait > LONGEST_WAIT) break;
      this.#loaded -= bytes;
      this.shown.waits(answer.wait);
      await new Promise((resolve) => setTimeout(resolve, 1000 * answer.wait));
    }
    this.#running -= 1;
    const current = items.filter((item, place) => item.turn === turns[place]);
    const cards = [...(answer.page?.querySelectorAll("article.card") ?? [])];
    if (answer.status === 413 && items.length > 1 && !cards.length) { // a proxy may take less than the service: one by one
      this.#together = 1;
      this.#loaded -= bytes;
      this.#waiting.unshift(...current);
    } else current.forEach((item) => this.#deliver(item, cards[items.indexOf(item)], answer));
    this.#next();
  }

  #deliver(item, card, { status, page }) {
    const problem = page?.querySelector(".problem");
    if (card) this.shown.answered(item, document.adoptNode(card));
    else if (problem) this.shown.failed(item, problem.querySelector("strong").textContent, problem.querySelector(".detail"));
    else this.shown.failed(item, sentence(status, this.page.texts));
  }
}
