#!/bin/sh
# Prints the present digest of every image that the files name: sh pin-images.sh >> .env
set -eu
cd "$(dirname "$0")"
sed -n -e 's/^ *image: \(.*\)${\([A-Z]*_DIGEST\)-}$/\2 \1/p' -e 's/^FROM \(.*\)${\([A-Z]*_DIGEST\)}.*/\2 \1/p' \
    compose*.yaml ../docker/Dockerfile | sort -u | while read -r variable image; do
    digest=$(docker buildx imagetools inspect "$image" --format '{{.Manifest.Digest}}')
    printf '%s=@%s\n' "$variable" "$digest"
done
