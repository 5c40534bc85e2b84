"""The page in a real browser: it loads without an error, and what can be clicked does what it says."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from openwork.report import write_report
from tests.report.compared import comparison, write_comparison

BROWSER = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="needs a headless browser: chromium is not installed")

# Runs before the page's own script, and after it.
LISTEN = """<script>
  const errors = [];
  addEventListener("error", (event) => errors.push(event.message));
  console.error = (...words) => errors.push(words.join(" "));
</script>"""
PROBE = """<script>addEventListener("load", () => {
  const all = (what, within = document) => [...within.querySelectorAll(what)];
  const seen = () => all(".view").map((view) => view.checkVisibility());
  const found = { errors, width: innerWidth, wide: document.documentElement.scrollWidth - innerWidth };
  found.switch = all(".switch input").map((input) => { input.click(); return seen(); });
  all(".switch input").forEach((input) => { if (input.value === "0") input.click(); });
  const table = document.querySelector("table.runs.wide") ?? document.querySelector("table.runs");
  const heads = all("th[data-sort]", table);
  const column = (n) => [...table.tBodies[0].rows].map((row) => row.cells[n].dataset.value ?? row.cells[n].textContent);
  found.sorts = heads.map((head) => {
    const n = Number(head.dataset.sort), button = head.querySelector("button");
    button.focus();
    const reached = document.activeElement === button;  // so that Enter and Space click it
    const sides = [0, 1].map(() => { button.click(); return [head.getAttribute("aria-sort"), column(n)]; });
    return { name: head.textContent, reached, sides, marked: all("[aria-sort]", table).length };
  });
  const plot = document.querySelector(".view-0 .plot");
  if (plot) {
    const mark = plot.querySelector('[data-method="1"] .mark'), box = mark.getBoundingClientRect();
    const at = { clientX: box.x + box.width / 2, clientY: box.y + box.height / 2, bubbles: true };
    plot.dispatchEvent(new PointerEvent("pointermove", at));
    found.tip = plot.querySelector(".tip")?.textContent;
    found.faded = getComputedStyle(plot.querySelector('.series[data-method="2"]')).opacity;
    plot.dispatchEvent(new PointerEvent("pointerleave"));
    found.gone = !plot.querySelector(".tip");
    // A finger comes without moving, and leaves as it is lifted.
    const finger = { ...at, pointerType: "touch" };
    for (const kind of ["pointerdown", "pointerup", "pointerleave"]) plot.dispatchEvent(new PointerEvent(kind, finger));
    found.touched = plot.querySelector(".tip")?.textContent;
    const tip = plot.querySelector(".tip")?.getBoundingClientRect();
    found.inside = tip && tip.left >= 0 && tip.right <= innerWidth;
    document.body.dispatchEvent(new PointerEvent("pointerdown", { bubbles: true, pointerType: "touch" }));
    found.released = !plot.querySelector(".tip");
    found.marks = all(".view-0 .at").map((mark) => [mark.getBoundingClientRect().x, mark.getBoundingClientRect().y]);
  }
  found.charts = all("details").map((folded) => { folded.open = true; return all(".chart svg", folded).length; });
  const chart = document.querySelector("[data-chart]");
  if (chart) {
    const line = chart.querySelector(".plot"), box = line.getBoundingClientRect();
    const said = () => chart.querySelector("output").textContent;
    const finger = { clientX: box.x + 0.2 * box.width, bubbles: true, pointerType: "touch" };
    found.read = [said()];
    for (const kind of ["pointerdown", "pointerleave"]) line.dispatchEvent(new PointerEvent(kind, finger));
    found.read.push(said());
    document.body.dispatchEvent(new PointerEvent("pointerdown", { bubbles: true }));
    found.read.push(said());
  }
  found.unfolded = document.documentElement.scrollWidth - innerWidth;
  const said = document.createElement("script");
  said.type = "application/json";
  said.id = "found";
  said.textContent = JSON.stringify(found);
  document.body.append(said);
  parent.postMessage(said.textContent, "*");
});</script>"""
# The browser's own window is no narrower than 500 pixels; a page in a frame takes the frame's width for its screen.
PHONE = """<!doctype html><body><iframe src="probed.html" width="390" height="800"></iframe><script>
addEventListener("message", (event) => {
  const said = document.createElement("script");
  said.type = "application/json";
  said.id = "found";
  said.textContent = event.data;
  document.body.append(said);
});</script></body>"""


def browse(page: Path, *options: str) -> subprocess.CompletedProcess[str]:
    profile = page.parent / "profile"
    command = [str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run"]
    command += [f"--user-data-dir={profile}", "--virtual-time-budget=2000", "--enable-logging=stderr", *options]
    return subprocess.run(
        [*command, page.as_uri()], check=True, capture_output=True, text=True, encoding="utf-8", timeout=240
    )


def probed(page: Path, width: int) -> dict:
    """What the probe found on a copy of the page, which says nothing on the console."""
    source = page.read_text("utf-8")
    copy = page.with_name("probed.html")
    copy.write_text(source.replace("<head>", f"<head>{LISTEN}").replace("</body>", f"{PROBE}</body>"), "utf-8")
    if width < 500:
        copy = page.with_name("phone.html")
        copy.write_text(PHONE, "utf-8")
    done = browse(copy, "--dump-dom", f"--window-size={width},900")
    assert "CONSOLE" not in done.stderr
    found = re.search(r'<script type="application/json" id="found">(.*?)</script>', done.stdout, re.DOTALL)
    assert found, done.stdout[-2000:]
    return json.loads(found[1])


def check_sorted(sorts: list[dict]) -> None:
    for sort in sorts:
        assert sort["reached"] and sort["marked"] == 1
        orders = {way: values for way, values in sort["sides"]}
        assert set(orders) == {"ascending", "descending"}, sort["name"]
        numbers = {way: [float(v) for v in values if re.fullmatch(r"[-\d.e]+", v)] for way, values in orders.items()}
        if any(numbers.values()):
            assert numbers["ascending"] == sorted(numbers["ascending"])
            assert numbers["descending"] == numbers["ascending"][::-1]
            missing = len(orders["ascending"]) - len(numbers["ascending"])
            for values in orders.values():  # what is missing is last either way
                assert values[len(values) - missing :] == ["–"] * missing
        else:
            assert orders["ascending"] == sorted(orders["ascending"], key=str.casefold)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report([write_comparison(tmp_path_factory.mktemp("browser") / "a", comparison())])


def test_the_page_of_a_comparison_works(page: Path):
    found = probed(page, 1200)
    assert found["errors"] == []
    assert found["wide"] <= 0
    assert found["switch"] == [[n == shown for n in range(3)] for shown in range(3)]
    assert [sort["name"] for sort in found["sorts"]][:4] == ["Method", "Strength", "Seeds", "Test accuracy"]
    check_sorted(found["sorts"])
    assert found["tip"].startswith("ramda, strength 0.0001\nTest accuracy 94.55\u202f% ± 0.07\n")
    assert found["gone"] and float(found["faded"]) < 0.5
    assert found["read"] == ["epoch 4", "epoch 1", "epoch 4"]
    assert len(found["marks"]) == 10 and len({tuple(place) for place in found["marks"]}) == 10
    assert found["charts"] == [2, 3, 3, 3]  # the dense network has no zeros to draw


def test_a_phone(page: Path):
    found = probed(page, 390)
    assert found["errors"] == [] and found["width"] == 390
    assert found["wide"] <= 0 and found["unfolded"] <= 0
    # There is no room for names beside marks; they come with a touch, and stay until the next.
    assert found["touched"] == found["tip"] and found["touched"].startswith("ramda, strength 0.0001\n")
    assert found["inside"] and found["released"]


def test_on_paper_everything_is_unfolded(page: Path):
    def pages(source: str) -> int:
        copy, paper = page.with_name("printed.html"), page.with_name("printed.pdf")
        copy.write_text(source, "utf-8")
        browse(copy, f"--print-to-pdf={paper}")
        return len(re.findall(rb"/Type\s*/Page\b", paper.read_bytes()))

    source = page.read_text("utf-8")
    assert source.count("<details>") == 4
    # Folded away are four methods, each with pictures of its own.
    assert pages(source) >= pages(source.replace("beforeprint", "never")) + 4


def test_the_table_of_several_runs_still_sorts(new_run):
    found = probed(write_report([new_run("a"), new_run("b", seed=1), new_run("C", seed=2)]), 1200)
    assert found["errors"] == []
    check_sorted(found["sorts"])
    assert len(found["sorts"]) > 5


@pytest.mark.parametrize(("scheme", "paper"), [("light", (252, 251, 248)), ("dark", (21, 23, 26))])
def test_light_and_dark(page: Path, scheme: str, paper: tuple[int, int, int]):
    shot = page.with_name(f"{scheme}.png")
    prefers = f"--blink-settings=preferredColorScheme={'0' if scheme == 'dark' else '1'}"
    done = browse(page, f"--screenshot={shot}", "--window-size=1100,1400", prefers)
    assert "CONSOLE" not in done.stderr
    picture = (imread(shot)[..., :3] * 255).round()
    assert (picture[3, 3] == paper).all()
    # There is text that stands out from the paper, and not too much of it.
    contrast = np.abs(picture - np.array(paper)).max(axis=2) > 100
    assert 0.01 < contrast.mean() < 0.3
