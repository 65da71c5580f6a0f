# shellcheck shell=bash disable=SC2154
# What a script needs that runs named steps with real servers: sourced, with work= and outport= set.
# Every step runs in a shell of its own with errexit; processes and results live in $work.

passed=0 failed=0 skipped=0 step_status=0
declare -A missing=()
mkdir -p "$work/pids"

# A client that this machine cannot have. Steps that need it are counted as skipped.
skip() { # CLIENT WHY
  printf 'SKIP: %s: %s\n' "$1" "$2"
  missing[$1]=yes
}

# Runs a function as a step. Its trace and its output are shown only if it fails.
# Never call this where a status is looked at: bash ignores errexit there, all the way down.
step() { # "CLIENT…" SENTENCE FUNCTION
  local client started=$SECONDS log=$work/step.log
  for client in $1; do
    if [[ -n ${missing[$client]:-} ]]; then
      skipped=$((skipped + 1))
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
  rm -f "$work/pids/$name" "$work/$name.exit"
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
