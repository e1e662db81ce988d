#!/usr/bin/env bash
# deb.sh PROGRAM FOLDER: makes a Debian package of the program in FOLDER and prints its path. Needs
# dpkg-dev and python3. The program is run for its manual page and completions, so it must be one
# for this machine.
set -euo pipefail
cd "$(dirname "$0")/.."
umask 022

program=$1
out=$2
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml | head -n 1)
description=$(sed -n 's/^description = "\(.*\)"$/\1/p' Cargo.toml)
architecture=$(dpkg --print-architecture)
# Equal programs give equal packages: the time is the commit's, and everything belongs to root.
SOURCE_DATE_EPOCH=$(cat COMMIT_TIME 2>/dev/null || git log -1 --format=%ct)
export SOURCE_DATE_EPOCH

work=$out/deb
root=$work/root
share=$root/usr/share
doc=$share/doc/mesophyll
rm -rf "$work"
install -D -m 0755 "$program" "$root/usr/bin/mesophyll"
install -d "$root/DEBIAN" "$root/usr/lib/systemd/system" "$doc/docs" "$doc/examples" \
    "$share/man/man1" "$share/zsh/vendor-completions" "$share/fish/vendor_completions.d" \
    "$share/bash-completion/completions"

for unit in mesophyll mesophyll-worker-host; do
    sed 's|/usr/local/bin/|/usr/bin/|' "packaging/$unit.service" \
        >"$root/usr/lib/systemd/system/$unit.service"
done
install -D -m 0600 packaging/environment "$root/etc/mesophyll/environment"
echo /etc/mesophyll/environment >"$root/DEBIAN/conffiles"

"$program" man | gzip -n -9 >"$share/man/man1/mesophyll.1.gz"
"$program" completions bash >"$share/bash-completion/completions/mesophyll"
"$program" completions zsh >"$share/zsh/vendor-completions/_mesophyll"
"$program" completions fish >"$share/fish/vendor_completions.d/mesophyll.fish"

gzip -n -9 <CHANGELOG.md >"$doc/changelog.gz"
cp -R README.md SECURITY.md "$doc"
cp -R docs/. "$doc/docs"
cp examples/README.md examples/*.ndjson "$doc/examples"
cp packaging/prometheus-alerts.yml packaging/grafana-dashboard.json "$doc/examples"
# For all features: of a program with fewer it names some packages too many, and never one too few.
python3 packaging/sbom.py "$doc" third-party --all-features >/dev/null
gzip -n -9 "$doc/third-party-licenses.txt" "$doc/third-party.cdx.json"
{
    cat LICENSE
    printf '\nThe licences of the packages in the program are in third-party-licenses.txt.gz.\n'
    printf 'The Apache License 2.0 is in /usr/share/common-licenses/Apache-2.0.\n\n'
    cat LICENSE-MIT
} >"$doc/copyright"

install -m 0755 packaging/deb/postinst packaging/deb/prerm packaging/deb/postrm "$root/DEBIAN"
install -d "$work/debian"
printf 'Source: mesophyll\n\nPackage: mesophyll\nArchitecture: any\n' >"$work/debian/control"
depends=$(cd "$work" && dpkg-shlibdeps -O root/usr/bin/mesophyll 2>shlibdeps.log) ||
    { cat "$work/shlibdeps.log" >&2; exit 1; }
cat >"$root/DEBIAN/control" <<CONTROL
Package: mesophyll
Version: $version
Architecture: $architecture
Maintainer: ${DEBFULLNAME:-The Mesophyll contributors} <${DEBEMAIL:-root@localhost}>
Installed-Size: $(du -sk --exclude=DEBIAN "$root" | cut -f 1)
Depends: ${depends#shlibs:Depends=}
Section: net
Priority: optional
Description: $(printf '%s' "${description%%:*}" | tr '[:upper:]' '[:lower:]')
$(printf '%s.' "$description" | fold -s -w 78 | sed 's/^/ /')
CONTROL
(cd "$root" && find etc usr -type f -print0 | LC_ALL=C sort -z | xargs -0 md5sum >DEBIAN/md5sums)

package=$out/mesophyll_${version}_$architecture.deb
dpkg-deb --root-owner-group -Zxz --build "$root" "$package" >/dev/null
rm -rf "$work"
echo "$package"
