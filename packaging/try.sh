#!/usr/bin/env bash
# try.sh FOLDER PROGRAM PACKAGE: installs the Debian package into a folder, makes the root of the
# image, and has the program of either replay the examples and run a master. FOLDER is for what
# comes of it. Needs root.
#
# The image's program runs as it would in a container: in that root alone, as user 65532, as the
# first process.
set -euo pipefail
cd "$(dirname "$0")/.."

work=$(realpath -m "$1")
program=$2
package=$3
events=$(grep -c . examples/events.ndjson)
master=(master --listen 127.0.0.1:0 --api 127.0.0.1:0 --workers 1)

fail() {
    echo "try: $*" >&2
    exit 1
}

# Replays the examples with the program that the words start.
replay() {
    local results
    "$@" replay - --workers 2 <examples/events.ndjson >"$work/replay.ndjson" 2>"$work/replay.log" ||
        fail "a replay failed: $(tail -n 5 "$work/replay.log")"
    results=$(grep -c '"ok":' "$work/replay.ndjson") || true
    [ "$results" = "$events" ] || fail "a replay printed $results results for $events events"
}

# Starts a master with the words, ends it gracefully when it accepts, and wants exit code 0.
run_master() {
    local started ready process
    coproc STARTED { exec "$@" "${master[@]}" 2>"$work/master.log"; }
    started=$STARTED_PID
    read -r -t 60 ready <&"${STARTED[0]}" ||
        fail "a master does not start: $(tail -n 5 "$work/master.log")"
    [[ $ready == '{"ready":true,'* ]] || fail "a master printed $ready"
    process=$started
    # unshare waits for the master, and passes no signal on.
    [ "$1" != unshare ] || process=$(tr -d ' ' <"/proc/$started/task/$started/children")
    kill -TERM "$process"
    wait "$started" || fail "a master ended with $?: $(tail -n 5 "$work/master.log")"
    echo "$ready"
}

try_package() {
    local root=$work/installed
    local database=$root/var/lib/dpkg environment=$root/etc/mesophyll/environment
    mkdir -p "$database/info" "$database/updates"
    : >"$database/status"
    # The libraries are this machine's; the scripts run here, with DPKG_ROOT.
    local dpkg=(dpkg --root="$root" --log="$work/dpkg.log"
        --force-depends --force-script-chrootless)
    "${dpkg[@]}" --install "$package" >"$work/dpkg.out" 2>&1 || fail "$(cat "$work/dpkg.out")"
    local status
    status=$(dpkg-query --admindir="$database" -W -f '${Status}' mesophyll)
    [ "$status" = "install ok installed" ] || fail "the package is not installed: $status"
    [ "$(stat -c '%a %U' "$environment")" = "600 root" ] || fail "others may read the secret"

    local name started unit
    for name in mesophyll-worker-host mesophyll; do
        unit=$root/usr/lib/systemd/system/$name.service
        started=$(sed -n 's/^ExecStart=\([^ ]*\).*/\1/p' "$unit")
        [ -x "$root$started" ] || fail "$name starts $started, which the package has not"
        # With this machine's other units, and the program where it is now.
        sed "s|^ExecStart=|&$root|" "$unit" >"$work/$name.service"
        ! command -v systemd-analyze >/dev/null ||
            systemd-analyze verify --man=no "$work/$name.service" || fail "$name is wrong"
    done
    bash -n "$root/usr/share/bash-completion/completions/mesophyll"
    gzip -dc "$root/usr/share/man/man1/mesophyll.1.gz" | grep '^\.TH MESOPHYLL 1' >/dev/null ||
        fail "there is no manual page"

    "$root$started" --version
    local sections
    sections=$(readelf -SW "$root$started")
    [[ $sections != *.debug_info* ]] || fail "the program has debug information in it"
    [[ $sections == *.symtab* ]] ||
        echo "try: the linker has stripped the names that a backtrace shows" >&2
    replay "$root$started"
    MESOPHYLL_STORE="redb:$work/package.redb" run_master "$root$started"

    echo 'MESOPHYLL_WORKERS=2' >>"$environment"
    "${dpkg[@]}" --remove mesophyll >>"$work/dpkg.out" 2>&1 || fail "$(cat "$work/dpkg.out")"
    [ ! -e "$root$started" ] || fail "the program is still there after a removal"
    grep -q '^MESOPHYLL_WORKERS=2' "$environment" || fail "a removal took the configuration along"
    "${dpkg[@]}" --purge mesophyll >>"$work/dpkg.out" 2>&1 || fail "$(cat "$work/dpkg.out")"
    [ ! -e "$environment" ] || fail "the configuration is still there after a purge"
    echo "try: the package is installed, replays $events events, runs a master and is removed"
}

try_image() {
    local root=$work/image
    packaging/image-root.sh "$program" "$root"
    local inside=(unshare --pid --fork --kill-child "--mount-proc=$root/proc"
        chroot --userspec=65532:65532 "$root" /usr/bin/mesophyll)
    if ! "${inside[@]}" --version; then
        echo "try: no unshare or no chroot here, so the image's program is not started" >&2
        return
    fi
    replay "${inside[@]}"
    MESOPHYLL_STORE=redb:/var/lib/mesophyll/mesophyll.redb run_master "${inside[@]}"
    [ -s "$root/var/lib/mesophyll/mesophyll.redb" ] || fail "the image's master has kept no store"
    echo "try: the image, $(du -sh "$root" | cut -f 1), replays $events events and runs a master"
}

rm -rf "$work"
mkdir -p "$work"
try_package
try_image
