// Previews before the upload. The page works without this file.
"use strict";

const input = document.getElementById("pictures");
const chosen = document.getElementById("chosen");

input.addEventListener("change", () => {
  chosen.querySelectorAll("img").forEach((image) => URL.revokeObjectURL(image.src));
  chosen.replaceChildren(
    ...[...input.files].slice(0, 12).map((file) => {
      const image = document.createElement("img");
      image.src = URL.createObjectURL(file);
      image.alt = file.name;
      return image;
    }),
  );
  chosen.hidden = input.files.length === 0;
});
