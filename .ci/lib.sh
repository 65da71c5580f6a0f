# shellcheck shell=bash disable=SC2154
# What a script needs that runs named steps with real servers: sourced, with work= and outport= set.
# Every step runs in a shell of its own with errexit; processes and results live in $work.

passed=0 failed=0 skipped=0 step_status=0
declare -A missing=()
mkdir -p "$work/pids"

# A client that this machine cannot have. Steps that need it are counted as skipped.
skip() { # CLIENT WHY
  [[ -z ${missing[$1]:-} ]] || return 0
  printf 'SKIP: %s: %s\n' "$1" "$2"
  missing[$1]=yes
}

# Runs a function as a step. Its trace and its output are shown only if it fails.
# Never call this where a status is looked at: bash ignores errexit there, all the way down.
step() { # "CLIENT…" SENTENCE FUNCTION
  local client started=$SECONDS log=$work/step.log
  for client in $1; do
    if [[ -n ${missing[$client]:-} ]]; then
      skipped=$((skipped + 1)) step_status=0
      return 0
    fi
  done
  : >"$log"
  rm -f "$work/step.note"
  touch "$work/step.start"
  set +e
  (
    exec >>"$log" 2>&1 9>&1 </dev/null
    BASH_XTRACEFD=9
    set -euo pipefail -x
    "$3"
  )
  step_status=$?
  set -e
  if ((step_status == 0)); then
    passed=$((passed + 1))
    printf 'ok    %s (%d s)\n' "$2" $((SECONDS - started))
    [[ ! -e $work/step.note ]] || sed 's/^/      /' "$work/step.note"
    return 0
  fi
  failed=$((failed + 1))
  printf 'FAIL  %s\n' "$2"
  tail -n 40 "$log" | sed 's/^/      | /'
  for log in "$work"/*.log; do
    [[ $log != */step.log && -s $log && $log -nt $work/step.start ]] || continue
    printf '      the end of %s:\n' "${log##*/}"
    tail -n 8 "$log" | cut -c-400 | sed 's/^/      | /'
  done
}

# Something worth printing under the sentence of a step that passes.
note() { echo "$*" >>"$work/step.note"; }

# A step that all others build on.
vital() {
  step "$@"
  if ((step_status != 0)); then
    echo "Nothing else can be tested without this."
    exit 1
  fi
}

# Cleans up, says how it went, and decides the exit status. For `trap … EXIT`.
finish() {
  local status=$? name pidfile
  set +e
  trap - EXIT
  for pidfile in "$work"/pids/*; do
    name=${pidfile##*/}
    stop "$name" TERM 15 || stop "$name" KILL 5
  done
  # What a killed daemon may have left mounted.
  awk -v below="$work/" 'index($2, below) == 1 { print $2 }' /proc/mounts | sort -r |
    while read -r mounted; do umount -l "$mounted"; done
  rm -rf --one-file-system "$work"
  printf '%d passed, %d failed, %d skipped\n' "$passed" "$failed" "$skipped"
  ((failed == 0)) || status=1
  exit "$status"
}

# Starts a process that outlives its step: NAME.out, NAME.log, pids/NAME, in the end NAME.exit.
background() { # NAME COMMAND…
  local name=$1
  shift
  # What an earlier process of this name said is not what this one says.
  rm -f "$work/pids/$name" "$work/$name.exit" "$work/$name.out"
  {
    "$@" >"$work/$name.out" 2>>"$work/$name.log" </dev/null 9>&- &
    echo $! >"$work/pids/$name"
    status=0
    wait $! 2>/dev/null || status=$?
    echo "$status" >"$work/$name.exit"
  } &
  eventually 5 test -s "$work/pids/$name"
}

# Signals a process of ours and waits until it has ended.
stop() { # NAME SIGNAL SECONDS
  [[ -s $work/pids/$1 && ! -e $work/$1.exit ]] || return 0
  kill -s "$2" "$(<"$work/pids/$1")" || true
  eventually "$3" test -e "$work/$1.exit"
}

# Asks again until a command succeeds.
eventually() { # SECONDS COMMAND…
  local until=$((SECONDS + $1))
  shift
  until "$@"; do
    ((SECONDS <= until)) || return 1
    sleep 0.05
  done
} 2>/dev/null 9>/dev/null

# A command that must fail, and say why in these words.
fails_with() { # REGEX COMMAND…
  local words=$1 said
  shift
  if said=$("$@" 2>&1); then
    echo "this should have failed: $*"
    return 1
  fi
  echo "$said"
  grep -qiE -- "$words" <<<"$said"
}

# Starts a registry and waits until it says where it listens: NAME.host and, once, NAME.password.
serve() { # NAME [ARGUMENT…]
  local name=$1
  shift
  background "$name" "$outport" serve --data "$work/$name" --listen 127.0.0.1:0 "$@"
  eventually 20 grep -q '^Outport serves http' "$work/$name.out"
  sed -n 's|^Outport serves https*://||p' "$work/$name.out" >"$work/$name.host"
  # It is said after the address, in one go with it or not.
  [[ -s $work/$name.password ]] || eventually 5 password_of "$name"
}

password_of() {
  sed -n 's/^The first administrator is admin, with the password //p' "$work/$1.out" >"$work/$1.password"
  [[ -s $work/$1.password ]]
}

# Clients and their daemons --------------------------------------------------------------

packages=(skopeo podman buildah docker.io debootstrap curl jq openssl iproute2 python3 python3-jwt python3-requests)

install_clients() {
  export DEBIAN_FRONTEND=noninteractive
  apt-get -q -o Acquire::Retries=3 update
  # What is installed here is started here, with its own directories.
  if [[ ! -e /usr/sbin/policy-rc.d ]]; then
    trap 'rm -f /usr/sbin/policy-rc.d' EXIT
    printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
    chmod +x /usr/sbin/policy-rc.d
  fi
  apt-get -qy -o Acquire::Retries=3 install --no-install-recommends "${packages[@]}" && return
  for package in "${packages[@]}"; do
    apt-get -qy -o Acquire::Retries=3 install --no-install-recommends "$package" || echo "no $package"
  done
  command -v debootstrap curl jq openssl python3
}

# Hides the directories that clients use whatever their options say.
hide_directories() {
  local dir
  [[ ${E2E_NAMESPACE:-} == own ]] || return 0
  for dir in /etc/docker /etc/cni /etc/containers/networks /var/lib/containers /run/containers /run/docker; do
    mkdir -p "$dir"
    mount -t tmpfs tmpfs "$dir"
  done
}

start_containerd() {
  printf 'version = 2\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]\n' >"$work/containerd.toml"
  background containerd containerd --config "$work/containerd.toml" --address "$CONTAINERD_ADDRESS" \
    --root "$work/containerd" --state "$work/run/containerd"
  eventually 30 ctr version >"$work/tmp/ctr"
}

start_dockerd() {
  local driver
  for driver in overlay2 vfs; do
    background dockerd dockerd --data-root "$work/docker" --exec-root "$work/run/docker" \
      -p "$work/run/dockerd.pid" -H "$DOCKER_HOST" --containerd "$CONTAINERD_ADDRESS" \
      --storage-driver "$driver" --iptables=false --ip6tables=false --bridge=none
    eventually 60 docker_answers_or_ended
    [[ -e $work/dockerd.exit ]] || return 0
  done
  return 1
}
docker_answers_or_ended() { docker version >"$work/tmp/docker" || [[ -e $work/dockerd.exit ]]; }

export CONTAINERD_ADDRESS=$work/run/containerd.sock CONTAINERD_NAMESPACE=e2e
export DOCKER_HOST=unix://$work/run/docker.sock DOCKER_CONFIG=$work/docker.admin
podman() {
  command podman --root "$work/podman" --runroot "$work/run/podman" --tmpdir "$work/run/libpod" \
    --storage-driver vfs --events-backend file --cgroup-manager cgroupfs "$@"
}
buildah() { command buildah --root "$work/buildah" --runroot "$work/run/buildah" --storage-driver vfs "$@"; }

# The server asked with curl, its certificate always checked.
ask() { curl -sS --max-time 120 --cacert "$ca" "$@"; }
admin() { ask -u "admin:$password" "$@"; }
status_of() { admin -o /dev/null -w '%{http_code}' "$@"; }

# OCI layouts to and from a server, digests unchanged.
push() { skopeo copy -q --preserve-digests --dest-cert-dir "$certs" "oci:$1" "docker://$2" "${@:3}"; }
pull() { skopeo copy -q --preserve-digests --src-cert-dir "$certs" "docker://$1" "oci:$2" "${@:3}"; }
raw() { skopeo inspect --raw --cert-dir "$certs" "docker://$1"; }

# Which server the functions above and below talk to.
use() { # NAME
  host=$(<"$work/$1.host") password=$(<"$work/$1.password")
  data=$work/$1 ca=$work/$1/tls/ca.crt certs=$work/certs/$1
  mkdir -p "$certs"
  cp "$ca" "$certs/"
  export REGISTRY_AUTH_FILE=$work/$1.auth
}

# Pushes an image, removes it here, and pulls the same image again.
docker_there_and_back() { # REFERENCE
  local before
  docker push "$1"
  before=$(docker image inspect -f '{{.Id}} {{.RepoDigests}}' "$1")
  docker rmi "$1"
  fails_with 'no such image' docker image inspect "$1"
  docker pull "$1"
  [[ $(docker image inspect -f '{{.Id}} {{.RepoDigests}}' "$1") == "$before" ]]
}

podman_there_and_back() { # REFERENCE
  local before
  podman push --cert-dir "$certs" "$1"
  before=$(podman image inspect -f '{{.Id}}' "$1")
  podman rmi "$1"
  podman pull --cert-dir "$certs" "$1"
  [[ $(podman image inspect -f '{{.Id}}' "$1") == "$before" ]]
}

# What docker makes of an index of two platforms.
docker_inspects() {
  docker manifest inspect --insecure "$1" | jq -e '[.manifests[].platform.architecture] | sort == ["amd64", "arm64"]'
}
docker_pulls_both() {
  local arch
  for arch in amd64 arm64; do
    docker pull --platform "linux/$arch" "$1"
    [[ $(docker image inspect -f '{{.Architecture}}' "$1") == "$arch" ]]
  done
}

ctr_asks() { ctr images "$1" --user "admin:$password" --hosts-dir "$work/hosts" "${@:2}"; }
# Without a hosts directory this version asks loopback by plain HTTP, whatever --tlscacert says.
ctr_trusts() { # CA
  mkdir -p "$work/hosts/$host"
  printf 'server = "https://%s"\n[host."https://%s"]\nca = "%s"\n' "$host" "$host" "$1" >"$work/hosts/$host/hosts.toml"
}

# The mirror that this machine's own packages come from.
mirror() { apt-cache policy base-files | awk '$3 ~ /^(bookworm|stable)\/main$/ && !found { found = $2 } END { print found }'; }

# Images --------------------------------------------------------------------------------

# Moves a file into an OCI layout; prints what a descriptor says of it.
blob() { # LAYOUT FILE
  local hex
  hex=$(sha256sum <"$2")
  hex=${hex%% *}
  mv "$2" "$1/blobs/sha256/$hex"
  printf '"digest":"sha256:%s","size":%d' "$hex" "$(stat -c %s "$1/blobs/sha256/$hex")"
}

# Makes an OCI layout of one image, a layer from each tar file.
image() { # LAYOUT ARCHITECTURE TAR…
  local layout=$1 arch=$2 type=application/vnd.oci.image tar diff diffs='' layers='' config manifest
  shift 2
  mkdir -p "$layout/blobs/sha256"
  for tar in "$@"; do
    diff=$(sha256sum <"$tar")
    diffs+=",\"sha256:${diff%% *}\""
    gzip -1nc "$tar" >"$layout/new"
    layers+=",{\"mediaType\":\"$type.layer.v1.tar+gzip\",$(blob "$layout" "$layout/new")}"
  done
  printf '{"architecture":"%s","os":"linux","config":{"Cmd":["/bin/sh"]},"rootfs":{"type":"layers","diff_ids":[%s]}}' \
    "$arch" "${diffs#,}" >"$layout/new"
  config="{\"mediaType\":\"$type.config.v1+json\",$(blob "$layout" "$layout/new")}"
  printf '{"schemaVersion":2,"mediaType":"%s","config":%s,"layers":[%s]}' \
    "$type.manifest.v1+json" "$config" "${layers#,}" >"$layout/new"
  manifest="{\"mediaType\":\"$type.manifest.v1+json\",$(blob "$layout" "$layout/new")}"
  # ctr imports only what has a name.
  manifest="${manifest%\}},\"annotations\":{\"org.opencontainers.image.ref.name\":\"latest\"}}"
  printf '{"schemaVersion":2,"manifests":[%s]}' "$manifest" >"$layout/index.json"
  printf '{"imageLayoutVersion":"1.0.0"}' >"$layout/oci-layout"
}

# A tar file of one file of random bytes.
random_tar() { # TAR BYTES
  head -c "$2" /dev/urandom >"$1.bytes"
  tar -C "${1%/*}" -cf "$1" "${1##*/}.bytes"
  rm "$1.bytes"
}

# The digest of the one image of an OCI layout.
digest_of() { jq -r '.manifests[0].digest' "$1/index.json"; }

# Flips one bit of a file.
flip() { # FILE OFFSET
  local byte
  byte=$(od -An -tu1 -j "$2" -N 1 "$1")
  # shellcheck disable=SC2059 # the format is the byte
  printf "\\x$(printf %x $((byte ^ 1)))" | dd of="$1" bs=1 seek="$2" conv=notrunc status=none
}
