#!/bin/sh
# A test that this build could not make, because of what was missing.
echo "skipped: built without $1"
exit 77
