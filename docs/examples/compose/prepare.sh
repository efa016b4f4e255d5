#!/bin/sh
# Writes what docker-compose.yml needs and the repository must not hold: three passwords, each drawn
# here, in files that only you can read. Never overwrites anything.
#
#     prepare.sh ORIGIN [THRESHOLD]
#
# ORIGIN is the ledger's name, the first line of its checkpoints, such as ledger.example.com/prod.
# THRESHOLD is how many administrators a change of rights takes, 2 when left out; there must be at
# least one administrator more. Both are written into the first entry, for ever.
set -eu
umask 077
origin=${1:?give the name of the ledger, such as ledger.example.com/prod}
threshold=${2:-2}
cd "$(dirname "$0")"

if [ -e private ]; then
    echo "private/ is there already; passwords are drawn once. Remove it only with the volumes." >&2
    exit 1
fi
# Hex, so that it needs no escaping in an address.
draw() { od -An -N 24 -t x1 /dev/urandom | tr -d ' \n'; }
superuser=$(draw)
owner=$(draw)
app=$(draw)

mkdir private private/agent
# Read by the containers' own account, and not secret.
mkdir -m 755 private/admins
chmod 711 private
chmod 755 private/agent
cat >private/postgres.env <<END
POSTGRES_PASSWORD=$superuser
COUNTERSIGN_OWNER_PASSWORD=$owner
COUNTERSIGN_APP_PASSWORD=$app
END
echo "COUNTERSIGN_OWNER_DATABASE_URL=postgres://countersign_owner:$owner@postgres/countersign" \
    >private/owner.env
echo "DATABASE_URL=postgres://countersign_app:$app@postgres/countersign" >private/app.env
printf 'COUNTERSIGN_ORIGIN=%s\nTHRESHOLD=%s\n' "$origin" "$threshold" >private/init.env

echo "Passwords are drawn. Now put each administrator's public key into"
echo "    $PWD/private/admins/NAME.pub        (mode 644; NAME is their name in the ledger, for ever)"
