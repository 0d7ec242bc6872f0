#!/usr/bin/env bash
# Generate the protobuf code from the .proto files, with the one release of grpcio-tools that sets the
# lowest run-time versions we support (pyproject.toml). With --check: compare, change nothing.
set -euo pipefail
cd "$(dirname "$0")/.."
PYTHON="${PYTHON:-python3}"
release=1.76.0
generator=.cache/grpcio-tools-$release
if [ ! -e "$generator/complete" ]; then
  rm -rf "$generator"
  "$PYTHON" -m venv --without-pip "$generator"
  "$PYTHON" -m pip --python "$generator/bin/python" --disable-pip-version-check install --quiet "grpcio-tools==$release"
  touch "$generator/complete"
fi
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
"$generator/bin/python" -m grpc_tools.protoc \
  -I quorumlog/log/_pb=log/_pb -I quorumlog/api/_pb=api/_pb -I quorumlog/broker/_pb=src/quorumlog/broker/_pb \
  --python_out="$out" --pyi_out="$out" --grpc_python_out="$out" \
  log/_pb/record.proto api/_pb/{quorumlog,peer,proglog}.proto src/quorumlog/broker/_pb/metadata.proto
# Only the two files with services need stubs.
rm -f "$out"/quorumlog/log/_pb/*_grpc.py "$out"/quorumlog/broker/_pb/*_grpc.py
status=0
for pair in log/_pb:log/_pb api/_pb:api/_pb broker/_pb:src/quorumlog/broker/_pb; do
  for file in "$out/quorumlog/${pair%%:*}"/*; do
    target="${pair#*:}/$(basename "$file")"
    if [ "${1:-}" = --check ]; then
      cmp -s "$file" "$target" || { echo "$target is not what its .proto generates: run 'make proto'" >&2; status=1; }
    else
      cp "$file" "$target"
    fi
  done
done
exit $status
