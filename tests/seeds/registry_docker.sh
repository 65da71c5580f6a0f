#!/bin/bash
# The guide's chapter 6: two ways to an image's digest, which it prints. Docker is logged in,
# and has the image.
set -euo pipefail

# (1)
pushed=$(docker push "$HOST/10000460xxxxx/ubuntu:latest" | sed -n 's/^latest: digest: \(sha256:[0-9a-f]*\) .*/\1/p')

# (2)
docker images --digests | awk -v name="$HOST/10000460xxxxx/ubuntu" '$1 == name && $2 == "latest" { print $3 }' |
  grep -qx "$pushed"
echo "$pushed"
