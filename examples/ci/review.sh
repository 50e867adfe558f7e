#!/usr/bin/env bash
# Reviews a change of a hostgw configuration: validates the file, compares it with where the change branched off,
# simulates the cluster, and writes what a reviewer should see as Markdown. Needs hostgw and git, no root and no node.
#
#   review.sh TARGET FILE COMMENT
#
# TARGET is where HEAD will be merged, a git revision such as origin/main; FILE is the configuration, COMMENT the
# Markdown to write. Its first line is a hidden marker, the one of `hostgw diff --markdown`, whatever becomes of the
# review: so the comment about a change that is mistaken now takes the place of the one about what it was before.
# HOSTGW_SIMULATE=no leaves the simulation out, for machines that make no network namespaces.
#
# Exit code: 0 all is well; 11 FILE is not valid, 12 it cannot be compared, 13 the cluster does not work when it is
# simulated: the first of them, and the comment tells all; 64 usage.
set -euo pipefail
export LC_ALL=C.UTF-8 NO_COLOR=1

if [[ $# -ne 3 ]]; then
    echo "usage: review.sh TARGET FILE COMMENT" >&2
    exit 64
fi
target=$1 file=$2 comment=$3
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
touch "$scratch"/{failures,changes,simulated}
failed=0

# Runs hostgw for the log of the job; $scratch/out and $scratch/err hold what it printed.
logged() {
    local status=0
    printf '\n$ hostgw %s\n' "$*"
    hostgw "$@" >"$scratch/out" 2>"$scratch/err" || status=$?
    cat "$scratch/out" "$scratch/err"
    return "$status"
}

# fail CODE TITLE: tells what failed, with the text on standard input, and goes on.
fail() {
    [[ $failed -ne 0 ]] || failed=$1
    printf '### %s\n\n%s\n\n' "$2" "$(quoted)" >>"$scratch/failures"
}

# Standard input as a code block. Every line is indented, so that no name in it can end the block; there is as much of
# it as a comment of GitHub can hold beside what hostgw diff takes.
quoted() {
    local line room=4000
    while IFS= read -r line; do
        if ((room < ${#line})); then
            echo "    … the log of the job tells the rest"
            cat >/dev/null
        else
            printf '    %s\n' "$line"
            ((room -= ${#line} + 5)) || true
        fi
    done
}

if ! logged validate --file="$file"; then
    fail 11 "hostgw: the configuration is not valid" <"$scratch/err"
else
    if logged diff --file="$file" --markdown -- "$target...HEAD"; then
        tail -n +2 "$scratch/out" >"$scratch/changes" # the marker comes before the failures, too
    else
        fail 12 "hostgw: the change cannot be compared with what stands" <"$scratch/err"
    fi
    if [[ ${HOSTGW_SIMULATE-yes} == no ]]; then
        printf '\n_Not simulated._\n' >"$scratch/simulated"
    elif logged simulate --file="$file"; then
        printf '\n#### Simulated\n\n%s\n' "$(tail -n 1 "$scratch/out" | quoted)" >"$scratch/simulated"
    else
        fail 13 "hostgw: the cluster does not work when it is simulated" \
            < <(sed -n '/^✗/,$p' "$scratch/out" && cat "$scratch/err")
    fi
fi

rm -f -- "$comment" # it could be a link of the change's own
{
    printf '<!-- hostgw:diff %s -->\n' "${file//[\`<>&@[:cntrl:]]/_}"
    cat "$scratch"/{failures,changes,simulated}
} >"$comment"
exit "$failed"
