"""Nothing that a student hands in runs in the browser of the person who marks, or of whoever reads the feedback."""

import os
import re
import secrets
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import grading_class
import hostile_pages
import nbformat
import pytest
from browser import require_browser
from playwright.sync_api import sync_playwright

ROOT = Path(__file__).parents[1]
GRADER = ROOT / ".venv-grading/bin"
NAME = grading_class.NAME
HOSTILE_NAME = "<img src=x onerror=alert(1)>{{7}}"
pytestmark = [
    pytest.mark.deep,
    pytest.mark.xdist_group("pages"),
    pytest.mark.skipif(sys.platform != "linux", reason="the cage needs Linux"),
]


def environment():
    return {**os.environ, "PATH": f"{GRADER}:{os.environ['PATH']}"}


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    """A graded course with a hostile hand-in of all payloads, and a right one."""
    folder = tmp_path_factory.mktemp("pages")
    (folder / "in").mkdir()
    hostile = grading_class.handed_in(words="\n\n".join(hostile_pages.MARKDOWN.values()))
    hostile.cells[2:2] = hostile_pages.cells()
    for number, cell in enumerate(hostile.cells):
        cell.id = f"c{number}"
    nbformat.write(hostile, folder / f"in/{HOSTILE_NAME}.ipynb")
    nbformat.write(grading_class.handed_in(words=r"Since $\sum_i x_i$ *commutes*."), folder / "in/right.ipynb")
    kept = ["--course", folder / "course", "--assignments", grading_class.write_assignment(folder / "assignments")]
    command = [GRADER / "python", "-m", "grading", NAME, folder / "in", *kept]
    done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder / "course"


@pytest.fixture(scope="module")
def server(course):
    """The address of the formgrader, and its token."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    token = secrets.token_hex(8)
    options = ["--no-browser", f"--ServerApp.port={port}", f"--IdentityProvider.token={token}"]
    command = [GRADER / "python", "-m", "grading.formgrader", course, *options]
    process = subprocess.Popen(command, cwd=ROOT, env=environment() | {"PYTHONPATH": str(ROOT)})
    address = f"http://127.0.0.1:{port}"
    for _ in range(300):
        assert process.poll() is None
        try:
            urllib.request.urlopen(f"{address}/login", timeout=5).close()
            break
        except OSError:
            time.sleep(0.2)
    yield address, token
    process.terminate()
    process.wait()


@pytest.fixture(scope="module")
def chromium():
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=require_browser(playwright), args=["--no-sandbox", "--disable-gpu"]
        )
        yield browser
        browser.close()


@pytest.fixture
def context(chromium):
    with chromium.new_context() as context:
        yield context


def opened(context, address):
    """A page, and the requests that it makes to any other place."""
    page, outside = context.new_page(), []
    here = address if address.startswith("file") else "/".join(address.split("/")[:3])
    # nbgrader's own style names its font beside the page; the policy refuses that.
    own = re.compile(rf"{re.escape(here)}|data:|file:///.*/fonts/glyphicons-halflings-regular\.\w+$")
    page.on("request", lambda r: None if own.match(r.url) else outside.append(r.url))
    page.on("websocket", lambda s: outside.append(s.url))
    page.on("dialog", lambda dialog: outside.append(dialog.message))
    page.goto(address, wait_until="load")
    return page, outside


def look_at(page, outside):
    """Nothing has run or asked when everything has been looked at, pointed at and pressed."""
    page.wait_for_timeout(1000)
    for link in page.query_selector_all("#notebook-container a"):
        assert re.match(r"(https?://|mailto:|#|$)", link.get_attribute("href") or ""), link.get_attribute("href")
    for element in page.query_selector_all("#notebook-container :is(img, summary, mtext, math)"):
        element.dispatch_event("mouseover")
        element.dispatch_event("error")
    page.keyboard.press("Tab")
    page.wait_for_timeout(500)
    assert outside == []
    assert page.evaluate("document.documentElement.dataset.ran") is None
    assert page.evaluate("getComputedStyle(document.body).display") == "block"
    assert page.locator("iframe, object, embed, base, form, video, audio, svg").count() == 0


def submission(context, server, student):
    """The address of the page on which a person marks this student's words."""
    address, token = server
    context.request.get(f"{address}/formgrader/gradebook?token={token}")
    found = context.request.get(f"{address}/formgrader/api/submitted_notebooks/{NAME}/{NAME}").json()
    (one,) = [each for each in found if each["student"].startswith(student)]
    return f"{address}/formgrader/submissions/{one['id']}/", one


def test_nothing_of_a_student_runs_where_a_person_marks(context, server):
    address, before = submission(context, server, "img-src")
    page, outside = opened(context, address)
    assert page.locator("#notebook-container .cell").count() > 60
    look_at(page, outside)
    assert submission(context, server, "img-src")[1]["score"] == before["score"]


def test_nothing_of_a_student_runs_in_feedback(context, course):
    (page,) = course.glob(f"results/{NAME}/feedback/img*.html")
    shown, outside = opened(context, page.as_uri())
    assert shown.locator("#notebook-container .cell").count() > 60
    look_at(shown, outside)
    assert "<script" not in page.read_text(encoding="utf-8")
    assert shown.locator("meta[http-equiv=Content-Security-Policy]").count() == 1


def test_the_policy_alone_stops_what_the_cleaning_would_miss(context, server, course):
    """The same payloads, put on the pages as they are."""
    address, _ = submission(context, server, "right")
    raw = "".join(
        hostile_pages.HTML[name] for name in ("image", "script", "svg", "frame-address", "style", "media", "toggle")
    )

    def with_payload(route):
        answer = route.fetch()
        route.fulfill(response=answer, body=answer.text().replace("<body>", f"<body>{raw}"))

    page = context.new_page()
    outside = []
    page.on("requestfinished", lambda r: outside.append(r.url) if "outside" in r.url else None)
    page.route(address, with_payload)
    page.goto(address)
    page.wait_for_timeout(1000)
    assert page.evaluate("document.documentElement.dataset.ran") is None
    assert outside == []
    text = (course / f"results/{NAME}/feedback/right.html").read_text(encoding="utf-8")
    (course / "raw.html").write_text(text.replace("<body>", f"<body>{raw}"), encoding="utf-8")
    page.goto((course / "raw.html").as_uri())
    page.wait_for_timeout(1000)
    assert page.evaluate("document.documentElement.dataset.ran") is None
    assert outside == []


def test_a_person_can_still_mark(context, server):
    """The policy leaves nbgrader's own scripts alone: a mark and a comment are kept, and names can be shown."""
    address, before = submission(context, server, "right")
    page, outside = opened(context, address)
    errors = []
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.locator("#q3_words").wait_for()
    page.fill("#q3_words", "25")
    page.fill("#q3_words-comment", "Well said")
    page.locator("body").click()
    page.wait_for_timeout(1000)
    page.locator(".glyphicon-eye-open").click()
    assert page.locator("a.name-shown").is_visible()
    assert page.locator("math").count() == 1
    assert submission(context, server, "right")[1]["score"] == before["score"] + 25
    assert (outside, errors) == ([], [])
    places = ("gradebook", f"gradebook/{NAME}", f"gradebook/{NAME}/{NAME}", "manage_assignments", "manage_students")
    for place in places:
        page.goto(f"{server[0]}/formgrader/{place}")
        page.get_by_text("Loading, please wait").wait_for(state="detached")
        assert page.evaluate("document.documentElement.dataset.ran") is None
    assert (outside, errors) == ([], [])


@pytest.mark.parametrize("service", ["contents", "kernels", "sessions", "kernelspecs", "terminals", "config/x"])
def test_the_server_offers_nothing_but_marking(context, server, service):
    address, token = server
    for answer in (
        context.request.get(f"{address}/api/{service}?token={token}"),
        context.request.post(f"{address}/api/{service}", headers={"Authorization": f"token {token}"}, data={}),
    ):
        assert answer.status in (403, 404, 405), (service, answer.status)
