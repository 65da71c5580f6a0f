# shellcheck shell=bash disable=SC2154
# A Debian of its own, booted in systemd-nspawn without a network: sourced, with work= set.

# What the tree is made with.
boot_install() { # PACKAGE…
  export DEBIAN_FRONTEND=noninteractive
  apt-get -qq -o Acquire::Retries=3 update
  apt-get -qqy -o Acquire::Retries=3 install --no-install-recommends systemd-container debootstrap "$@" >/dev/null
}

# Debian's own mirror of this machine, and the proxy to it, for debootstrap.
boot_debootstrap() { # OPTION… TREE
  local mirror proxy=
  mirror=$(apt-cache policy base-files | awk '$3 ~ /^(bookworm|stable)\/main$/ && !found { found = $2 } END { print found }')
  eval "$(apt-config shell proxy Acquire::http::Proxy)"
  http_proxy=${proxy:-${http_proxy:-}} debootstrap "${@:1:$#-1}" bookworm "${@: -1}" "$mirror" >"$work/debootstrap.log" ||
    { tail "$work/debootstrap.log"; return 1; }
}

# A small Debian with what the scripts type there. Made once a day, for all of them.
boot_tree() { # TREE
  local made=target/boot/bookworm.tar
  mkdir -p "$1" target/boot
  if [[ -z $(find "$made" -mtime -1 2>/dev/null) ]]; then
    boot_debootstrap --variant=minbase --include=systemd,systemd-sysv,dbus,init-system-helpers,udev,curl,openssl,jq "$1"
    tar -C "$1" --xattrs --xattrs-include='*' --numeric-owner -cf "$made.new" .
    mv "$made.new" "$made"
  else
    tar -C "$1" --xattrs --xattrs-include='*' --numeric-owner -xf "$made"
  fi
}

# Boots it, runs the script there, shows what it printed, and fails unless that ends with
# "everything held".
boot_run() { # TREE SCRIPT [NSPAWN-OPTION…]
  local tree=$1
  install -m 755 "$2" "$tree/inside"
  cat >"$tree/etc/systemd/system/inside.service" <<'UNIT'
[Unit]
After=multi-user.target
[Service]
Type=oneshot
ExecStart=/inside
StandardOutput=file:/transcript
StandardError=inherit
ExecStopPost=/bin/systemctl poweroff --no-block
TimeoutStartSec=5min
[Install]
WantedBy=default.target
UNIT
  mkdir -p "$tree/etc/systemd/system/graphical.target.wants"
  ln -sf ../inside.service "$tree/etc/systemd/system/graphical.target.wants/inside.service"
  timeout 420 systemd-nspawn --quiet --register=no --keep-unit --private-network "${@:3}" -D "$tree" --boot \
    >"$work/console" 2>&1 </dev/null || true
  cat "$tree/transcript"
  grep -qx 'everything held' "$tree/transcript" || { tail -n 30 "$work/console"; return 1; }
}
