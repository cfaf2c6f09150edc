#!/bin/sh
# Fills in the templates of this folder: render.sh FOLDER writes pushpin.conf and routes into it.
# The values come from the environment, so: (set -a; . ./native.env; BACKENDS=... ./render.sh FOLDER)
set -eu
out=${1:?usage: render.sh FOLDER}
here=$(CDPATH= cd -- "$(dirname -- "$0")" && pwd)
umask "${RENDER_UMASK:-077}"
mkdir -p "$out"
for file in pushpin.conf routes; do
    text=$(cat "$here/$file.in")
    # Comments may show the form of a name; only settings count.
    for name in $(printf '%s\n' "$text" | grep -v '^#' | grep -o '\${[A-Z0-9_]*}' | tr -d '${}' | sort -u); do
        eval "value=\${$name-}"
        if [ -z "$value" ]; then
            echo "render.sh: $name is not set" >&2
            exit 1
        fi
        escaped=$(printf '%s' "$value" | sed 's/[&|\\]/\\&/g')
        text=$(printf '%s\n' "$text" | sed "s|\${$name}|$escaped|g")
    done
    printf '%s\n' "$text" > "$out/$file.new"
    mv "$out/$file.new" "$out/$file"
done
