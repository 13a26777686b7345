"""What the documents name exists: pages, pictures, files in the repository, extras for `pip install`."""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENTS = [
    path
    for pattern in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/**/*.md", "web/docs/*.md")
    for path in sorted(ROOT.glob(pattern))
]
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]

FENCE = re.compile(r"^(```+|~~~+).*?^\1\s*$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(\s*<?([^)\s>]+)>?[^)]*\)|(?:src|href)=\"([^\"]+)\"|^\[[^\]]+\]:\s*(\S+)", re.MULTILINE)
HEADING = re.compile(r"^#+\s+(.+?)\s*$", re.MULTILINE)
FOLDERS = "tests|scripts|experiments|framepack_core|nodes|web"
FILE = re.compile(rf"(?<![\w/.-])(?:{FOLDERS})/[\w/.-]*\w\.(?:py|js|json|safetensors|md)\b")
MODULE = re.compile(r"python3? -m ((?:scripts|experiments|framepack_core)[\w.]*)")
INSTALL = re.compile(r"pip install[^\n`]*?\.\[([\w,\s-]+)\]")


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def links(text: str) -> Iterator[str]:
    """The targets of links and pictures outside code."""
    for match in LINK.finditer(FENCE.sub("", text)):
        yield next(filter(None, match.groups()))


def anchors(text: str) -> set[str]:
    """What a link may have after its #, as GitHub makes it from headings."""
    headings = (re.sub(r"[^\w\s-]", "", heading.lower()) for heading in HEADING.findall(FENCE.sub("", text)))
    return {heading.strip().replace(" ", "-") for heading in headings}


def broken(document: Path) -> Iterator[str]:
    for target in links(document.read_text(encoding="utf-8")):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (document.parent / path).resolve() if path else document
        if not file.exists() or (anchor and anchor not in anchors(file.read_text(encoding="utf-8"))):
            yield target


def test_there_are_documents_with_links():
    assert {"README.md", "docs/training.md", "web/docs/FramePack_Sampler.md"} <= set(map(name, DOCUMENTS))
    assert sum(len(list(links(path.read_text(encoding="utf-8")))) for path in DOCUMENTS) > 20


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_links_and_pictures_lead_somewhere(document):
    assert list(broken(document)) == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_files_that_are_named_exist(document):
    text = document.read_text(encoding="utf-8")

    assert [file for file in sorted(set(FILE.findall(text))) if not (ROOT / file).exists()] == []
    modules = {ROOT / module.replace(".", "/") for module in MODULE.findall(text)}
    assert [module for module in modules if not (module.with_suffix(".py").exists() or (module / "__main__.py").exists())] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_extras_that_are_installed_exist(document):
    named = [extra.strip() for found in INSTALL.findall(document.read_text(encoding="utf-8")) for extra in found.split(",")]

    assert set(named) <= EXTRAS.keys()


def test_how_well_the_demo_does_is_what_was_measured():
    line = r"^\| (inverted|forward|endpoints)%s \| (\d+%%)"
    help_page, measured = (
        (ROOT / page).read_text(encoding="utf-8") for page in ("web/docs/FramePack_LoadDemo.md", "docs/EXPERIMENTS.md")
    )
    as_the_template = measured.split("\nAs the example workflow")[1].split("\nBy ")[0]

    told = dict(re.findall(line % "", help_page, re.MULTILINE))
    assert len(told) == 3 and told == dict(re.findall(line % r", \w+ \| 40", as_the_template, re.MULTILINE))


def test_a_broken_link_is_found(tmp_path):
    document = tmp_path / "page.md"
    document.write_text(
        "# One page\n[there](page.md#one-page) [gone](gone.md) [no heading](#two) ![picture](no.png) [web](https://example.org)\n"
        "```\n[code](ignored.md)\n```\n"
    )

    assert list(broken(document)) == ["gone.md", "#two", "no.png"]


def test_extras_are_found_in_a_line():
    assert INSTALL.findall('pip install -e ".[train]" and python3 -m pip install ".[test, gguf]"') == ["train", "test, gguf"]
