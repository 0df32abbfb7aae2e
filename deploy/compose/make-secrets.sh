#!/usr/bin/env bash
# Makes the secrets that docker-compose.yml mounts, each once: what is there is never written over.
#   make-secrets.sh [FOLDER]     deploy/compose/secrets unless given
set -euo pipefail
folder=${1:-$(dirname "$0")/secrets}

mkdir -p "$folder"
# Containers run as users of their own and read these files; on this machine nobody else comes past
# the folder.
chmod 700 "$folder"

make() { # name, bytes
  if [ -s "$folder/$1" ]; then
    echo "$folder/$1 is there already"
    return
  fi
  head -c "$2" /dev/urandom | od -An -tx1 | tr -d ' \n' >"$folder/$1.new"
  chmod 444 "$folder/$1.new"
  mv "$folder/$1.new" "$folder/$1"
  echo "$folder/$1 is new"
}

make token 32
make s3-access-key 10
make s3-secret-key 20
make qdrant-api-key 32
