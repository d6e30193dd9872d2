"""The blocks of README and docs, each run by itself, and their links. Shell lines:
test_shell_lines.py."""

from __future__ import annotations

import doctest
import http.server
import importlib.util
import re
import runpy
import threading
from pathlib import Path
from xml.etree import ElementTree

import pytest
from mxopt_server import cli
from pasted import PAGES, ROOT, alone, blocks, of_a_job

# The tutorials and docs/from-*.md have whole programs, with what they print: test_pages.py.
ELSEWHERE = ("from-", "tutorial-")
BLOCKS = [
    pytest.param(block, id=f"{page.name}-{number}")
    for page in PAGES
    if not page.name.startswith(ELSEWHERE)
    for number, (_, block) in enumerate(blocks(page, "python"), 1)
    if "import ray" not in block  # on a cluster, which tests/server/test_ray.py has
]


@pytest.mark.parametrize("block", BLOCKS)
def test_a_block_runs_as_pasted_into_a_fresh_file(block: str, tmp_path: Path) -> None:
    if "import torch" in block and importlib.util.find_spec("torch") is None:
        pytest.skip("PyTorch is not installed")
    program = tmp_path / "pasted.py"
    program.write_text(block)
    of_job = '"dist_sync"' in re.sub(r"#.*", "", block)
    if not of_job or "DMLC_ROLE" in block:  # it asks whether it is in a job
        alone(program)
    if of_job:
        of_a_job(program)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_no_code_escapes_these_tests(page: Path) -> None:
    """Every block says what it is, and is fenced."""
    kinds = re.findall(r"^```(.*)$", page.read_text(), re.MULTILINE)
    assert set(kinds[::2]) <= {"python", "pycon", "sh", "text", "{toctree}"}
    assert set(kinds[1::2]) <= {""}
    prose = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    assert re.findall(r"^\n {4}.*", prose, re.MULTILINE) == []


SESSIONS = list((ROOT / "docs").glob("*.md"))


@pytest.mark.parametrize("page", SESSIONS, ids=lambda p: p.name)
def test_sessions_go_as_shown(page: Path) -> None:
    assert doctest.testfile(str(page), module_relative=False).failed == 0


def anchors(page: Path) -> set[str]:
    """What a link into a page may name: its headings, as GitHub and the site write them."""
    prose = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.*)$", prose, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


PATTERNS = ("CHANGELOG.md", "docs/api/*.md", "scripts/**/*.md", "tests/**/*.md")
OTHERS = [page for pattern in PATTERNS for page in sorted(ROOT.glob(pattern))]


@pytest.mark.parametrize("page", [*PAGES, *OTHERS], ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target, anchor in re.findall(r"\]\(([^)#\s]*)(?:#([^)]*))?\)", page.read_text()):
        if not target.startswith(("http://", "https://")):
            place = page.parent / target if target else page
            assert place.exists(), f"{page.name} links to {target}"
            assert not anchor or anchor in anchors(place), f"{page.name} links to {target}#{anchor}"


class Answers(http.server.BaseHTTPRequestHandler):
    """Answers by the number in the path."""

    def do_GET(self) -> None:
        self.send_response(int(self.path[1:]))
        self.end_headers()

    def log_message(self, *args: object) -> None:
        pass


def test_links_that_lead_out_are_errors_where_they_are_gone_and_not_where_nobody_answers() -> None:
    script = runpy.run_path(str(ROOT / "scripts" / "links"))
    assert "https://doi.org/10.1016/0041-5553(64)90137-5" in script["links"]()
    with http.server.HTTPServer(("127.0.0.1", 0), Answers) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        told = [script["ask"](f"http://127.0.0.1:{server.server_port}/{code}") for code in (200, 404, 410, 403)]
        server.shutdown()
    told.append(script["ask"](f"http://127.0.0.1:{server.server_port}/200"))
    assert [t.partition(":")[0] for t in told] == ["", "gone", "gone", "not checked", "not checked"]


def test_the_picture_of_a_run_is_one_and_asks_nobody_for_anything() -> None:
    picture = (ROOT / "docs" / "run.svg").read_text()
    text = "".join(ElementTree.fromstring(picture).itertext()).replace("\xa0", " ")
    for shown in ("$ mxopt-launch -n 2 -s 2", "$ mxopt-server status", "worker 1 of 2 ends", "pending"):
        assert shown in text
    assert set(re.findall(r"https?://[^\"' )]*", picture)) == {"http://www.w3.org/2000/svg"}


def test_the_page_of_commands_has_all_of_them() -> None:
    shown = re.findall(r"^\.\. help:: (.*)$", (ROOT / "docs/api/commands.md").read_text(), re.MULTILINE)
    _, _, section = (ROOT / "pyproject.toml").read_text().partition("[project.scripts]")
    programs = re.findall(r"^([\w-]+) = ", section.partition("\n[")[0], re.MULTILINE)
    more = [f"mxopt-server {command}" for command in cli.parser().commands] + ["mxopt info", "mxopt states"]
    assert sorted(shown) == sorted(programs + more)


def test_messages_of_the_troubleshooting_page_are_those_of_the_code() -> None:
    files = [file for folder in ("mxopt", "server") for file in (ROOT / folder).rglob("*.py")]
    source = "".join(re.sub(r'"\s*\n\s*f?"', "", file.read_text()) for file in files)
    messages = re.findall(r"^\| `([^`]+)` \|", (ROOT / "docs" / "troubleshooting.md").read_text(), re.MULTILINE)
    assert len(messages) >= 20
    pieces = [piece.strip() for message in messages for piece in message.split("…") if piece.strip(" ,")]
    assert [piece for piece in pieces if piece not in source] == []
