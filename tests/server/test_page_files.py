"""The page's files: served whole, with their types and headers, and nothing besides them."""

import re
from importlib.resources import files

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from thinktalk.server import page, problems

WEB = files("thinktalk") / "web"


@pytest.fixture(scope="module")
def browser():
    app = FastAPI()
    problems.install(app)
    app.include_router(page.router)
    with TestClient(app) as client:
        yield client


def test_page_and_all_that_it_names(browser):
    html = browser.get("/")
    assert html.status_code == 200 and html.headers["content-type"] == "text/html; charset=utf-8"
    for name in re.findall(r'(?:src|href)="(web/[^"]+)"', html.text):
        assert browser.get(f"/{name}").status_code == 200, name
    for module in WEB.iterdir():
        if not module.name.endswith(".js"):
            continue
        answer = browser.get(f"/web/{module.name}")
        assert answer.headers["content-type"] == "text/javascript; charset=utf-8"
        assert answer.content == module.read_bytes()
        for name in re.findall(r'"(?:\./)?((?:worklets/)?\w+\.js)"', answer.text):
            assert browser.get(f"/web/{name}").status_code == 200, (module.name, name)


def test_nothing_is_loaded_from_elsewhere(browser):
    for name in ["index.html", "style.css", "app.js", "i18n.js"]:
        text = (WEB / name).read_text()
        assert not re.search(r"""(?:src|href|url)\s*[=(]\s*["']?https?://""", text), name
    policy = browser.get("/").headers["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy
    html = (WEB / "index.html").read_text()
    assert not re.search(r"\sstyle=|\son\w+=|<script>", html), (
        "the policy forbids what stands in line"
    )


@pytest.mark.parametrize(
    "path",
    [
        "/web/../server/page.py", "/web/%2e%2e/server/page.py", "/web/..%2fserver%2fpage.py", "/web//etc/passwd",
        "/web/%2fetc%2fpasswd", "/web/worklets/../../cli/main.py", "/web/", "/web/worklets", "/web/app.js/",
        "/web/app.js%00", "/web/C:%5cboot.ini",
    ],
)  # fmt: skip
def test_only_its_own_files(browser, path):
    answer = browser.get(path)
    assert answer.status_code == 404
    assert answer.json()["error"]["type"] == "not_found_error"


def test_known_versions_are_not_sent_again(browser):
    first = browser.get("/web/app.js")
    tag = first.headers["etag"]
    for known in (tag, f'"other", W/{tag}'):
        again = browser.get("/web/app.js", headers={"If-None-Match": known})
        assert again.status_code == 304 and not again.content and again.headers["etag"] == tag
    assert browser.get("/web/app.js", headers={"If-None-Match": '"other"'}).status_code == 200
    assert browser.head("/").status_code == 200


def test_every_word_is_in_both_languages():
    text = (WEB / "i18n.js").read_text()
    english, chinese = (
        text[text.index("  en: {") : text.index("  zh: {")],
        text[text.index("  zh: {") :],
    )
    keys = [set(re.findall(r"(\w+): \"", part)) for part in (english, chinese)]
    assert keys[0] == keys[1]
    asked = set(re.findall(r'data-i18n(?:-\w+)?="(\w+)"', (WEB / "index.html").read_text()))
    assert asked <= keys[0], asked - keys[0]
    holes = [re.findall(r"(\w+): \"([^\"]*\{\d\}[^\"]*)\"", part) for part in (english, chinese)]
    assert {k for k, _ in holes[0]} == {k for k, _ in holes[1]}
