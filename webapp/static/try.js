// The API page sends a request and shows what a program would get; without this file the browser shows the answer itself.

import { sentence } from "./requests.js";

export async function tryOut(address, form, shown, texts) {
  const say = (text) => {
    shown.textContent = text;
    shown.hidden = false;
  };
  say("…");
  const started = performance.now();
  try {
    const answer = await fetch(address, { method: "POST", body: new FormData(form) });
    const taken = Math.round(performance.now() - started);
    if (!answer.headers.get("Content-Type")?.includes("json")) say(sentence(answer.status, texts));
    else say(`${answer.status} (${taken} ms)\n${JSON.stringify(await answer.json(), null, 2)}`);
  } catch (error) {
    if (!(error instanceof TypeError)) throw error; // what fetch throws where there is no connection
    say(texts.lost);
  }
}
