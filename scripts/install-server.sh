#!/usr/bin/env bash
# Unpacks a database server from the distribution's packages into a folder, beside whatever the system has: no service is
# registered, no system file is touched, root is not needed.
#
#   install-server.sh mysql   TARGET_DIR     MySQL 9.x: Debian's own packages, from its unstable suite (stable has none)
#   install-server.sh mariadb TARGET_DIR     MariaDB:   the packages of the system's own suites (10.11 on Debian 12)
#
# TARGET_DIR/bin then holds wrappers (mysqld, mysql or mariadbd, mariadb) that run the unpacked programs with the unpacked
# C library, so that a server of a newer suite runs on an older system. About 20 s; 200 MB for MySQL, 70 MB for MariaDB.
#
# TARGET_DIR appears only when it is complete (unpacked beside it, then renamed), and two runs at once wait for each other.
# Needs apt, dpkg-deb and a system with Debian's or Ubuntu's package sources. Tested on Debian 12. Not tested on Ubuntu: there,
# both servers come from Ubuntu's own suites (an Ubuntu system has neither a Debian mirror nor necessarily Debian's keyring),
# and a MySQL older than 8.4 is refused.
set -euo pipefail

usage() {
  echo "usage: install-server.sh mysql|mariadb TARGET_DIR" >&2
  exit 2
}
[ $# -eq 2 ] || usage
kind=$1
case $kind in
  mysql) server=mysqld client=mysql ;;
  mariadb) server=mariadbd client=mariadb ;;
  *) usage ;;
esac
mkdir -p "$(dirname "$2")"
target=$(cd "$(dirname "$2")" && pwd)/$(basename "$2")

by_hand() {
  local packages='mysql-server (8.4 or later, see the MySQL project'"'"'s own package repository)'
  [ "$kind" = mariadb ] && packages='mariadb-server (10.6 or later)'
  cat >&2 <<TEXT
install-server.sh: $1
Do one of these instead:
  - install $packages by hand, with $server on PATH or in /usr/sbin
  - set ROWMQ_DATABASE_URL=mysql://user:password@host:3306/database to use a server you run already
  - set ROWMQ_EMBEDDED_SERVER=$([ "$kind" = mysql ] && echo mariadb || echo mysql) to try the other kind of server
TEXT
  exit 1
}

for tool in apt-get dpkg dpkg-deb; do
  command -v "$tool" >/dev/null || by_hand "cannot unpack $kind here: '$tool' is missing (this is not Debian or Ubuntu)"
done

# One run at a time for one target; whoever waited finds the work done. Without flock the rename below still keeps it atomic.
if command -v flock >/dev/null; then
  exec 9>"$target.lock"
  flock -w 600 9 || by_hand "another run has held $target.lock for 10 minutes"
fi
if [ -x "$target/bin/$server" ]; then
  "$target/bin/$server" --no-defaults --version
  exit 0
fi
[ -e "$target" ] && by_hand "$target exists but holds no bin/$server; remove that folder and try again"

work=$(mktemp -d)
partial=$target.partial.$$
trap 'rm -rf "$work" "$partial"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
# What an interrupted run left behind (only safe under the lock).
if command -v flock >/dev/null; then rm -rf "$target".partial.*; fi
mkdir -p "$work/lists/partial" "$work/cache/archives/partial" "$partial"
: >"$work/status"

# A package state of our own, with nothing installed in it: so apt fetches every library, and never asks for root.
options=(
  -o Dir::State="$work" -o Dir::State::Lists="$work/lists" -o Dir::State::status="$work/status"
  -o Dir::State::extended_states="$work/extended_states" -o Dir::Cache="$work/cache" -o Dir::Log="$work"
  -o APT::Install-Recommends=false -o APT::Sandbox::User="$(id -un)" -o Acquire::Languages=none
  -o Acquire::Retries=3 -o Debug::NoLocking=1 -qq
)

# First package source of the system whose address ends in /debian, from deb822 (.sources) or one-line (.list) files.
debian_mirror() {
  { cat /etc/apt/sources.list.d/*.sources /etc/apt/sources.list /etc/apt/sources.list.d/*.list 2>/dev/null || true; } |
    grep -E '^(URIs:|deb )' | grep -oE '[a-z+]+:/[^ ]*/debian/?( |$)' | sed -n '1s/ *$//p'
}

keyring=/usr/share/keyrings/debian-archive-keyring.gpg
if [ "$kind" = mysql ] && mirror=$(debian_mirror) && [ -n "$mirror" ]; then
  [ -r "$keyring" ] || by_hand "Debian's keyring $keyring is missing (package debian-archive-keyring)"
  echo "deb [signed-by=$keyring] $mirror sid main" >"$work/sources.list"
  options+=(-o Dir::Etc::sourcelist="$work/sources.list" -o Dir::Etc::sourceparts=/dev/null)
fi

# A third-party source that is down must not stop us: whether the packages can be had is decided below.
apt-get "${options[@]}" update || echo "install-server.sh: some package lists could not be read; trying with the others" >&2
# Not by "grep -q", which ends at the first line and so makes apt-cache fail on the rest.
available() { [ -n "$(apt-cache "${options[@]}" show --no-all-versions "$1" 2>/dev/null | grep '^Filename:')" ]; }
packages=()
for part in server client; do
  package=$kind-$part-core
  # Ubuntu and older Debian carry the version in the name, as in mysql-server-core-8.4: take the newest.
  available "$package" ||
    package=$(apt-cache "${options[@]}" search --names-only "^$kind-$part-core-[0-9.]+\$" | cut -d' ' -f1 | sort -V | tail -n 1) || true
  [ -n "$package" ] || by_hand "the package sources of this system offer no $kind-$part-core"
  packages+=("$package")
done
apt-get "${options[@]}" -y --download-only install "${packages[@]}" || by_hand "could not download ${packages[*]}"
for deb in "$work"/cache/archives/*.deb; do dpkg-deb -x "$deb" "$partial"; done

# The packages hold five times what a server and its client need: other programs, Perl, manuals, converters of character sets
# for other programs, and plug-ins for logins that RowMQ does not use.
strip_unused() {
  find usr/bin usr/sbin \( -type f -o -type l \) ! -name "$server" ! -name "$client" ! -name mysqld ! -name mysql -delete
  rm -rf usr/share/doc usr/share/man usr/share/perl* usr/share/lintian usr/share/locale usr/share/bug usr/lib/*/perl* usr/lib/*/gconv \
    usr/lib/mysql/plugin/authentication_*_client.so usr/lib/mysql/plugin/telemetry_client.so usr/lib/systemd etc var
}
(cd "$partial" && strip_unused)

triplet=$(dpkg --print-architecture | sed 's/^amd64$/x86_64/; s/^arm64$/aarch64/')-linux-gnu
# The loader itself, not the absolute symbolic link to it, which would lead out of the folder to the system's own.
loader=$(cd "$partial" && find . -type f \( -name 'ld-linux-*.so.*' -o -name 'ld-[0-9]*.so' \) -print -quit)
[ -n "$loader" ] || by_hand "found no dynamic loader in the unpacked packages"
mkdir -p "$partial/bin"

# wrap PROGRAM NAME [FIXED_OPTIONS]: options that name a defaults file must stay first, so the fixed ones go behind them.
wrap() {
  local path
  path=$(cd "$partial" && find usr/sbin usr/bin \( -type f -o -type l \) -name "$1" -print -quit 2>/dev/null) || true
  [ -n "$path" ] || by_hand "found no $1 in the unpacked packages"
  cat >"$partial/bin/$2" <<WRAPPER
#!/usr/bin/env bash
# Generated: runs $1 with the libraries unpacked beside it.
root=\$(cd "\$(dirname "\$(readlink -f "\$0")")/.." && pwd)
lib=\$root/usr/lib/$triplet:\$root/lib/$triplet:\$root/usr/lib/mysql/private
first=()
case "\${1:-}" in --no-defaults | --defaults-file=* | --defaults-extra-file=*) first=("\$1") && shift ;; esac
exec "\$root/${loader#./}" --library-path "\$lib" "\$root/$path" "\${first[@]}" ${3:-} "\$@"
WRAPPER
  chmod +x "$partial/bin/$2"
}
fixed='--basedir="$root/usr" --lc-messages-dir="$root/usr/share/mysql" --secure-file-priv='
if [ "$kind" = mysql ]; then
  fixed+='NULL --plugin-dir="$root/usr/lib/mysql/plugin"'
else
  fixed='--basedir="$root/usr" --lc-messages-dir="$root/usr/share/mysql" --plugin-dir="$root/usr/lib/mysql/plugin" --character-sets-dir="$root/usr/share/mysql/charsets"'
fi
wrap "$server" "$server" "$fixed"
wrap "$client" "$client"

version=$("$partial/bin/$server" --no-defaults --version) || by_hand "the unpacked $server does not run on this system"
number=$(grep -oE 'Ver [0-9]+\.[0-9]+' <<<"$version" | cut -d' ' -f2)
minimum=8.4
[ "$kind" = mariadb ] && minimum=10.6
[ "$(printf '%s\n' "$minimum" "$number" | sort -V | head -n 1)" = "$minimum" ] ||
  by_hand "this system's packages hold $kind $number, and RowMQ needs $minimum or later"

# Without flock another run may have been faster: then its result is as good as ours.
mv -T "$partial" "$target" 2>/dev/null || [ -x "$target/bin/$server" ] || by_hand "could not rename $partial to $target"
"$target/bin/$server" --no-defaults --version
