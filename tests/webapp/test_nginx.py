"""The service behind a real nginx on loopback: prefix, addresses of clients, limits."""

import getpass
import grp
import http.client
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from string import Template

import pytest

from tests.browsing import chromium
from tests.conftest import draw
from tests.serving import free_port, running
from tests.waiting import started, wait_until
from tests.webapp.test_prefix import addresses_in
from tests.webapps import encoded

NGINX = shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")
PICTURE = encoded(draw("sky", 41))

pytestmark = pytest.mark.skipif(NGINX is None, reason="nginx is not installed; on Debian: apt-get install nginx-light")

_CONFIGURATION = Template("""
daemon off;
user $user;
worker_processes 1;
pid $folder/pid;
error_log $folder/error.log;
events {}
http {
  access_log off;
  client_body_temp_path $folder/body;
  proxy_temp_path $folder/proxy;
  fastcgi_temp_path $folder/fastcgi;
  uwsgi_temp_path $folder/uwsgi;
  scgi_temp_path $folder/scgi;
  server {
    listen 127.0.0.1:$port;
    client_max_body_size 1m;
    location / { return 404; }
    location /photos/ {
      proxy_pass $upstream;
      proxy_set_header Host $$http_host;
      proxy_set_header X-Forwarded-For $$remote_addr;
      proxy_set_header X-Forwarded-Proto $$scheme;
      proxy_set_header X-Forwarded-Host $$http_host;
      proxy_set_header X-Request-ID $$request_id;
      $more
    }
  }
}
""")


def own_user() -> str:
    """Return the user and the group of this process, as nginx's ``user`` takes them."""
    return f"{getpass.getuser()} {grp.getgrgid(os.getgid()).gr_name}"


@contextmanager
def nginx(folder: Path, upstream: str, more: str = "") -> Iterator[int]:
    """Run nginx in front of a service under /photos/; yield its port."""
    port = free_port()
    text = _CONFIGURATION.substitute(folder=folder, user=own_user(), port=port, upstream=upstream, more=more)
    (folder / "nginx.conf").write_text(text)
    command = [str(NGINX), "-p", str(folder), "-e", str(folder / "error.log"), "-c", str(folder / "nginx.conf")]
    subprocess.run([*command, "-t", "-q"], check=True)
    with started(command) as process:
        wait_until(lambda: status_of(port, "/nothing") == 404)
        yield port
        process.terminate()
        process.wait(timeout=30)


def asked(port: int, path: str, body: bytes | None = None, **headers: str) -> tuple[int, str, dict[str, str]]:
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
        connection.request("GET" if body is None else "POST", path, body, headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode(errors="replace"), dict(answer.getheaders())


def status_of(port: int, path: str) -> int:
    try:
        return asked(port, path)[0]
    except OSError:
        return 0


def check_pages(port: int, name: str) -> None:
    """Check that every address of the pages begins with /photos/ and answers through nginx."""
    found = set()
    for path in ("/photos/", f"/photos/model/{name}", "/photos/api/docs"):
        status, page, _ = asked(port, path)
        assert status == 200
        found |= addresses_in(page)
    assert {address for address in found if not address.startswith("/photos/")} == set()
    assert {address for address in found if status_of(port, address) != 200} == set()


def test_nginx_strips_the_prefix_names_it_and_asks_at_a_unix_socket(light_bundle: Path, tmp_path: Path) -> None:
    path = tmp_path / "canonistia.sock"
    command = ["--model", str(light_bundle), "--behind-proxy", "--trusted-host", "127.0.0.1", "--log", "json"]
    from tests.webapp.test_listening import serving_at

    with (
        serving_at(path, *command, "--rate", "3/minute"),
        nginx(tmp_path, f"http://unix:{path}:/", "proxy_set_header X-Forwarded-Prefix /photos;") as port,
    ):
        check_pages(port, light_bundle.name)
        own = {"X-Forwarded-For": "192.0.2.7"}  # a client's own word is not believed: nginx says who it is
        answers = [asked(port, "/photos/api/v1/classify", PICTURE, **own) for _ in range(4)]
        assert [status for status, _, _ in answers] == [200, 200, 200, 429]
        assert len({headers["X-Request-ID"] for _, _, headers in answers}) == 4
        status, page, headers = asked(port, "/photos//api//docs")
        assert (status, page) in ((200, page), (308, ""))  # nginx may merge the slashes itself
        assert status == 200 or headers["Location"] == f"http://127.0.0.1:{port}/photos/api/docs"


def test_nginx_leaves_the_prefix_in_the_path_and_its_limit_comes_first(light_bundle: Path, tmp_path: Path) -> None:
    options = ("--model", light_bundle, "--behind-proxy", "--prefix", "/photos", "--log", "json")
    with running(*options) as server, nginx(tmp_path, f"http://127.0.0.1:{server.port}") as port:
        check_pages(port, light_bundle.name)
        status, text, headers = asked(port, "/photos/api/v1/classify", PICTURE)
        assert status == 200
        assert asked(port, "/photos/api/v1/classify", bytes(2**20 + 1))[0] == 413
        (line,) = [line for line in map(json.loads, server.said()) if line.get("method") == "POST"]
        assert line["request_id"] == headers["X-Request-ID"]  # that of nginx
        assert json.loads(text)["model"] == light_bundle.name
        document = json.loads(asked(port, "/photos/api/v1/openapi.json")[1])
        assert document["servers"] == [{"url": "/photos"}]


def test_the_page_works_behind_nginx_in_a_real_browser(light_bundle: Path, tmp_path: Path) -> None:
    draw("sky", 8).save(tmp_path / "sky.png")
    options = ("--model", light_bundle, "--behind-proxy", "--collect", tmp_path / "collected")
    with (
        running(*options) as server,
        nginx(tmp_path, f"http://127.0.0.1:{server.port}/", "proxy_set_header X-Forwarded-Prefix /photos;") as port,
        chromium() as browser,
    ):
        page = browser.new_page()
        complaints: list[str] = []
        page.on("console", lambda message: complaints.append(message.text))
        page.goto(f"http://127.0.0.1:{port}/photos/")
        page.locator("#pictures").set_input_files(tmp_path / "sky.png")
        card = page.locator("article").first
        card.wait_for()
        card.locator("details.correction summary").click()
        card.locator("select[name=label]").select_option(index=1)
        card.locator("details.correction button").click()
        card.locator("details.correction form").wait_for(state="detached")
        assert page.url.endswith("/photos/")  # htmx did all of it in place
        page.get_by_role("link", name="API", exact=True).click()
        page.wait_for_url("**/photos/api/docs")
        assert complaints == []
    assert (tmp_path / "collected" / "corrections.csv").exists()


def test_what_nginx_says_in_place_of_the_service_becomes_a_sentence(light_bundle: Path, tmp_path: Path) -> None:
    draw("sky", 8, (600, 450)).save(tmp_path / "half.png")  # of what nginx takes: two of them are too much together
    draw("sky", 9, (1200, 900)).save(tmp_path / "large.png")
    options = ("--model", light_bundle, "--behind-proxy")
    with (
        running(*options) as server,
        nginx(tmp_path, f"http://127.0.0.1:{server.port}/", "proxy_set_header X-Forwarded-Prefix /photos;") as port,
        chromium() as browser,
    ):
        page = browser.new_page()
        page.goto(f"http://127.0.0.1:{port}/photos/")
        page.locator("#pictures").set_input_files([tmp_path / "half.png"] * 5)
        page.locator("article").nth(4).wait_for()
        assert page.locator("article.bad").count() == 0
        page.locator("#pictures").set_input_files(tmp_path / "large.png")
        page.locator("article.bad").wait_for()
        assert "The upload is too large." in page.locator("article.bad").inner_text()
        server.process.terminate()
        server.process.wait(timeout=30)
        page.locator("article summary").first.click()  # the maps
        page.get_by_text("The service does not answer now (status 502)").wait_for()
        page.get_by_role("link", name="About the model").click()
        page.get_by_role("alert").wait_for()
        assert "status 502" in page.get_by_role("alert").inner_text()
        assert page.locator("article").count() == 6  # nothing was lost
