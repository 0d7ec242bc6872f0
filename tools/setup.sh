#!/usr/bin/env bash
# Make $VENV with nothing but a python3 >= 3.11 on the machine, and install the project in it.
set -euo pipefail
cd "$(dirname "$0")/.."
"$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
  echo "quorumlog needs Python 3.11 or newer; '$PYTHON' is $("$PYTHON" --version 2>&1). Try: make setup PYTHON=python3.12" >&2
  exit 1
}
if [ ! -x "$VENV/bin/python" ]; then
  "$PYTHON" -m venv "$VENV" 2>/dev/null || {
    # Debian's python3 without python3-venv: virtualenv as a zipped application does the same.
    echo "'$PYTHON -m venv' does not work here: install it (Debian: apt-get install python3-venv)" >&2
    exit 1
  }
fi
"$VENV/bin/pip" install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'
"$VENV/bin/pip" install --quiet --disable-pip-version-check --editable . --group dev
