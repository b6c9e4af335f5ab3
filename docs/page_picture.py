"""Draws docs/page.png: the page of `python -m onethinker_jax.demo MODEL --serve` with an example answered, as Chromium
shows it: `python docs/page_picture.py runs/shapes/model`, from the folder that the run was started in.
"""

import io
import shutil
import sys
import threading
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

from onethinker_jax.demo.page.arguments import PageArguments
from onethinker_jax.demo.page.server import make_app, make_house
from onethinker_jax.serve.server import Server

TASK, NUMBER = "spatial-temporal grounding (video)", 3  # of its examples
SIZES = {
    "prompt_slots": 1,
    "prompt_buckets": 1,
    "prompt_tokens": 256,
    "prompt_patches": 512,
    "max_new_tokens": 256,
}
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]


def shot(url: str) -> bytes:
    """The page as a PNG file, once the example is answered."""
    with sync_playwright() as playwright:
        chromium = shutil.which("chromium") or shutil.which("chromium-browser")
        assert chromium is not None, "there is no chromium: apt-get install chromium"
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.set_default_timeout(600_000)
        page.goto(url)
        heading = page.locator(".examples .heading", has_text=TASK)
        heading.locator(f"xpath=following-sibling::button[{NUMBER}]").click()
        page.locator(".preview img:visible").wait_for()
        page.get_by_role("button", name="Ask", exact=True).click()
        page.locator(".pane .status", has_text="prompt of").wait_for()
        page.evaluate("document.fonts.ready")
        page.mouse.move(0, 0)
        return page.screenshot(full_page=True)


def main() -> None:
    arguments = PageArguments(
        model=Path(sys.argv[1]),
        port=0,
        prompt_slots=1,
        prompt_buckets=1,
        prompt_tokens=256,
        prompt_patches=512,
        max_new_tokens=256,
    )
    server = Server(arguments, make_app(make_house(arguments), arguments), websockets=True)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        picture = Image.open(io.BytesIO(shot(server.root))).convert("RGB")
    finally:
        server.stop()
        thread.join()
    smaller = picture.resize((960, round(picture.height * 960 / picture.width)), Image.Resampling.LANCZOS)
    smaller.quantize(96, dither=Image.Dither.NONE).save(Path(__file__).with_name("page.png"), optimize=True)


if __name__ == "__main__":
    main()
