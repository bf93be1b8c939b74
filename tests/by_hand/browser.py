"""Look at JupyterLab as a learner does, in a real browser. Run by hand: it needs Playwright.

    python tests/by_hand/browser.py NEW_FOLDER --shots SHOTS

It drives an installed Chromium. It prints what it found and ends with an error where a page is not
as it should be; the screenshots in SHOTS are for a person to look at.
"""

import argparse
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.request import urlopen

from playwright.sync_api import sync_playwright

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
CHROMIUM = "/usr/bin/chromium"
ROOT = Path(__file__).resolve().parent.parent.parent
LESSON, EXERCISE = "01_concepts.ipynb", "exercises/01_concepts.ipynb"
BARS = {"02_feature_extraction.ipynb": "loss_fn, 15, device"}  # what the cell that draws bars says
ANSWERS = [  # of exercise 1: what a learner types, and what the check says
    ("unsolved", "", "still missing"),
    ("wrong", 'chosen = "convnext_tiny"', "28.6 million parameters"),
    ("right", 'chosen = "regnet_y_800mf"', "right."),
]
SETTINGS = ["JUPYTER_CONFIG_DIR", "JUPYTERLAB_SETTINGS_DIR", "JUPYTERLAB_WORKSPACES_DIR"]
LOOKS = 22  # pictures of a lesson, from top to bottom


def run_jupyter(browser, options) -> list[str]:
    """Run two lessons and an exercise in JupyterLab, as a learner would; return what is wrong.

    It works on a copy of the repository, in a new folder, because JupyterLab saves what it runs.
    """
    faults = []
    ignored = shutil.ignore_patterns(".git", ".venv", "runs", "__pycache__")
    shutil.copytree(ROOT, options.folder, ignore=ignored)
    with jupyter_lab(options) as address:
        context = browser.new_context(viewport={"width": 1280, "height": 900})
        for name in options.lessons:
            faults += run_lesson(context, address, options, name)
        faults += answer_exercise(context, address, options)
        for theme in ("JupyterLab Light", "JupyterLab Dark"):
            look_through(context, address, options, theme)
    return faults


@contextmanager
def jupyter_lab(options) -> Iterator[str]:
    """Start the README's command on a free port; yield the address of its folder."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [options.python, "-m", "jupyterlab", "notebooks", "--no-browser", f"--port={port}"]
    command += ["--IdentityProvider.token=test", "--allow-root"]
    settings = {name: str(options.folder / ".jupyter") for name in SETTINGS}
    with open(options.folder / "jupyter.log", "w") as log:
        server = subprocess.Popen(
            command, cwd=options.folder, env=os.environ | settings, stdout=log, stderr=log
        )
    address = f"http://127.0.0.1:{port}"
    try:
        wait_until(lambda: kernels(address) is not None, 120)
        yield address
    finally:
        server.terminate()
        server.wait(30)


def kernels(address: str) -> list[str] | None:
    """Return the state of each kernel, or None while the server does not answer."""
    try:
        with urlopen(f"{address}/api/kernels?token=test", timeout=10) as answer:
            return [kernel["execution_state"] for kernel in json.load(answer)]
    except OSError:
        return None


def wait_until(condition, seconds: float) -> None:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"waited {seconds} seconds")
        time.sleep(1)


def open_notebook(context, address: str, path: str):
    page = context.new_page()
    page.goto(f"{address}/lab/tree/{path}?token=test&reset")
    page.wait_for_selector(".jp-Notebook .jp-Cell", timeout=120_000)
    wait_until(lambda: kernels(address) and set(kernels(address)) == {"idle"}, 120)
    page.wait_for_timeout(3000)
    return page


def choose(page, menu: str, entry: str) -> None:
    page.get_by_role("menuitem", name=menu, exact=True).click()
    page.locator(".lm-Menu-item", has_text=re.compile(f"^{entry}")).first.click()


def run_lesson(context, address: str, options, name: str) -> list[str]:
    """Open a lesson, choose Run All, wait, save; return what is wrong."""
    page = open_notebook(context, address, name)
    if page.locator(".jp-Dialog").count():
        return [f"{name} opens with: {page.locator('.jp-Dialog').inner_text()}"]
    choose(page, "Run", "Run All Cells")
    bars, idle, start = 0, 0, time.monotonic()
    if name in BARS:  # JupyterLab draws what is in sight
        page.get_by_text(BARS[name]).first.scroll_into_view_if_needed()
    while idle < 20:  # for some seconds
        waiting = page.locator(".jp-InputArea-prompt", has_text="[*]").count()
        idle = 0 if waiting or set(kernels(address)) != {"idle"} else idle + 1
        drawn = page.locator(".jp-OutputArea .widget-hprogress").count()
        if drawn > bars and options.shots:
            page.screenshot(path=options.shots / "lab_bars.png")
        bars = max(bars, drawn)
        page.wait_for_timeout(250)
    seconds = time.monotonic() - start
    page.keyboard.press("Control+s")
    page.wait_for_timeout(5000)
    page.close()
    cells = json.loads((options.folder / "notebooks" / name).read_text("utf-8"))["cells"]
    print(f"{name}: {seconds:.0f} s, {bars} progress bars seen at once")
    return check_outputs(cells) + [f"{name}: no bar"] * (name in BARS and not bars)


def check_outputs(cells: list[dict]) -> list[str]:
    """Return what is wrong with the outputs that JupyterLab has saved."""
    faults, pictures, longest = [], 0, 0
    for cell in (cell for cell in cells if cell["cell_type"] == "code"):
        if cell["execution_count"] is None:
            faults.append(f"not run: {cell['source'][:1]}")
        for output in cell["outputs"]:
            text = "".join(output.get("text", ""))
            pictures += "image/png" in output.get("data", {})
            longest = max(longest, text.count("\n"))
            if output["output_type"] == "error" or output.get("name") == "stderr":
                faults.append(f"{cell['source'][:1]}: {output}")
            if "\r" in text or "it/s" in text:
                faults.append(f"a progress bar as text: {text[:80]!r}")
    print(f"  {pictures} pictures; the longest output has {longest} lines")
    return faults + ["no pictures"] * (not pictures)


def answer_exercise(context, address: str, options) -> list[str]:
    """Leave an exercise unsolved, answer it wrong, then right; return what is wrong."""
    page, faults = open_notebook(context, address, EXERCISE), []
    choose(page, "Run", "Run All Cells")
    page.wait_for_timeout(3000)
    page.wait_for_timeout(30_000)
    answer = page.locator(".jp-CodeCell", has_text="candidates += ")
    check = page.locator(".jp-CodeCell", has_text="with marks.exercise(1")
    for name, code, wanted in ANSWERS:
        if code:
            answer.locator(".cm-content").click()
            page.keyboard.press("Control+End")
            page.keyboard.type(f"\n{code}")
            page.keyboard.press("Shift+Enter")
            page.keyboard.press("Shift+Enter")
        check.scroll_into_view_if_needed()
        page.wait_for_timeout(3000)
        said = check.locator(".jp-OutputArea-output").first.inner_text()
        print(f"exercise 1, {name}: {said.strip()}")
        faults += [f"{name}: {said}"] * (wanted not in said)
        if options.shots:
            page.screenshot(path=options.shots / f"lab_exercise_{name}.png")
    page.keyboard.press("Control+s")
    page.close()
    return faults


def look_through(context, address: str, options, theme: str) -> None:
    """Scroll through the executed lesson in a theme and take pictures for a person to look at."""
    settings = {"apputils-extension/themes": {"theme": theme}}
    settings["notebook-extension/tracker"] = {"windowingMode": "none"}  # draw all cells at once
    for name, values in settings.items():
        file = options.folder / ".jupyter" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(values))
    page = open_notebook(context, address, LESSON)
    page.mouse.move(700, 500)
    for number in range(LOOKS if options.shots else 0):
        page.screenshot(path=options.shots / f"lab_{theme.split()[1].lower()}_{number:02}.png")
        page.mouse.wheel(0, 700)
        page.wait_for_timeout(700)
    page.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path, help="a new folder, for a copy of this repository")
    parser.add_argument("--python", default=sys.executable, help="a Python that has JupyterLab")
    parser.add_argument("--lessons", nargs="*", default=[LESSON, *BARS], help="to run")
    parser.add_argument("--shots", type=Path, help="folder for screenshots")
    parser.add_argument("--chromium", default=CHROMIUM)
    options = parser.parse_args()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=options.chromium, args=FLAGS)
        faults = run_jupyter(browser, options)
        browser.close()
    print("\n".join(faults) or "no fault")
    return bool(faults)


if __name__ == "__main__":
    sys.exit(main())
