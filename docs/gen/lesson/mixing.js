/** (f) Fourier and MLP mixing: change one pixel, and see which tokens change. */

import { pixelsOf } from "./load.js";
import { counts, models, pixelName, state } from "./digit.js";
import { canvas, numberAt, tell, the, whenMoved } from "./dom.js";
import { drawMap, pickable } from "./heat.js";
import { changed, part } from "./parts.js";
import { spread } from "./token_mixing.js";

const SHOWN = ["fourier", "mlp", "attention", "local"];
const CHANGED = 0.01; // of the largest change: less than that is not counted

export function beginMixing() {
  for (const mixer of SHOWN) pickable(canvas(`spread-${mixer}`));
  whenMoved(["amount"], () => changed("mixing"));
  part("mixing", draw);
}

function draw() {
  const ink = counts();
  const after = [...ink];
  const amount = numberAt("amount");
  after[state.pixel] = amount;
  tell("amount", `${amount} of 16`);
  const told = SHOWN.map((mixer) => {
    const sizes = spread(models, mixer, pixelsOf(ink), pixelsOf(after));
    drawMap(canvas(`spread-${mixer}`), sizes, after, state.pixel);
    const most = Math.max(...sizes);
    return `${mixer} ${most > 1e-9 ? sizes.filter((size) => size > CHANGED * most).length : 0}`;
  });
  the("mixing-told").textContent =
    `The ink of the pixel in ${pixelName()} goes from ${ink[state.pixel]} to ${amount} of 16. Of 64 tokens change, behind the ` +
    `first layer's mixer: ${told.join(", ")}.`;
}
