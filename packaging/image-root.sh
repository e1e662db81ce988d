#!/usr/bin/env bash
# image-root.sh PROGRAM FOLDER: makes FOLDER the root of a container image that has the program, the
# shared libraries that it names, and what they read. There is no shell and nothing else to run in
# it. Needs root, for the owner of the store's folder. packaging/Dockerfile and packaging/try.sh
# both use it.
set -euo pipefail
cd "$(dirname "$0")/.."

program=$1
root=$2

rm -rf "$root"
install -D -m 0755 "$program" "$root/usr/bin/mesophyll"
# Lines such as: libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x…), and the loader's with a path
# alone.
ldd "$program" | grep -oE '/[^ ]+' | while read -r library; do
    install -D -m 0755 "$library" "$root$library"
done

for package in libc6 libgcc-s1 libstdc++6; do
    terms=/usr/share/doc/$package/copyright
    [ ! -e "$terms" ] || install -D -m 0644 "$terms" "$root$terms"
done

# The user of the image, for whatever shows a name instead of a number.
install -d "$root/etc"
echo 'mesophyll:x:65532:65532::/var/lib/mesophyll:/nonexistent' >"$root/etc/passwd"
echo 'mesophyll:x:65532:' >"$root/etc/group"
# How a host's name in --store is found.
echo 'hosts: files dns' >"$root/etc/nsswitch.conf"

install -d "$root/proc"
install -d -m 1777 "$root/tmp"
install -d -m 0700 -o 65532 -g 65532 "$root/var/lib/mesophyll"

doc=$root/usr/share/doc/mesophyll
install -d "$doc"
install -m 0644 LICENSE LICENSE-APACHE LICENSE-MIT "$doc"
python3 packaging/sbom.py "$doc" third-party --all-features >/dev/null
