"""Links in the documentation, the tree on the architecture page, the version in the citation."""

import re
from pathlib import Path

import pytest

import faceage
from faceage import hub

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), ROOT / "weights" / "README.md"])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_relative_links_lead_to_existing_files(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    targets = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r"^\[\w+\]: (\S+)", text, re.M)
    files = [target.partition("#")[0] for target in targets if "://" not in target]
    assert [file for file in files if file and not (page.parent / file).exists()] == []


def test_link_references_of_the_readme_are_defined() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    defined = set(re.findall(r"^\[(\w+)\]: ", text, re.M))
    assert set(re.findall(r"\]\[(\w+)\]", text)) == defined


def test_architecture_page_lists_every_package_and_module() -> None:
    tree = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8").split("```")[1]
    listed = set(re.findall(r"^  (\w+/|\w+\.py) ", tree, re.M))
    packages = {f"{path.parent.name}/" for path in (ROOT / "faceage").glob("*/__init__.py")}
    modules = {path.name for path in (ROOT / "faceage").glob("[a-z]*.py")}
    assert listed == packages | modules


def test_citation_names_the_version_of_the_package() -> None:
    text = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert re.findall(r"^version: (.*)$", text, re.M) == [faceage.__version__]


def test_licence_page_states_the_licence_of_every_model() -> None:
    text = (ROOT / "docs" / "licences.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `([\w-]+)` \| ([^|]+) \|", text, re.M))
    assert set(rows) >= set(hub.REGISTRY)
    for name, entry in hub.REGISTRY.items():
        terms = entry.licence.partition(" (see the model card)")[0]
        assert terms in rows[name], name
