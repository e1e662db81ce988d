#!/usr/bin/env python3
"""Counts the product's lines of Rust by folder: without comments, blank lines and tests.

    packaging/lines.py [--minimal] [--write docs/reading-guide.md] [--root DIR] [FOLDER ...]

The copy that it counts is formatted at 120 columns, so that a narrower source is not a longer one.
--minimal leaves out what only the features luau, postgres and worker compile. --write fills in the figures
of the tables in a document: the last two cells of each row that begins with a folder of src/.
"""

import argparse
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

PUB = r"(pub(\([^)]*\))?\s+)?"
ITEM = re.compile(PUB + r"(const\s+)?(fn|mod|impl|struct|enum|trait|macro_rules)\b")
STATEMENT = re.compile(PUB + r"(use|const|static|type|let|return)\b")
LITERAL = re.compile(
    r"""(?P<comment>//[^\n]*|/\*)"""
    r"""|b?r(?P<hashes>\#*)".*?"(?P=hashes)|b?"(\\.|[^"\\])*"|b?'(\\.[^']*|[^'\\])'""",
    re.DOTALL,
)


def without_text(text):
    """Blanks comments, and what stands in literals but for its line ends."""
    out, at = [], 0
    while found := LITERAL.search(text, at):
        start, end = found.span()
        comment = found["comment"]
        if comment == "/*":
            depth, end = 1, start + 2
            while depth:
                opening, closing = text.find("/*", end), text.find("*/", end)
                nested = 0 <= opening < closing
                depth, end = (depth + 1, opening + 2) if nested else (depth - 1, closing + 2)
        blank = " " if comment else "x"
        out += [text[at:start], re.sub(r"[^\n]", blank, text[start:end])]
        at = end
    return "".join(out) + text[at:]


def end_of_item(code, at):
    """Where the item, field or arm ends that begins behind an attribute."""
    while found := re.compile(r"\s*#\[").match(code, at):
        at = code.index("]", found.end()) + 1
    at += len(code[at:]) - len(code[at:].lstrip())
    is_item, is_statement = ITEM.match(code, at), STATEMENT.match(code, at)
    depth = 0
    while at < len(code):
        char = code[at]
        if char in "([{":
            depth += 1
        elif char in ")]}":
            depth -= 1
            if depth < 0:
                return at
            if char == "}" and depth == 0 and not is_statement:
                return at + (code[at + 1 : at + 2] in (",", ";")) + 1
        elif depth == 0 and (char == ";" or char == "," and not is_item and not is_statement):
            return at + 1
        at += 1
    return at


def without_items(code, cfg, path, skipped):
    """Blanks the items under an attribute, and notes the files of the modules among them."""
    while found := cfg.search(code):
        end = end_of_item(code, found.end())
        item = code[found.start() : end]
        if module := re.search(r"\bmod\s+(\w+)\s*;\s*$", item):
            is_root = path.name in ("mod.rs", "lib.rs", "main.rs")
            folder = path.parent if is_root else path.with_suffix("")
            skipped.add(folder / module[1])
        code = code[: found.start()] + re.sub(r"[^\n]", " ", item) + code[end:]
    return code


def count(root, minimal):
    """The lines of each file of src/, by its path below src/."""
    features = r"(feature = x+|any\(test, feature = x+\))" if minimal else r"not\(feature = x+\)"
    cfgs = [re.compile(rf"#\[cfg\({what}\)\]") for what in ("test", features)]
    with tempfile.TemporaryDirectory() as copy:
        src = Path(copy) / "src"
        shutil.copytree(root / "src", src)
        config = "max_width=120,use_small_heuristics=Max"
        rustfmt = ["rustfmt", "--edition", "2024", "--config", config]
        subprocess.run([*rustfmt, src / "lib.rs", src / "main.rs"], check=True)
        lines, skipped = {}, set()
        for path in sorted(src.rglob("*.rs")):
            code = without_text(path.read_text())
            for cfg in cfgs:
                code = without_items(code, cfg, path, skipped)
            lines[path] = sum(1 for line in code.splitlines() if line.strip())
        tests = {path for path in lines if skipped & {path.with_suffix(""), *path.parents}}
        return {path.relative_to(src): lines[path] for path in lines if path not in tests}


def of_folder(lines, folder):
    """The lines below a folder, or of one file."""
    folder = Path(folder)
    return sum(number for path, number in lines.items() if path == folder or folder in path.parents)


def write(document, root):
    """Fills in the figures of the rows of a document that begin with a folder."""
    counts = [count(root, minimal) for minimal in (False, True)]

    def filled(row):
        is_there = (root / "src" / row["folder"]).exists()
        cells = [f"{of_folder(lines, row['folder']):,}" if is_there else "–" for lines in counts]
        return f"{row[1]}| {' | '.join(cells)} |"

    folder = r"^(\|[^|\n]*`src/(?P<folder>[^`]*)`[^|\n]*\|.*)"
    row = re.compile(folder + r"\|[^|\n]*\|[^|\n]*\|$", re.MULTILINE)
    document.write_text(row.sub(filled, document.read_text()))


def main():
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument("--minimal", action="store_true")
    parser.add_argument("--write", type=Path)
    parser.add_argument("--root", type=Path, default=Path(__file__).resolve().parent.parent)
    parser.add_argument("folders", nargs="*")
    args = parser.parse_args()
    if args.write:
        return write(args.write, args.root)
    lines = count(args.root, args.minimal)
    for folder in args.folders or sorted({path.parts[0] for path in lines}):
        print(f"{of_folder(lines, folder):7,} {folder}")
    if not args.folders:
        print(f"{sum(lines.values()):7,} in all")


if __name__ == "__main__":
    main()
