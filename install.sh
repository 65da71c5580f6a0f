#!/bin/sh
# Installs Outport where there is no dpkg: binary, units, configuration, manual, completions.
# Again with a newer one it upgrades; what was configured and stored stays.
# As root: sh install.sh BINARY|TARBALL [--prefix DIR]     (packages/tarball makes TARBALL)
#          sh install.sh --uninstall [--prefix DIR]
set -eu

fail() {
  echo "install.sh: $*" >&2
  exit 1
}
usage() {
  echo "usage: sh install.sh BINARY|TARBALL [--prefix DIR]" >&2
  echo "       sh install.sh --uninstall [--prefix DIR]" >&2
  exit 2
}

from='' prefix=/usr/local uninstall=
while [ $# -gt 0 ]; do
  case $1 in
    --prefix)
      [ $# -ge 2 ] || usage
      prefix=${2%/}
      shift
      ;;
    --prefix=*) prefix=${1#--prefix=} prefix=${prefix%/} ;;
    --uninstall) uninstall=yes ;;
    -*) usage ;;
    *)
      [ -z "$from" ] || usage
      from=$1
      ;;
  esac
  shift
done
# One of the two, and not both.
if [ -n "$uninstall" ]; then [ -z "$from" ] || usage; else [ -n "$from" ] || usage; fi
case $prefix in
  *[!A-Za-z0-9/._-]*) fail "the prefix may hold letters, digits and /._- only" ;;
  /*) ;;
  *) fail "the prefix must be an absolute path" ;;
esac
[ "$(id -u)" = 0 ] || fail "must run as root"
[ ! -e /var/lib/dpkg/info/outport.list ] || fail "Outport is installed as a package here; upgrade or remove that with dpkg"

units=/etc/systemd/system config=/etc/outport/outport.toml data=/var/lib/outport
share=$prefix/share
has_systemd() { command -v systemctl >/dev/null 2>&1; }
runs_systemd() { [ -d /run/systemd/system ]; }
files_of_ours() {
  echo "$prefix/bin/outport"
  for file in "$units"/outport.service "$units"/outport.socket "$units"/outport-*.service "$units"/outport-*.path \
    "$share"/doc/outport/* "$share"/man/man1/outport.1 "$share"/man/man1/outport-*.1 \
    "$share"/bash-completion/completions/outport "$share"/zsh/site-functions/_outport \
    "$share"/fish/vendor_completions.d/outport.fish; do
    [ ! -f "$file" ] || echo "$file"
  done
}

if [ -n "$uninstall" ]; then
  [ -e "$prefix/bin/outport" ] || fail "there is no $prefix/bin/outport; name the --prefix it was installed with"
  if runs_systemd; then systemctl stop 'outport*' || true; fi
  if has_systemd; then systemctl disable outport.socket outport.service >/dev/null 2>&1 || true; fi
  rm -f "$units"/*.wants/outport-import@*.path
  files_of_ours | while read -r file; do rm -f "$file"; done
  rmdir "$share/doc/outport" 2>/dev/null || true
  if runs_systemd; then systemctl daemon-reload; fi
  echo "Outport is gone. Its configuration is still in ${config%/*}, images and people in $data: delete them if you want to."
  exit
fi

# What is installed beside the binary lies in the tarball, or beside this script.
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' INT TERM HUP
[ -f "$from" ] || fail "there is no file $from"
case $from in
  *.tar.gz | *.tgz)
    gzip -dc "$from" | tar -xf - -C "$work" || fail "$from cannot be unpacked"
    here=$(echo "$work"/outport-*)
    from=$here/outport
    [ -f "$from" ] || fail "this is no tarball of Outport's"
    ;;
esac
[ -f "$here/systemd/outport.service" ] ||
  fail "the units are not beside this script; unpack the whole tarball, or name it instead of the binary"

put() { # MODE FILE PLACE
  mkdir -p "${3%/*}"
  # At once, for the file may be running.
  cp "$2" "$3.new"
  chmod "$1" "$3.new"
  mv -f "$3.new" "$3"
}

# Where it will lie, for /tmp may forbid programs.
mkdir -p "$prefix/bin"
put 755 "$from" "$prefix/bin/outport.try"
if ! "$prefix/bin/outport.try" version >"$work/version" 2>&1; then
  rm -f "$prefix/bin/outport.try"
  fail "the binary does not run here, on $(uname -m): take the one for this machine's CPU"
fi
mv -f "$prefix/bin/outport.try" "$prefix/bin/outport"

for page in "$here"/man/*.1; do
  [ ! -f "$page" ] || put 644 "$page" "$share/man/man1/${page##*/}"
done
if [ -d "$here/completions" ]; then
  put 644 "$here/completions/outport" "$share/bash-completion/completions/outport"
  put 644 "$here/completions/_outport" "$share/zsh/site-functions/_outport"
  put 644 "$here/completions/outport.fish" "$share/fish/vendor_completions.d/outport.fish"
fi
for file in README.md CHANGELOG.md LICENSE-MIT LICENSE-APACHE systemd/socket.conf systemd/70-outport-stick.rules; do
  [ ! -f "$here/$file" ] || put 644 "$here/$file" "$share/doc/outport/${file##*/}"
done
is_new=
if [ ! -e "$config" ]; then
  is_new=yes
  put 644 "$here/packages/outport.toml" "$config"
fi

if has_systemd; then
  for unit in "$here"/systemd/outport*; do
    sed "s|/usr/bin/outport|$prefix/bin/outport|" "$unit" >"$work/unit"
    put 644 "$work/unit" "$units/${unit##*/}"
  done
  if runs_systemd; then
    systemctl daemon-reload
    # Not where somebody disabled it, or serves by the socket.
    if [ -n "$is_new" ]; then systemctl enable --quiet outport.service; fi
    if [ -n "$is_new" ]; then systemctl start outport.service; else systemctl try-restart outport.service; fi
    begun="journalctl -u outport | grep password"
  elif [ -n "$is_new" ]; then
    systemctl enable outport.service >/dev/null 2>&1 || true
    begun="it starts with the system; then: journalctl -u outport | grep password"
  fi
else
  # Nobody makes a user for it at each start: it has one of its own.
  if ! grep -q '^outport:' /etc/passwd; then
    if command -v useradd >/dev/null 2>&1; then
      useradd --system --home-dir "$data" --shell /bin/false --user-group outport
    elif command -v adduser >/dev/null 2>&1; then
      # busybox's.
      grep -q '^outport:' /etc/group || addgroup -S outport
      adduser -S -D -H -h "$data" -s /bin/false -G outport outport
    else
      # A busybox that was made without it.
      id=100
      while cut -d: -f3 /etc/passwd /etc/group | grep -qx $id; do id=$((id + 1)); done
      echo "outport:x:$id:" >>/etc/group
      echo "outport:x:$id:$id:Outport:$data:/bin/false" >>/etc/passwd
      [ ! -e /etc/shadow ] || echo 'outport:!:::::::' >>/etc/shadow
    fi
  fi
  mkdir -p "$data"
  chown outport:outport "$data"
  chmod 700 "$data"
  begun="su -s /bin/sh outport -c '$prefix/bin/outport serve --config $config'; let your init run that. It prints it once"
fi

echo "Installed $(cat "$work/version") as $prefix/bin/outport."
if [ -n "$is_new" ]; then
  echo "It serves https on port 5000 of every address. Its first password, for admin:"
  echo "  $begun"
  echo "The authority that clients must trust: $data/tls/ca.crt"
else
  echo "$config was left as it is."
fi
