#!/usr/bin/env bash
# Makes an authority and its certificates for tls.yml, each once: one for every service, Qdrant, the
# object store, Envoy, and you as its client. What is there is never written over; to renew a
# certificate, delete its folder first. The authority's key is needed for nothing else: keep it away.
#   make-certificates.sh [FOLDER] [HOST...]
# FOLDER is deploy/compose/certificates unless given; HOSTs are names under which Envoy is called
# from elsewhere, beside localhost.
set -euo pipefail
folder=${1:-$(dirname "$0")/certificates}
shift || true
days=${DAYS:-397}

mkdir -p "$folder"
# Containers run as users of their own and read these files; on this machine nobody else comes past
# the folder.
chmod 700 "$folder"
cd "$folder"

key=(-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes)
if [ ! -s authority/ca.key ] || [ ! -s authority/ca.crt ]; then
  mkdir -p authority
  openssl req -x509 "${key[@]}" -days 3650 -subj "/CN=Demiurge" -keyout authority/ca.key \
    -out authority/ca.crt -addext basicConstraints=critical,CA:TRUE \
    -addext keyUsage=critical,keyCertSign,cRLSign 2>/dev/null
  chmod 400 authority/ca.key
  echo "$folder/authority is new"
fi

for name in synth descriptor predictor query playback gateway train qdrant minio envoy client; do
  if [ -s "$name/tls.crt" ] && [ -s "$name/tls.key" ]; then
    echo "$folder/$name is there already"
    continue
  fi
  rm -rf "$name" "$name.new"
  mkdir "$name.new"
  names="DNS:$name,DNS:localhost,IP:127.0.0.1"
  if [ "$name" = envoy ]; then
    for host in "$@"; do
      case $host in *[!0-9.]*) names+=",DNS:$host" ;; *) names+=",IP:$host" ;; esac
    done
  fi
  openssl req "${key[@]}" -subj "/CN=$name" -keyout "$name.new/tls.key" -out "$name.new/request" \
    2>/dev/null
  printf '%s\n' "subjectAltName=$names" basicConstraints=critical,CA:FALSE \
    keyUsage=critical,digitalSignature extendedKeyUsage=serverAuth,clientAuth >"$name.new/extensions"
  openssl x509 -req -in "$name.new/request" -days "$days" -CA authority/ca.crt \
    -CAkey authority/ca.key -CAcreateserial -extfile "$name.new/extensions" \
    -out "$name.new/tls.crt" 2>/dev/null
  cp authority/ca.crt "$name.new/ca.crt"
  rm "$name.new/request" "$name.new/extensions"
  chmod 444 "$name.new"/*
  mv "$name.new" "$name"
  echo "$folder/$name is new"
done
