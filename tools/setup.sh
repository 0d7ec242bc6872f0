#!/usr/bin/env bash
# Make $VENV with nothing but a python3 >= 3.11 on the machine, and install the project in it.
set -euo pipefail
cd "$(dirname "$0")/.."
PYTHON="${PYTHON:-python3}"
VENV="${VENV:-.venv}"

"$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
  echo "quorumlog needs Python 3.11 or newer; '$PYTHON' is $("$PYTHON" --version 2>&1 || true). Try: make setup PYTHON=python3.12" >&2
  exit 1
}

# Debian and Ubuntu ship the part of venv that installs pip in a package of its own, python3-venv. Without
# it the pip of $PYTHON itself, if it has one, installs a pip in the environment.
install_pip() {
  "$PYTHON" -m pip --python "$VENV/bin/python" install --quiet pip 2>/dev/null && return
  echo "'$PYTHON' can neither make a virtual environment with pip in it nor has a pip of its own. Debian, Ubuntu: apt-get install python3-venv" >&2
  return 1
}

if ! "$VENV/bin/python" -c '' 2>/dev/null; then
  # None yet, or one whose Python has gone since.
  rm -rf "$VENV"
  if ! "$PYTHON" -m venv "$VENV" >/dev/null 2>&1; then
    rm -rf "$VENV"
    "$PYTHON" -m venv --without-pip "$VENV"
  fi
fi
"$VENV/bin/python" -m pip --version >/dev/null 2>&1 || install_pip

pip() { "$VENV/bin/python" -m pip --quiet --disable-pip-version-check "$@"; }
pip install --upgrade 'pip>=25.1'
pip install --editable . --group dev
