from __future__ import annotations

import itertools
import json
import re
import subprocess
from pathlib import Path

import pytest
from fake_study import FakeStudy

pytestmark = pytest.mark.browser

FLAGS = """--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking
--disable-component-update --disable-sync --enable-logging=stderr --virtual-time-budget=3000"""

PROBE = """<script>
const found = [];
addEventListener("error", event => found.push(String(event.message)));
addEventListener("securitypolicyviolation", event => found.push("blocked " + event.blockedURI));
addEventListener("load", () => {
  const page = document.documentElement;
  const heads = [...document.querySelector(".heads").cells];
  const at = heads.findIndex(head => head.textContent.trim() === "verdict");
  heads[at].querySelector("button").click();
  parent.postMessage(JSON.stringify({
    errors: found, width: innerWidth, overflow: page.scrollWidth - page.clientWidth,
    dark: matchMedia("(prefers-color-scheme: dark)").matches,
    images: [...document.images].every(image => image.complete && image.naturalWidth > 0),
    sorted: document.querySelectorAll("[aria-sort=ascending]").length,
    verdicts: [...document.querySelector("tbody").rows].map(row => row.cells[at].textContent.trim().slice(2)) }), "*");
});
</script>"""

FRAME = """<!DOCTYPE html><title>frame</title><body style="margin: 0"><script>
addEventListener("message", event => {
  document.body.append(Object.assign(document.createElement("pre"), { id: "probe", textContent: event.data }));
});
</script><iframe src="probed.html" style="width: WIDTHpx; height: 900px; border: 0"></iframe>"""
# Headless Chromium makes no window narrower than 500 pixels, hence the frame.


@pytest.fixture(scope="module")
def folder(reported: FakeStudy, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the report, a probe in its head."""
    folder = tmp_path_factory.mktemp("browser")
    page = (reported.results / "report.html").read_text()
    (folder / "probed.html").write_text(page.replace("<title>", f"{PROBE}\n<title>", 1))
    return folder


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [1280, 390])
def test_renders(folder: Path, browser: str, tmp_path: Path, width: int, dark: bool) -> None:
    frame = folder / f"frame{width}.html"
    frame.write_text(FRAME.replace("WIDTH", str(width)))
    command = [browser, *FLAGS.split(), f"--user-data-dir={tmp_path}", "--window-size=1400,1000", "--dump-dom"]
    command += ["--blink-settings=preferredColorScheme=0"] if dark else []
    done = subprocess.run([*command, frame.as_uri()], capture_output=True, text=True, timeout=60, check=True)
    found = re.search(r'<pre id="probe">(.*?)</pre>', done.stdout)
    assert found, done.stderr[-2000:]
    probe = json.loads(found.group(1))
    assert ":CONSOLE" not in done.stderr
    assert probe["errors"] == []
    assert (probe["width"], probe["dark"]) == (width, dark)
    assert probe["overflow"] <= 0
    assert probe["images"]
    assert probe["sorted"] == 1
    groups = [verdict for verdict, _ in itertools.groupby(probe["verdicts"])]
    assert len(groups) == len(set(groups))
