"""Licences of single files, as packages state them: Debian's copyright files, and GCompris's `README` beside pictures.

Debian's machine-readable copyright format 1.0 has paragraphs with `Files:` patterns and a `License:`; the last
paragraph that matches a file stands.
"""

import fnmatch
import re
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from onethinker_jax.data_pipeline.photos.library import Library

UNKNOWN = "not stated"


@dataclass
class Licences:
    """Licences by patterns of file names; the last pattern that matches a path stands, `default` where none does."""

    default: str = UNKNOWN
    patterns: list[tuple[str, str]] = field(default_factory=list)

    def of(self, path: str) -> str:
        """Of a file; packages move files to other folders, so a pattern without wildcards matches by its name alone."""
        name = PurePosixPath(path).name
        for pattern, licence in reversed(self.patterns):
            if pattern != "*" and (fnmatch.fnmatchcase(path, pattern) or PurePosixPath(pattern).name == name):
                return licence
        return dict(self.patterns).get("*", self.default)


def debian_licences(text: str, default: str) -> Licences:
    """Those of a package's `copyright` file."""
    licences = Licences(default)
    for paragraph in re.split(r"\n\s*\n", text):
        fields = {key.lower(): value for key, value in _fields(paragraph)}
        if "files" in fields and "license" in fields:
            short = fields["license"].split("\n")[0].strip() or default
            licences.patterns += [(pattern, short) for pattern in fields["files"].split()]
    return licences


def _fields(paragraph: str) -> list[tuple[str, str]]:
    return re.findall(r"^([A-Za-z-]+):[ \t]*(.*(?:\n[ \t].*)*)", paragraph, re.MULTILINE)


def readme_licences(text: str, default: str) -> Licences:
    """Those of a `README` of GCompris: paragraphs of `Copyright:`, `License:` and `Files:` with a name a line."""
    licences = Licences(default)
    for paragraph in re.split(r"\n\s*\n", text):
        licence = re.search(r"^License:\s*(.+)$", paragraph, re.MULTILINE)
        files = re.search(r"^Files:(.*)\Z", paragraph, re.MULTILINE | re.DOTALL)
        if licence and files:
            licences.patterns += [(name, _usual(licence[1])) for name in re.findall(r"\S+\.\w+", files[1])]
    return licences


def _usual(licence: str) -> str:
    """A licence in its usual spelling: "CC-BY-SA 4.0", "GPLv2+" and "Public domain" have another one as well."""
    dashed = re.sub(r"GPLv?-?(\d)", r"GPL-\1", re.sub(r"\s+(?=\d)", "-", licence.strip()))
    return "public domain" if dashed.lower().replace("-", " ") == "public domain" else dashed


def licences_page(library: Library, sources: dict[str, str]) -> str:
    """The text of `LICENCES.md`: of each source what it is, and its files by licence.

    `sources` says of each source in a few words what it is and which version was read.
    """
    lines = [
        "# Licences of this library's files",
        "",
        "As the packages state them. Whoever passes files on keeps to them; `library.json` names each file's.",
    ]
    for source, what in sources.items():
        of_source: dict[str, list[str]] = {}
        for item in library.items:
            if item.source == source:
                of_source.setdefault(item.licence, []).append(item.path)
        lines += ["", f"## {source}", "", what, "", "| licence | files | such as |", "|---|---|---|"]
        lines += [
            f"| {licence} | {len(paths)} | `{paths[0]}` |" for licence, paths in sorted(of_source.items())
        ]
    return "\n".join(lines) + "\n"
