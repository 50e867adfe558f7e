#!/usr/bin/env bash
# Imports nodes into a hostgw configuration, and describes the change as Markdown. Requires hostgw and git.
#
#   import.sh NODES FILE DESCRIPTION [OPTION]...
#
# Run it in the root of the repository. NODES is the output of `kubectl get nodes -o json`, FILE the configuration to update, and
# DESCRIPTION the Markdown file to write, with the nodes that changed and what that changes on every node. If nothing changed,
# FILE stays as it is, and DESCRIPTION does not exist afterward. `hostgw import` gets the options: pass --all if FILE was imported with it.
#
# The exit code is that of `hostgw import`: 3 if the list cannot be imported, 8 if it lacks more than half of the nodes.
set -euo pipefail
export LC_ALL=C.UTF-8 NO_COLOR=1
unset HOSTGW_FILE HOSTGW_NODE # hostgw would read these

if [[ $# -lt 3 ]]; then
    echo "usage: import.sh NODES FILE DESCRIPTION [OPTION]..., in the root of the repository" >&2
    exit 64
fi
nodes=$1 file=$2 description=$3
shift 3
rm -f -- "$description"

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# Quotes standard input as a code block: no name in it can end the block, mention a user or become HTML.
quoted() {
    local line left=3000
    while IFS= read -r line || [[ -n $line ]]; do
        line=${line//[[:cntrl:]]/ }
        if ((left < ${#line})); then
            echo "    … see the log of the job for the rest"
            cat >/dev/null
            return
        fi
        printf '    %s\n' "$line"
        ((left -= ${#line} + 5)) || true
    done
}

status=0
hostgw import "$@" --update="$file" --detailed-exitcode -- "$nodes" >"$scratch/changes" 2>"$scratch/messages" || status=$?
cat "$scratch/changes"
cat "$scratch/messages" >&2
case $status in
0) exit ;;
2) ;;
*) exit "$status" ;;
esac

hostgw diff --file="$file" --markdown HEAD >"$scratch/diff"
{
    printf 'The nodes of the cluster differ from the configuration:\n\n'
    quoted <"$scratch/changes"
    if [[ -s $scratch/messages ]]; then
        printf '\nMessages:\n\n'
        quoted <"$scratch/messages"
    fi
    echo
    tail -n +2 "$scratch/diff" # without the marker for comments
} >"$description"
