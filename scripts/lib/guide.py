"""Hooks of mkdocs: pages that stand beside docs/ are part of the guide, and links between them are kept.

A link is written as it works in the repository. Here it becomes one between pages; a link to a file
that is there, but no page (source, an example), becomes its text; mkdocs complains of one to nothing.
"""

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
BESIDE = ("CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "bench/README.md", "packaging/README.md")
LINK = re.compile(r"\[([^\]\n]*)\]\((?![a-z]+:|#)([^)#\s]+)(#[^)\s]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    for name in BESIDE:
        files.append(File.generated(config, name, abs_src_path=str(ROOT / name)))
    return files


def on_page_markdown(markdown: str, *, page: Page, files: Files, **_: object) -> str:
    here = posixpath.dirname(page.file.src_uri)
    # Where the source stands in the repository.
    place = here if page.file.src_uri in BESIDE else posixpath.join("docs", here)

    def link(match: re.Match[str]) -> str:
        text, target, anchor = match[1], match[2], match[3] or ""
        path = posixpath.normpath(posixpath.join(place, target))
        uri = path.removeprefix("docs/") if path.startswith("docs/") else path
        if files.get_file_from_path(uri) is not None and (path.startswith("docs/") or path in BESIDE):
            return f"[{text}]({posixpath.relpath(uri, here or '.')}{anchor})"
        return text if (ROOT / path).exists() else match[0]

    return LINK.sub(link, markdown)
