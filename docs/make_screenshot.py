"""Make docs/web.jpg: the page of `faceage web` with the example portrait at 70.

pip install '.[web-test]' && faceage web & python docs/make_screenshot.py
"""

import shutil
from io import BytesIO
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

ROOT = Path(__file__).parent.parent


def main() -> None:
    with sync_playwright() as tools:
        chromium = tools.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        page = chromium.new_page(viewport={"width": 1200, "height": 960})
        page.goto("http://127.0.0.1:7860")
        page.set_input_files("input[type=file]", str(ROOT / "examples" / "astronaut.jpg"))
        page.wait_for_selector("text=predicted age", timeout=60_000)
        page.locator("input[type=range]").first.fill("70")
        page.wait_for_timeout(3000)
        page.evaluate("window.scrollTo(0, 0)")
        picture = Image.open(BytesIO(page.screenshot())).convert("RGB")
        picture.save(ROOT / "docs" / "web.jpg", quality=85)
        chromium.close()


if __name__ == "__main__":
    main()
