#!/usr/bin/env bash
# Generate the protobuf code from the .proto files, with the one release of grpcio-tools that sets the
# lowest run-time versions we support (pyproject.toml). With --check: compare, change nothing.
set -euo pipefail
cd "$(dirname "$0")/.."
PYTHON="${PYTHON:-python3}"
generator=.cache/grpcio-tools-1.76.0
if [ ! -d "$generator" ]; then
  # Under its name only when it is whole.
  rm -rf "$generator.partial"
  "$PYTHON" -m pip install --quiet --disable-pip-version-check --target "$generator.partial" 'grpcio-tools==1.76.0'
  mv "$generator.partial" "$generator"
fi
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
PYTHONPATH="$generator" "$PYTHON" -m grpc_tools.protoc \
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
