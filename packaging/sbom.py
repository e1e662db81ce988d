#!/usr/bin/env python3
"""Writes what a build is made of, and fails if a licence is not on the list.

    packaging/sbom.py FOLDER NAME [CARGO FLAG…]

FOLDER/NAME.cdx.json is a software bill of materials in CycloneDX 1.6: each package that a build
with these flags pulls on this platform, with its checksum, licence and dependencies.
FOLDER/NAME-licenses.txt has the licences' texts, which a copy of the program has to come with.
Neither has a time or a serial number: equal sources give equal bytes. Needs Python 3.9 and Cargo,
and nothing from PyPI.
"""

import json
import pathlib
import re
import subprocess
import sys
from urllib.parse import quote

ROOT = pathlib.Path(__file__).resolve().parent.parent

# One of these is enough for each package. All of them let the program be passed on under its own
# licence, if their text comes along. A commit that adds one says which package needs it, and why
# that is all right.
ALLOWED = {"MIT", "Apache-2.0", "BSD-3-Clause", "ISC", "Unicode-3.0"}

# What a package contains that is not its own: name, version (from the package's), address, and the
# folder of its licence. It is in the program although Cargo knows the package only as a part of a
# build script.
BUNDLED = {"luau0-src": ("luau", r"\+luau(\d+)$", "0.{}", "pkg:github/luau-lang/luau@{}", "luau")}

LICENCE_FILES = ("license", "licence", "copying", "notice", "unlicense", "lua_license")


def cargo(*args):
    run = subprocess.run(["cargo", *args], cwd=ROOT, check=True, text=True, stdout=subprocess.PIPE)
    return run.stdout


def tree(edges, flags):
    """The packages of a build, as (name, version)."""
    form = ["--locked", "--prefix", "none", "--format", "{p}"]
    lines = cargo("tree", *form, "-e", edges, *flags).splitlines()
    words = [line.split() for line in lines if line.strip()]
    return {(word[0], word[1].removeprefix("v")) for word in words}


def is_allowed(expression):
    """Whether an SPDX expression leaves us a choice that is on the list."""
    tokens = re.findall(r"[()]|[^\s()]+", expression)

    def alternatives():
        allowed = conjunction()
        while tokens and tokens[0] == "OR":
            tokens.pop(0)
            # Both sides are read, whatever the first one is.
            allowed = conjunction() or allowed
        return allowed

    def conjunction():
        allowed = licence()
        while tokens and tokens[0] == "AND":
            tokens.pop(0)
            allowed = licence() and allowed
        return allowed

    def licence():
        word = tokens.pop(0)
        if word == "(":
            allowed = alternatives()
            tokens.pop(0)
            return allowed
        if tokens and tokens[0] == "WITH":
            word = f"{word} WITH {tokens[1]}"
            del tokens[:2]
        return word in ALLOWED

    return alternatives() and not tokens


def key(package):
    return package["name"], package["version"]


def purl(package):
    return f"pkg:cargo/{package['name']}@{quote(package['version'], safe='')}"


def component(package, checksum, is_linked):
    is_linked = is_linked or package["name"] in BUNDLED
    made = {
        "type": "library",
        "bom-ref": purl(package),
        "name": package["name"],
        "version": package["version"],
        # A build script's package and a macro's run while the program is built and are not in it.
        "scope": "required" if is_linked else "excluded",
        "licenses": [{"expression": package["spdx"]}],
        "purl": purl(package),
    }
    if checksum:
        made["hashes"] = [{"alg": "SHA-256", "content": checksum}]
    if package["source"] is None:
        folder = pathlib.Path(package["manifest_path"]).parent.relative_to(ROOT)
        made["properties"] = [{"name": "mesophyll:copy", "value": str(folder)}]
    if package["repository"]:
        made["externalReferences"] = [{"type": "vcs", "url": package["repository"]}]
    if package["name"] in BUNDLED:
        name, pattern, version, address, _ = BUNDLED[package["name"]]
        version = version.format(re.search(pattern, package["version"])[1])
        inner = {"type": "library", "name": name, "version": version}
        address = address.format(version)
        made["components"] = [{**inner, "bom-ref": address, "purl": address}]
    return made


def bill_of_materials(root, others, linked, nodes):
    lock = (ROOT / "Cargo.lock").read_text(encoding="utf-8")
    pattern = r'name = "(.+)"\nversion = "(.+)"\nsource = ".+"\nchecksum = "(.+)"'
    checksums = {(name, version): sum for name, version, sum in re.findall(pattern, lock)}
    program = {
        "type": "application",
        "bom-ref": purl(root),
        "name": root["name"],
        "version": root["version"],
        "licenses": [{"expression": root["spdx"]}],
    }
    by_id = {package["id"]: package for package in [root, *others]}

    def part(one):
        return component(one, checksums.get(key(one)), key(one) in linked)

    def needs(id):
        return sorted(purl(by_id[other]) for other in nodes[id] if other in by_id)

    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": program},
        "components": [part(one) for one in others],
        "dependencies": [{"ref": purl(by_id[id]), "dependsOn": needs(id)} for id in by_id],
    }


def texts(package):
    """The texts of a package's licence, as far as it brings them."""
    folders = [pathlib.Path(package["manifest_path"]).parent]
    if package["name"] in BUNDLED:
        folders.append(folders[0] / BUNDLED[package["name"]][4])
    for file in sorted(file for folder in folders for file in folder.iterdir()):
        if file.is_file() and file.name.lower().startswith(LICENCE_FILES):
            yield file.name, file.read_text(encoding="utf-8", errors="replace").strip()


def licence_list(packages):
    """Each package with its licence, then each text once."""
    lines = ["These packages are in the program, or it is built with them.", ""]
    numbers = {}
    for package in packages:
        names = []
        for name, text in texts(package):
            names.append(f"{name}: text {numbers.setdefault(text, len(numbers) + 1)}")
        brings = ", ".join(names) or "brings no text of its own"
        lines.append(f"{package['name']} {package['version']}: {package['spdx']} ({brings})")
    for text, number in numbers.items():
        lines += ["", "=" * 80, f"text {number}", "", text]
    return "\n".join(lines) + "\n"


def main():
    folder, name, flags = pathlib.Path(sys.argv[1]), sys.argv[2], sys.argv[3:]
    wanted = tree("normal,build", flags)
    linked = tree("normal,no-proc-macro", flags)
    metadata = json.loads(cargo("metadata", "--locked", "--format-version", "1", *flags))
    packages = [package for package in metadata["packages"] if key(package) in wanted]
    for package in packages:
        # The slash is how Cargo once wrote OR.
        package["spdx"] = (package["license"] or "NONE").replace("/", " OR ")
    refused = [package for package in packages if not is_allowed(package["spdx"])]
    for package in refused:
        words = f"{package['name']} {package['version']}: {package['spdx']}"
        print(f"the licence is not on the list of packaging/sbom.py: {words}", file=sys.stderr)

    root = next(one for one in packages if one["id"] == metadata["resolve"]["root"])
    others = sorted((one for one in packages if one is not root), key=key)
    nodes = {node["id"]: node["dependencies"] for node in metadata["resolve"]["nodes"]}
    bill = bill_of_materials(root, others, linked, nodes)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.cdx.json").write_text(json.dumps(bill, indent=1) + "\n", encoding="utf-8")
    (folder / f"{name}-licenses.txt").write_text(licence_list(others), encoding="utf-8")
    count = sum(key(one) in linked for one in others)
    print(f"{name}: {len(others)} packages of others, {count} linked; {folder}/{name}.cdx.json")
    return 1 if refused else 0


if __name__ == "__main__":
    sys.exit(main())
