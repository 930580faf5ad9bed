"""The page of a comparison as a browser shows it: quiet, legible, usable by keyboard, on a telephone and a screen."""

import pytest

from regard.compare.report import Report

SCREENS = [(390, 844, False), (390, 844, True), (1280, 800, False), (1280, 800, True)]

# Each text that is seen: its height in pixels as drawn, and its contrast with what lies behind it.
TEXTS = """(() => {
  const parsed = text => {
    const numbers = (text.match(/-?[\\d.]+(e-?\\d+)?/g) ?? []).map(Number);
    const rgb = text.startsWith("color(") ? numbers.slice(0, 3).map(x => 255 * x) : numbers.slice(0, 3);
    return [...rgb, numbers[3] ?? 1];
  };
  const over = (top, below) => [0, 1, 2].map(i => top[i] * top[3] + below[i] * (1 - top[3]));
  const light = rgb => [0.2126, 0.7152, 0.0722].reduce((sum, weight, i) => {
    const x = rgb[i] / 255;
    return sum + weight * (x <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4);
  }, 0);
  const behind = element => {
    const layers = [];
    for (let at = element; at; at = at.parentElement) layers.push(parsed(getComputedStyle(at).backgroundColor));
    return layers.reverse().reduce((below, top) => over(top, below), [255, 255, 255]);
  };
  const found = [], walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node; node = walker.nextNode();) {
    const element = node.parentElement, style = getComputedStyle(element), box = element.getBoundingClientRect();
    if (!node.data.trim() || !element.checkVisibility({ visibilityProperty: true }) || box.width < 2) continue;
    if (["SCRIPT", "STYLE"].includes(element.tagName) || element.closest("title, desc")) continue;
    const drawn = element instanceof SVGElement;
    const ground = behind(drawn ? element.closest("svg").parentElement : element);
    const [a, b] = [over(parsed(drawn ? style.fill : style.color), ground), ground].map(light).sort((x, y) => y - x);
    const scale = drawn ? element.getScreenCTM().a : 1;
    found.push([node.data.trim().slice(0, 30), scale * parseFloat(style.fontSize), (a + 0.05) / (b + 0.05)]);
  }
  return found;
})()"""
# Controls without a name, and drawings without one.
NAMELESS = """[...document.querySelectorAll('button, summary, a, [tabindex], [role=img], input')].filter(one => {
  const labels = (one.getAttribute('aria-labelledby') ?? '').split(' ').map(id => document.getElementById(id));
  return !(one.textContent.trim() || one.getAttribute('aria-label') || labels.some(label => label?.textContent));
}).map(one => one.outerHTML.slice(0, 80))"""
TABLES = """[...document.querySelectorAll('table')].filter(table =>
  ![...table.querySelectorAll('thead th')].every(head => ['col', 'colgroup'].includes(head.scope)) ||
  ![...table.tBodies[0].rows].every(row => row.cells[0].tagName === 'TH' && row.cells[0].scope === 'row')
).map(table => table.className)"""
NAMES = "[...document.querySelectorAll('.results tbody th')].map(head => head.textContent)"
BOLD = """[...document.querySelectorAll('main td, tbody th')]
  .filter(one => getComputedStyle(one).fontWeight > 500).map(one => one.textContent)"""
# What the button says once the browser has taken the text, or refused.
COPIED = """new Promise(done => {
  const told = document.getElementById('copied');
  const look = left => told.textContent || !left ? done(told.textContent) : setTimeout(look, 10, left - 1);
  look(500);
})"""
SHOWN = "[...document.querySelectorAll('div.axis')].filter(one => one.checkVisibility()).map(one => one.id)"


@pytest.mark.slow
def test_the_page_is_quiet_legible_and_works_by_keyboard(record, browser, tmp_path):
    found = record(
        robustness=[{"contender": "conv", "change": "noise 0.1", "score": 0.9, "drop": 0.08}],
        over=False,
        notes=["Left out, since the recipe cannot train them: a."],
    )
    file = tmp_path / "page.html"
    Report(file, title="").write_comparison(found)
    with browser(tmp_path / "profile") as tab:
        for width, height, dark in SCREENS:
            tab.screen(width, height, dark=dark)
            assert tab.open(file) == []
            assert tab.requests == [file.as_uri()]
            assert tab.evaluate("document.getElementById('answer').getBoundingClientRect().bottom") < height / 2
            assert tab.evaluate("document.querySelector('#ladder').getBoundingClientRect().top") < height / 2
            assert tab.evaluate("document.documentElement.scrollWidth") <= width
            tab.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
            texts = tab.evaluate(TEXTS)
            assert len(texts) > 500
            assert [text for text in texts if text[1] < 11] == []
            assert [text for text in texts if text[2] < 4.5] == []
            assert tab.evaluate(NAMELESS) == []
            assert tab.serious() == []
            assert tab.evaluate(TABLES) == []
            # One ladder at a time, as wide as the screen allows.
            assert (
                tab.evaluate("[...document.querySelectorAll('#ladder svg')].filter(x => x.checkVisibility()).length")
                == 1
            )

            names = [one.name for one in found.contenders]
            assert tab.evaluate(NAMES) == names  # the best mean first
            tab.evaluate("document.querySelectorAll('.results thead button')[1].focus()")
            tab.press("Enter")
            assert tab.evaluate(NAMES) == names
            assert tab.evaluate("document.activeElement.closest('th').getAttribute('aria-sort')") == "descending"
            tab.press("Enter")
            assert tab.evaluate(NAMES) == names[::-1]
            assert tab.evaluate("document.activeElement.closest('th').getAttribute('aria-sort')") == "ascending"

            assert tab.evaluate(SHOWN) == ["cost-throughput"]
            tab.evaluate("document.querySelector('[data-shows=cost-flops]').focus()")
            tab.press("Enter")
            assert tab.evaluate(SHOWN) == ["cost-flops"]
            pressed = "[...document.querySelectorAll('.choice [aria-pressed=true]')].map(one => one.textContent)"
            assert tab.evaluate(pressed) == ["FLOPs"]

            tab.evaluate("document.querySelector('button.copy').focus()")
            tab.press("Enter")
            assert tab.evaluate(COPIED) in ("Copied.", "Selected below: copy it with the keyboard.")
            assert (
                tab.evaluate("JSON.parse(document.getElementById('record').textContent).schema") == "regard-compare-1"
            )
            assert tab.log == []


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["one seed", "bits", "twins"])
def test_other_comparisons_are_as_legible(record, browser, tmp_path, kind):
    found = {
        "one seed": lambda: record(("conv", "resnet18_narrow_of_a_long_name"), 1, picked=None),
        "bits": lambda: record(("a", "lstm"), 3, best=1.9, larger_is_better=False, metric="bits_per_byte"),
        "twins": lambda: record(("attention", "attention@copy"), 3, step=0.0005, picked=None),
    }[kind]()
    file = tmp_path / "page.html"
    Report(file, title="").write_comparison(found)
    with browser(tmp_path / "profile") as tab:
        for width, height, dark in SCREENS[::3]:
            tab.screen(width, height, dark=dark)
            assert tab.open(file) == []
            assert tab.evaluate("document.documentElement.scrollWidth") <= width
            tab.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
            assert [text for text in tab.evaluate(TEXTS) if text[1] < 11 or text[2] < 4.5] == []
            assert tab.evaluate(BOLD) == (["a"] if kind == "bits" else [])
