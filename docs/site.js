// What axe asks of the theme: the search has a name, and tables that are wider than the window are scrolled by keys, too.
document.querySelector(".md-search")?.setAttribute("aria-label", "Search");

const reachable = () => {
  for (const table of document.querySelectorAll(".md-typeset__scrollwrap:not([tabindex])")) {
    table.setAttribute("tabindex", "0");
  }
};
new MutationObserver(reachable).observe(document.body, { childList: true, subtree: true });
reachable();
