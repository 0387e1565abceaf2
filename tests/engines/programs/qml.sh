#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# What a QML program logs goes to standard error: here the lines that are its own are
# printed.
/usr/lib/qt6/bin/qml --apptype core /engines/functions.qml 2>/tmp/said
status=$?
grep '^qml: ' /tmp/said
grep -v '^qml: ' /tmp/said >&2
exit $status
