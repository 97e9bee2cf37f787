"""A real headless Chromium, Debian's, driven by Playwright."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, expect, sync_playwright

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
SECONDS = 1000.0  # Playwright counts in milliseconds

expect.set_options(timeout=60 * SECONDS)

needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium")


@contextmanager
def browser_page(height: int = 1000) -> Iterator[Page]:
    """An empty page of 1,400 pixels' width."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1400, "height": height})
        page.set_default_timeout(60 * SECONDS)
        try:
            yield page
        finally:
            browser.close()


def picture(page: Page, name: str) -> None:
    """Keep a screenshot where COALA_PICTURES names a folder, for people and for the documentation."""
    folder = os.environ.get("COALA_PICTURES")
    if folder:
        page.wait_for_timeout(1.5 * SECONDS)  # pages slide and fade in
        page.screenshot(path=Path(folder) / f"{name}.png")


def form_field(page: Page, *labels: str) -> Locator:
    """What one types into, in Prefect's form, below the labels of sections and field."""
    scope = page.locator("form")
    for label in labels:
        scope = scope.locator(
            "xpath=.//div[contains(@class,'schema-form-property')]"
            f"[./div[contains(@class,'p-label__header')]//span[normalize-space()='{label} (Optional)']]"
        ).first
    return scope.locator("input, textarea").first
