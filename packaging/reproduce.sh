#!/usr/bin/env bash
# reproduce.sh ARCHIVE [CARGO FLAG…]: builds the archive of vendor.sh in two folders, with an empty
# Cargo home and the network off, and fails unless both give the same bytes. Without flags it builds
# the minimal program.
set -euo pipefail

archive=$(realpath "$1")
shift
[ $# -gt 0 ] || set -- --no-default-features
work=$(dirname "$archive")/reproduce
# Of different lengths, as a path that is left in the program would move what follows it.
folders=("$work/a" "$work/another/folder")

fail() {
    echo "reproduce: $*" >&2
    exit 1
}

# A namespace of its own has no network at all; where the system refuses one, --frozen alone has to
# do.
offline=()
for try in "unshare -n" "unshare -rn"; do
    if $try true 2>/dev/null; then
        read -ra offline <<<"$try"
        break
    fi
done
[ ${#offline[@]} -gt 0 ] ||
    echo "reproduce: no unshare here, so only Cargo is kept from the network" >&2

rm -rf "$work"
for folder in "${folders[@]}"; do
    mkdir -p "$folder"
    tar -C "$folder" --strip-components=1 -xf "$archive"
    (cd "$folder" && CARGO_HOME="$folder/cargo-home" CARGO_TARGET_DIR=target \
        "${offline[@]}" make --no-print-directory ship SHIP_FLAGS="--offline --frozen $*")
done

first=${folders[0]}/target/dist/build/release/mesophyll
second=${folders[1]}/target/dist/build/release/mesophyll
cmp "$first" "$second" || fail "two folders gave two programs"
for path in "$work" "$HOME/"; do
    ! grep -qF "$path" "$first" || fail "the program contains the path $path"
done
said=$("$first" --version)
commit=$(cat "${folders[0]}/COMMIT")
[[ $said == *"($commit; "* ]] || fail "another commit than the archive's: $said"
echo "$said"
sum=$(sha256sum "$first")
echo "the same $(stat -c %s "$first") bytes from two folders: sha256 ${sum%% *}"
