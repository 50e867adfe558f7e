#!/usr/bin/env bash
# Reviews a change of hostgw configurations: validates each file, compares it with where the change branched off,
# simulates the cluster, and writes what a reviewer should see as Markdown. Needs hostgw and git, no root and no node.
#
#   review.sh TARGET FILE... COMMENT
#
# Run it in the root of the repository. TARGET is where HEAD will be merged, a git revision such as origin/main; FILE is a
# configuration, COMMENT the Markdown to write. Its first line is a hidden marker that is always the same for these FILEs,
# for one FILE that of `hostgw diff --markdown`: so each comment about a change takes the place of the one before it.
# HOSTGW_SIMULATE=no leaves the simulation out, for machines that make no network namespaces.
#
# The change is not trusted. Configurations are read from the objects of HEAD, never from the working tree: a symbolic
# link in it could lead to any file of the machine. A renamed file is compared with what it was, a deleted one lists what
# every node loses, and a file that mends an invalid one is compared with nothing.
#
# Exit code: 0 all is well; 11 a FILE is not valid, 12 it cannot be compared, 13 the cluster does not work when it is
# simulated: the first of them, and the comment tells all; 64 usage.
set -euo pipefail
export LC_ALL=C.UTF-8 NO_COLOR=1
unset HOSTGW_FILE HOSTGW_NODE # hostgw reads these too

usage() {
    echo "usage: review.sh TARGET FILE... COMMENT, in the root of the repository" >&2
    exit 64
}

# git, which runs nothing that a repository configures and fetches nothing.
git() {
    GIT_NO_LAZY_FETCH=1 GIT_ALLOW_PROTOCOL='' command git --no-pager --no-optional-locks --no-replace-objects \
        --literal-pathspecs -c core.fsmonitor=false -c core.hooksPath=/dev/null -c protocol.allow=never "$@"
}

(($# >= 3)) || usage
target=$1 comment=${*: -1} files=("${@:2:$#-2}")
[[ -z $(git rev-parse --show-prefix) ]] || usage
files=("${files[@]#./}")
for file in "${files[@]}"; do
    [[ -n $file && /$file/ != *//* && /$file/ != */../* && /$file/ != */./* ]] || usage
done

scratch=$(mktemp -d)
tree=$scratch/tree
mkdir "$tree"
touch "$scratch"/{failed,passed}
failed=0
# Names and text of the change are in the log: on GitHub, a line of it could be a command to the runner.
resume=
if [[ ${GITHUB_ACTIONS-} == true ]]; then
    resume=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')
    echo "::stop-commands::$resume"
fi
trap 'rm -rf "$scratch"; [[ -z $resume ]] || echo "::$resume::"' EXIT

# What a comment of GitHub holds, 65,536 characters, is shared by the files.
room=$((60000 / ${#files[@]}))
room_for_text=$((room / 4 < 4000 ? room / 4 : 4000))

# A name of the change, for a heading or a hidden marker.
plain() {
    local active='[^[:alnum:]._/ +=,:#%~^()$-]'
    printf '%s' "${1//$active/_}"
}

# Runs hostgw in a folder, for the log of the job; $scratch/out and $scratch/err hold what it printed.
logged() {
    local folder=$1 status=0
    shift
    printf '\n$ hostgw'
    printf ' %q' "$@"
    echo
    (cd -- "$folder" && hostgw "$@") >"$scratch/out" 2>"$scratch/err" || status=$?
    cat "$scratch/out" "$scratch/err"
    return "$status"
}

# fail CODE TITLE: tells what failed, with the text on standard input, and goes on.
fail() {
    [[ $failed -ne 0 ]] || failed=$1
    printf '### %s\n\n%s\n\n' "$2" "$(quoted)" >>"$scratch/failures"
}

# Standard input as a code block. Every line is indented, so that no name in it can end the block, call a user or be
# HTML; folders of the machine are left out; and there is no more of it than a comment can hold beside the changes.
quoted() {
    local line left=$room_for_text
    while IFS= read -r line || [[ -n $line ]]; do
        line=${line//"$tree/"/}
        line=${line//"$scratch"/…}
        line=${line//"$PWD/"/}
        line=${line//"$PWD"/.}
        [[ ${HOME:-/} == / ]] || line=${line//"$HOME"/\~}
        line=${line//[[:cntrl:]]/ }
        if ((left < ${#line})); then
            echo "    … the log of the job tells the rest"
            cat >/dev/null
            return
        fi
        printf '    %s\n' "$line"
        ((left -= ${#line} + 5)) || true
    done
}

# entry REVISION PATH: sets mode and id to what the revision has there; empty when it has nothing.
entry() {
    local facts=
    IFS= read -r -d '' facts < <(git ls-tree -z "$1" -- "$2" 2>/dev/null) || true
    facts=${facts%%$'\t'*}
    read -r mode _ id <<<"$facts" || true
}

# renamed PATH: sets now to the name that HEAD has for a file of the base, where git finds that it was renamed.
renamed() {
    local before after
    while IFS= read -r -d '' _ && IFS= read -r -d '' before && IFS= read -r -d '' after; do
        [[ $before != "$1" ]] || now=$after
    done < <(git diff-tree -r -z -M -l1000 --raw --diff-filter=R --no-ext-diff --no-textconv "$base" HEAD 2>/dev/null)
}

# Writes the configuration `now` of HEAD to the tree, or says why not.
extract() {
    local size
    case $mode in
    100644 | 100755) ;;
    120000) echo "$(plain "$now") is a symbolic link: a configuration has to be a file of the repository" && return 1 ;;
    *) echo "$(plain "$now") is no file" && return 1 ;;
    esac
    size=$(git cat-file -s "$id" 2>/dev/null) || { echo "$(plain "$now") is not in this clone" && return 1; }
    ((size <= 64 << 20)) || { echo "$(plain "$now") is larger than 64 MiB" && return 1; }
    [[ $now != */* ]] || mkdir -p -- "$tree/${now%/*}"
    git cat-file blob "$id" >"$tree/$now"
}

# Compares a file with what it was, in no more than there is room for.
compare() {
    if ! logged . diff --file="$now" --markdown -- "$target...HEAD"; then
        fail 12 "hostgw: the change cannot be compared with what stands" <"$scratch/err"
        return
    fi
    tail -n +2 "$scratch/out" >"$scratch/changes" # the marker comes before the failures, too
    if ((${#files[@]} > 1 && $(wc -c <"$scratch/changes") > room)); then
        logged . diff --file="$now" --summary -- "$target...HEAD" || true
        printf '### hostgw diff, in short\n\n%s\n' "$(quoted <"$scratch/out")" >"$scratch/changes"
    fi
}

simulate() {
    if [[ ${HOSTGW_SIMULATE-yes} == no ]]; then
        printf '\n_Not simulated._\n' >"$scratch/simulated"
    elif logged "$tree" simulate --file="$now"; then
        printf '\n#### Simulated\n\n%s\n' "$(tail -n 1 "$scratch/out" | quoted)" >"$scratch/simulated"
    else
        fail 13 "hostgw: the cluster does not work when it is simulated" \
            < <(sed -n '/^✗/,$p' "$scratch/out" && cat "$scratch/err")
    fi
}

# Reviews one file into its part of the comment.
review() {
    local file=$1 now=$1 mode='' id='' old=
    : >"$scratch/failures" && : >"$scratch/changes" && : >"$scratch/simulated"
    if [[ -n $base ]]; then
        entry "$base" "$file"
        old="$mode $id"
    fi
    entry HEAD "$file"
    if [[ -z $mode && -n $base ]]; then
        renamed "$file"
        entry HEAD "$now"
    fi
    if [[ -z $mode ]]; then # deleted
        compare
    elif ((${#files[@]} > 1)) && [[ $old == "$mode $id" ]]; then
        printf '_Not changed._\n' >"$scratch/changes"
    elif ! extract >"$scratch/err"; then
        fail 11 "hostgw: the configuration is invalid" <"$scratch/err"
    elif ! logged "$tree" validate --file="$now"; then
        fail 11 "hostgw: the configuration is invalid" <"$scratch/err"
    else
        compare
        simulate
    fi
    local part=$scratch/passed
    [[ ! -s $scratch/failures ]] || part=$scratch/failed
    {
        ((${#files[@]} == 1)) || printf '## %s\n\n' "\`$(plain "$file")\`"
        cat "$scratch"/{failures,changes,simulated}
        ((${#files[@]} == 1)) || echo
    } >>"$part"
}

# None where hostgw diff says why.
base=$(git rev-parse --verify --quiet --end-of-options "$target^{commit}") || base=
base=${base:+$(git merge-base "$base" HEAD || true)}
for file in "${files[@]}"; do
    review "$file"
done

marker="diff $(plain "${files[0]}")"
((${#files[@]} == 1)) || marker="review $(plain "${files[*]}")"
rm -f -- "$comment" # it could be a link of the change's own
{
    printf '<!-- hostgw:%s -->\n' "${marker:0:1000}"
    cat "$scratch"/{failed,passed}
} >"$comment"
exit "$failed"
