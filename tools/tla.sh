#!/usr/bin/env bash
# Put TLC, the model checker of TLA+, into .cache unless it is there. Needs Java to run.
set -euo pipefail
cd "$(dirname "$0")/.."
jar=.cache/tla2tools.jar
url=https://github.com/tlaplus/tlaplus/releases/download/v1.7.4/tla2tools.jar
[ -f "$jar" ] && exit 0
mkdir -p .cache
if ! curl --fail --silent --show-error --location --max-time 60 --output "$jar.part" "$url"; then
  rm -f "$jar.part"
  echo "tla2tools.jar could not be fetched from $url: put it at $jar" >&2
  exit 1
fi
mv "$jar.part" "$jar"
