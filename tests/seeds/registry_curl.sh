#!/bin/bash
# The guide's lines of chapters 1 to 5. Only the host differs, and that the answers are
# looked at: the guide shows them as pictures, which are lost. curl finds the authority by
# CURL_CA_BUNDLE. public/2048 and 10000460xxxxx/ubuntu have a tag, latest; DIGEST is the
# second's, from chapter 4 or 6.
set -euo pipefail

# 1. More than 57 bytes come out in two lines, which no header takes.
auth=$(echo -n "$USER:$PASS" | base64)

# 2.
curl -v -H "Authorization: Basic $auth" -X GET "https://$HOST/v2/public/2048/tags/list" |
  jq -e '. == {name: "public/2048", tags: ["latest"]}'

# 3.
curl -v -H "Authorization: Basic $auth" -X GET "https://$HOST/v2/_catalog" |
  jq -e '.repositories | index("public/2048") and index("10000460xxxxx/ubuntu")'

# 4. The guide has only its class here.
for reference in latest "$DIGEST"; do
  curl -v -H "Authorization: Basic $auth" -X GET "https://$HOST/v2/10000460xxxxx/ubuntu/manifests/$reference" |
    sha256sum | grep -qx "${DIGEST#sha256:}  -"
done

# 5. Here the guide misspells its host, doceker.
curl -v -H "Authorization: Basic $auth" -X DELETE "https://$HOST/v2/10000460xxxxx/ubuntu/manifests/$DIGEST"
curl -v -H "Authorization: Basic $auth" -X GET "https://$HOST/v2/10000460xxxxx/ubuntu/manifests/latest" |
  jq -e '.errors[0].code == "MANIFEST_UNKNOWN"'
curl -v -H "Authorization: Basic $auth" -X GET "https://$HOST/v2/public/2048/tags/list" |
  jq -e '.tags == ["latest"]'
