/**
 * Says in place of the page what keeps it from being shown. This is a script of its own, in words that old browsers
 * read: the modules after it are not even parsed there, or are missing in a file that was cut off.
 */

(function () {
  /** @param {string} id */
  function say(id) {
    const element = document.getElementById(id);
    if (element) element.hidden = false;
  }

  if (!("DecompressionStream" in window && "replaceChildren" in document.body)) {
    say("old");
    return;
  }
  document.addEventListener("DOMContentLoaded", function () {
    if (!document.getElementById("end")) say("damaged");
  });
})();
