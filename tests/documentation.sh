#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0
# Parses Documentation/*.rst: a table that is not well formed, or a link that leads
# nowhere, is an error.
. "$(dirname "$0")/vm/lib.sh"
cd "$TOP"
if ! command -v rst2html >/dev/null && [ "$(id -u)" != 0 ]; then
    say "rst2html (python3-docutils) is not installed: Documentation is not parsed"
    exit 0
fi
need rst2html python3-docutils
git ls-files -co --exclude-standard '*.rst' | while read -r page; do
    rst2html --report=warning --halt=warning --syntax-highlight=none "$page" >/dev/null ||
        die "$page is not well formed" "see the line above"
done
