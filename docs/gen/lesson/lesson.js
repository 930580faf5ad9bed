/** Reads what the page carries, and begins with its parts. */

import { Damaged, inflated } from "../../../src/regard/explain/page/pieces.js";
import { beginBoxes } from "./boxes.js";
import { begin } from "./digit.js";
import { the } from "./dom.js";
import { beginDrawing } from "./drawing.js";
import { beginFeatures } from "./features.js";
import { beginMixing } from "./mixing.js";
import { changed } from "./parts.js";
import { beginRetrieval } from "./retrieval.js";
import { beginTruth } from "./truth.js";
import { beginWall } from "./wall.js";
import { beginWindows } from "./windows.js";

async function start() {
  const about = JSON.parse(new TextDecoder().decode(await inflated("about")));
  /** @type {Record<string, Uint8Array>} */
  const bytes = {};
  for (const { mixer } of about.models) bytes[mixer] = await inflated(mixer);
  begin(about, bytes);
  beginDrawing(about.accuracies);
  beginRetrieval();
  beginWall();
  beginWindows();
  beginFeatures();
  beginMixing();
  beginBoxes();
  beginTruth();
  the("page").hidden = false;
  changed();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => changed());
}

start().catch((error) => {
  if (!(error instanceof Damaged)) throw error;
  the("damaged").hidden = false;
});
