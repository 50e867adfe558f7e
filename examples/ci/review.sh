#!/usr/bin/env bash
# Reviews a change to hostgw configurations: validates each file, compares it with the merge base, simulates the
# cluster, and writes a review as Markdown. Requires hostgw and git, but neither root nor a node.
#
#   review.sh TARGET FILE... COMMENT
#
# Run it in the root of the repository. TARGET is the revision that HEAD will be merged into, such as origin/main; FILE is a
# configuration, and COMMENT the Markdown file to write. Its first line is a hidden marker that is always the same for the
# same FILEs (for a single FILE, that of `hostgw diff --markdown`), so a new comment can replace the previous one.
# HOSTGW_SIMULATE=no skips the simulation, for machines that cannot create network namespaces.
#
# The change is not trusted. Configurations are read from the objects of HEAD, never from the working tree, in which a
# symbolic link could point to any file on the machine. A renamed file is compared with its old version; for a deleted
# one, the review lists what every node loses, and a file that fixes an invalid one is compared with an empty
# configuration.
#
# Exit codes: 0 success; 11 a FILE is invalid; 12 it cannot be compared; 13 the simulated cluster does not work; 64 usage.
# The first failure determines the code, and the comment lists all of them.
set -euo pipefail
export LC_ALL=C.UTF-8 NO_COLOR=1
unset HOSTGW_FILE HOSTGW_NODE # hostgw would read these

usage() {
    echo "usage: review.sh TARGET FILE... COMMENT, in the root of the repository" >&2
    exit 64
}

# Runs git without fetching, and without running anything that a repository configures.
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
# The log contains names and text from the change; on GitHub, such a line could be a command for the runner.
resume=
if [[ ${GITHUB_ACTIONS-} == true ]]; then
    resume=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')
    echo "::stop-commands::$resume"
fi
trap 'rm -rf "$scratch"; [[ -z $resume ]] || echo "::$resume::"' EXIT

# The files share the size of a GitHub comment, 65,536 characters.
room=$((60000 / ${#files[@]}))
room_for_text=$((room / 4 < 4000 ? room / 4 : 4000))

# Makes a name from the change safe for a heading or a hidden marker.
plain() {
    local active='[^[:alnum:]._/ +=,:#%~^()$-]'
    printf '%s' "${1//$active/_}"
}

# Runs hostgw in a directory and logs it. Its output is also in $scratch/out and $scratch/err.
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

# fail CODE TITLE: records a failure, with the text on standard input, and continues.
fail() {
    [[ $failed -ne 0 ]] || failed=$1
    printf '### %s\n\n%s\n\n' "$2" "$(quoted)" >>"$scratch/failures"
}

# Quotes standard input as a code block. Every line is indented, so that no name in it can end the block, mention a user or
# become HTML. Removes directory names of this machine, and limits the length to leave room for the changes.
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
            echo "    … see the log of the job for the rest"
            cat >/dev/null
            return
        fi
        printf '    %s\n' "$line"
        ((left -= ${#line} + 5)) || true
    done
}

# entry REVISION PATH: sets mode and id of the path in a revision; empty if it does not exist.
entry() {
    local facts=
    IFS= read -r -d '' facts < <(git ls-tree -z "$1" -- "$2" 2>/dev/null) || true
    facts=${facts%%$'\t'*}
    read -r mode _ id <<<"$facts" || true
}

# renamed PATH: if git detects that PATH of the base was renamed, sets $now to its name in HEAD.
renamed() {
    local before after
    while IFS= read -r -d '' _ && IFS= read -r -d '' before && IFS= read -r -d '' after; do
        [[ $before != "$1" ]] || now=$after
    done < <(git diff-tree -r -z -M -l1000 --raw --diff-filter=R --no-ext-diff --no-textconv "$base" HEAD 2>/dev/null)
}

# Writes the configuration `now` of HEAD to the tree, or prints why it cannot.
extract() {
    local size
    case $mode in
    100644 | 100755) ;;
    120000) echo "$(plain "$now") is a symbolic link; a configuration must be a file in the repository" && return 1 ;;
    *) echo "$(plain "$now") is not a file" && return 1 ;;
    esac
    size=$(git cat-file -s "$id" 2>/dev/null) || { echo "$(plain "$now") is not in this clone" && return 1; }
    ((size <= 64 << 20)) || { echo "$(plain "$now") is larger than 64 MiB" && return 1; }
    [[ $now != */* ]] || mkdir -p -- "$tree/${now%/*}"
    git cat-file blob "$id" >"$tree/$now"
}

# On GitHub, shows the findings at their lines in the pull request. hostgw escapes the text from the change, so that no line
# is a command of its own.
annotate() {
    [[ -n $resume ]] || return 0
    echo "::$resume::"
    (cd -- "$tree" && hostgw validate --file="$now" --format github 2>/dev/null) || true
    echo "::stop-commands::$resume"
}

# Compares a file with its old version, in a summary if there is not enough room.
compare() {
    if ! logged . diff --file="$now" --markdown -- "$target...HEAD"; then
        fail 12 "hostgw: the change cannot be compared" <"$scratch/err"
        return
    fi
    tail -n +2 "$scratch/out" >"$scratch/changes" # the marker must come before any failures
    if ((${#files[@]} > 1 && $(wc -c <"$scratch/changes") > room)); then
        logged . diff --file="$now" --summary -- "$target...HEAD" || true
        printf '### hostgw diff (summary)\n\n%s\n' "$(quoted <"$scratch/out")" >"$scratch/changes"
    fi
}

simulate() {
    if [[ ${HOSTGW_SIMULATE-yes} == no ]]; then
        printf '\n_Not simulated._\n' >"$scratch/simulated"
    elif logged "$tree" simulate --file="$now"; then
        printf '\n#### Simulated\n\n%s\n' "$(tail -n 1 "$scratch/out" | quoted)" >"$scratch/simulated"
    else
        fail 13 "hostgw: the simulated cluster does not work" \
            < <(sed -n '/^✗/,$p' "$scratch/out" && cat "$scratch/err")
    fi
}

# Reviews one file and adds its part of the comment.
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
        annotate
    else
        annotate
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

# Empty if there is no merge base; hostgw diff reports why.
base=$(git rev-parse --verify --quiet --end-of-options "$target^{commit}") || base=
base=${base:+$(git merge-base "$base" HEAD || true)}
for file in "${files[@]}"; do
    review "$file"
done

marker="diff $(plain "${files[0]}")"
((${#files[@]} == 1)) || marker="review $(plain "${files[*]}")"
rm -f -- "$comment" # the change could have made it a link
{
    printf '<!-- hostgw:%s -->\n' "${marker:0:1000}"
    cat "$scratch"/{failed,passed}
} >"$comment"
exit "$failed"
