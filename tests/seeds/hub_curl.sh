#!/bin/bash
# The second answer's lines: a login and a repository. Only the host differs, and that the
# answer is looked at. curl finds the authority by CURL_CA_BUNDLE.
# As printed, USER and PASS must be words without spaces and quotes.
set -euo pipefail

TOKEN=$(curl -s -H "Content-Type: application/json" -X POST -d '{"username": "'${USER}'", "password": "'${PASS}'"}' https://${HOST}/v2/users/login/ | jq -r .token)

curl -s -H "Authorization: JWT ${TOKEN}" "https://${HOST}/v2/repositories/" \
 --data 'description=test' \
 --data 'full_description=full-description' \
 --data 'is_private=false' \
 --data 'name=test' \
 --data "namespace=${USER}" |
  jq -e --arg user "$USER" '[.namespace, .name, .is_private, .description, .full_description]
    == [$user, "test", false, "test", "full-description"]'
