#!/bin/sh
# Makes the certificates of the tests anew, for a hundred years: authorities, a master's, workers',
# and some that are not to be trusted. The keys are known to everybody who has this folder.
set -eu
cd "$(dirname "$0")"

authority() {
    openssl ecparam -name prime256v1 -genkey -noout -out "$1.key"
    openssl req -x509 -new -key "$1.key" -days 36500 -subj "/CN=$1" -out "$1.pem" \
        -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign
}

# NAME AUTHORITY SUBJECT_ALT_NAMES FROM TO
leaf() {
    openssl ecparam -name prime256v1 -genkey -noout | openssl pkcs8 -topk8 -nocrypt -out "$1.key"
    openssl req -new -key "$1.key" -subj "/CN=$1" -out request.pem
    printf 'subjectAltName=%s\nbasicConstraints=CA:FALSE\n' "$3" > extensions
    : > index; echo 01 > serial
    openssl ca -batch -notext -md sha256 -in request.pem -out "$1.pem" -cert "$2.pem" \
        -keyfile "$2.key" -startdate "$4" -enddate "$5" -extfile extensions \
        -outdir . -config openssl.cnf
    rm -f request.pem extensions index* serial* 01.pem
}

cat > openssl.cnf <<'CONFIG'
[ca]
default_ca = own
[own]
database = index
policy = any
unique_subject = no
serial = serial
[any]
commonName = supplied
CONFIG

authority authority
authority stranger
from=20250101000000Z
to=21250101000000Z
leaf master authority DNS:localhost,DNS:master.mesophyll,IP:127.0.0.1,IP:10.77.0.1 $from $to
leaf renewed authority DNS:localhost,IP:127.0.0.1 $from 21240101000000Z
leaf worker-0 authority DNS:worker-0.mesophyll $from $to
leaf worker authority DNS:worker.mesophyll $from $to
leaf expired authority DNS:localhost,IP:127.0.0.1 20240101000000Z 20250101000000Z
leaf elsewhere authority DNS:elsewhere.example $from $to
leaf untrusted stranger DNS:localhost,IP:127.0.0.1,DNS:worker-0.mesophyll $from $to
rm -f openssl.cnf authority.key stranger.key
