#!/usr/bin/env bash
# vendor.sh FOLDER: writes mesophyll-VERSION.tar.gz there, the sources of the last commit with all
# their dependencies, and prints its path. What is in it builds with the network off.
#
# Equal commits give equal bytes: entries are sorted, belong to root, and have the commit's time.
set -euo pipefail
cd "$(dirname "$0")/.."

out=$1
commit=$(git rev-parse --short=12 HEAD)
time=$(git log -1 --format=%ct)
version=$(git show HEAD:Cargo.toml | sed -n 's/^version = "\(.*\)"$/\1/p' | head -n 1)
name=mesophyll-$version

mkdir -p "$out"
rm -rf "${out:?}/$name"
git archive --prefix="$name/" HEAD | tar -x -C "$out"
[ -z "$(git status --porcelain --untracked-files=no)" ] ||
    echo "vendor: what is not committed is not in the archive" >&2
# An archive has no history: build.rs reads the commit from here, deb.sh the time.
echo "$commit" >"$out/$name/COMMIT"
echo "$time" >"$out/$name/COMMIT_TIME"
# Not vendor/: that folder is the project's own.
mkdir "$out/$name/.cargo"
# It prints the configuration that makes Cargo take them from there; --quiet would leave that out,
# too.
(cd "$out/$name" &&
    cargo vendor --locked --versioned-dirs third-party >.cargo/config.toml 2>../vendor.log) ||
    { cat "$out/vendor.log" >&2; exit 1; }

tar -C "$out" --sort=name --mtime="@$time" --owner=0 --group=0 --numeric-owner \
    --mode=go=rX,u+rw,a-st --format=gnu -cf - "$name" | gzip -n -9 >"$out/$name.tar.gz.new"
mv "$out/$name.tar.gz.new" "$out/$name.tar.gz"
rm -rf "${out:?}/$name" "$out/vendor.log"
echo "$out/$name.tar.gz"
