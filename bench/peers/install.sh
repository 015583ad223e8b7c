#!/usr/bin/env bash
# Installs the servers of the peers, as far as they are missing, from Debian's packages. Needs root, and Debian 12 or later.
#
#   install.sh [postgresql] [redis-server] [rabbitmq-server] [nats-server]      without names: all of them
#
# No service is started: the benchmark runs instances of its own. nats-server is unpacked into .rowmq-test/servers/nats, from
# Debian's unstable suite where the system's own has none that knows "sync_interval: always" (2.10 or later).
set -euo pipefail

cd "$(dirname "$0")/../.."
servers=("$@")
[ ${#servers[@]} -gt 0 ] || servers=(postgresql redis-server rabbitmq-server nats-server)

fail() {
  echo "install.sh: $1" >&2
  exit 1
}
command -v apt-get >/dev/null || fail "this is not Debian or Ubuntu: install ${servers[*]} by hand, on the PATH"
[ "$(id -u)" = 0 ] || fail "not root: run 'sudo $0 ${servers[*]}'"

work=$(mktemp -d)
policy=/usr/sbin/policy-rc.d
own_policy=
clean_up() {
  rm -rf "$work"
  [ -z "$own_policy" ] || rm -f "$policy"
}
trap clean_up EXIT

# Debian's way of saying that what is being installed is not to be started; left alone where the machine has one already.
deny_starts() {
  [ -e "$policy" ] && return
  printf '#!/bin/sh\nexit 101\n' >"$policy"
  chmod +x "$policy"
  own_policy=1
}

# From the first of the system's package sources whose address ends in /debian.
debian_mirror() {
  { cat /etc/apt/sources.list.d/*.sources /etc/apt/sources.list /etc/apt/sources.list.d/*.list 2>/dev/null || true; } |
    grep -E '^(URIs:|deb )' | grep -oE '[a-z+]+:/[^ ]*/debian/?( |$)' | sed -n '1s/ *$//p'
}

knows_sync_always() {
  local version
  version=$("$1" --version 2>/dev/null | grep -oE '[0-9]+\.[0-9]+' | head -n 1) || return 1
  [ "$(printf '2.10\n%s\n' "$version" | sort -V | head -n 1)" = 2.10 ]
}

# A package state of our own, as scripts/install-server.sh has: the system's sources stay as they are.
unpack_nats() {
  local target=.rowmq-test/servers/nats keyring=/usr/share/keyrings/debian-archive-keyring.gpg mirror
  if [ -x "$target/bin/nats-server" ]; then return; fi
  mirror=$(debian_mirror)
  [ -n "$mirror" ] && [ -r "$keyring" ] || fail "no Debian mirror or keyring to fetch nats-server from"
  mkdir -p "$work/lists/partial" "$work/cache/archives/partial"
  : >"$work/status"
  echo "deb [signed-by=$keyring] $mirror sid main" >"$work/sources.list"
  local options=(
    -o Dir::State="$work" -o Dir::State::Lists="$work/lists" -o Dir::State::status="$work/status" -o Dir::Cache="$work/cache"
    -o Dir::Etc::sourcelist="$work/sources.list" -o Dir::Etc::sourceparts=/dev/null -o APT::Sandbox::User=root
    -o Acquire::Languages=none -o Acquire::Retries=3 -o Debug::NoLocking=1 -qq
  )
  apt-get "${options[@]}" update
  (cd "$work" && apt-get "${options[@]}" download nats-server)
  dpkg-deb -x "$work"/nats-server_*.deb "$work/unpacked"
  knows_sync_always "$work/unpacked/usr/sbin/nats-server" || fail "the unpacked nats-server does not run here, or is older than 2.10"
  mkdir -p "$target/bin"
  mv "$work/unpacked/usr/sbin/nats-server" "$target/bin/"
}

packages=()
for server in "${servers[@]}"; do
  case $server in
    postgresql | redis-server | rabbitmq-server) dpkg -s "$server" >/dev/null 2>&1 || packages+=("$server") ;;
    nats-server) unpack_nats ;;
    *) fail "unknown server $server" ;;
  esac
done
if [ ${#packages[@]} -gt 0 ]; then
  deny_starts
  apt-get -qq update
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${packages[@]}"
fi
